"""The sections `sample_images` and `ablation` and the page of results, on a few pictures and two steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from objgan.domain import Domain
from pipelines.evaluation.protocols import Protocol
from tests.benchmarks.learn import ablation, sample_images
from tests.benchmarks.learn.ablation import MEASURES, Run, all_runs, difference, measure
from tests.benchmarks.learn.page import make_page, write_picture
from tests.benchmarks.learn.rows import Options, Row, save_row
from tests.benchmarks.learn.sample_runs import SampleRuns
from tests.benchmarks.learn.variants import FULL, VARIANTS, sizes_of, variant_config

STAGES = ("encoders", "boxes", "shapes", "images", "judge")
SETTINGS = tuple(
    f"{stage}.training.{name}"
    for stage in STAGES
    for name in ("steps=2", "batch_size=4", "checkpoint_every=2", "validation_samples=4")
)


def _silent(text: str) -> None: ...


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> SampleRuns:
    """Sixty pictures, two steps a stage, four test images."""
    protocol = Protocol("few", images=4, pool=2, diverse_captions=2, diverse_samples=2)
    made = SampleRuns(tmp_path_factory.mktemp("learn"), SETTINGS, 60, protocol)
    made.data(_silent)
    return made


@pytest.mark.parametrize("name", list(VARIANTS))
def test_variants_are_as_large_as_the_full_model(runs: SampleRuns, name: str) -> None:
    domain = Domain.load(runs.prepared / "domain")
    full, ours = (sizes_of(variant_config(which, runs.config, domain), domain) for which in (FULL, name))
    assert full == sizes_of(runs.config, domain)
    assert ours.generator == pytest.approx(full.generator, rel=0.04)
    assert ours.discriminators == pytest.approx(full.discriminators, rel=0.04)


def test_the_full_variant_is_the_recipe_itself(runs: SampleRuns) -> None:
    assert variant_config(FULL, runs.config, Domain.load(runs.prepared / "domain")) == runs.config


def test_runs_go_seed_by_seed() -> None:
    assert [run.key for run in all_runs(2)][:5] == [*(f"{name}_0" for name in VARIANTS), "full_1"]


@pytest.fixture(scope="module")
def rows(runs: SampleRuns) -> dict[str, Row]:
    """Two steps of each variant, evaluated and kept."""
    found = {}
    for name in VARIANTS:
        run = Run(name, 1)
        found[run.key] = measure(runs, run, None, runs.out / ablation.NAME / run.key, _silent)
        save_row(runs.out, ablation.NAME, run.key, found[run.key])
    return found


@pytest.mark.slow
def test_a_two_step_run_of_each_variant_is_measured(runs: SampleRuns, rows: dict[str, Row]) -> None:
    for key, row in rows.items():
        assert (row["step"], f"{row['variant']}_{row['seed']}") == (2, key)
        assert set(row["figures"]) >= {*MEASURES, ablation.DISTANCE}
        assert all(len(one["values"]) == len(one["ids"]) == 4 for one in row["samples"].values())
    table = ablation.table(rows)
    assert all(variant.title in table for variant in VARIANTS.values())
    assert "Not there yet" not in table
    again = measure(runs, Run(FULL, 1), None, runs.out / ablation.NAME / "full_1", _silent)
    assert again == rows["full_1"]


@pytest.mark.slow
def test_the_page_shows_what_there_is(runs: SampleRuns, rows: dict[str, Row], tmp_path: Path) -> None:
    folder = runs.folder("evaluation")
    fitted = runs.images(runs.config, runs.folder("images"), None, _silent)
    measured = runs.measure(runs.config, fitted.checkpoint, folder, _silent)
    assert (folder / "evaluation" / "measures.json").exists() and measured.scores
    text = make_page(Options(runs.out), _silent, runs, tmp_path).read_text()
    assert "results_steps.jpg" in text and "results_ablation.jpg" in text
    assert "Not measured yet" in text, "sample_images has no row"
    steps, variants = (Image.open(tmp_path / f"results_{name}.jpg") for name in ("steps", "ablation"))
    assert steps.width == variants.width > 6 * 128 and steps.height > 4 * 128
    assert all((tmp_path / f"results_{name}.jpg").stat().st_size < 400_000 for name in ("steps", "ablation"))


def test_a_page_without_any_row_says_so(tmp_path: Path) -> None:
    text = make_page(Options(tmp_path), _silent, docs=tmp_path).read_text()
    assert text.count("Not measured yet") == 2 and text.count("No picture yet") == 2


def _row(variant: str, seed: int, values: list[float | None]) -> Row:
    found = [value for value in values if value is not None]
    one = {"value": sum(found) / len(found), "interval": None, "count": len(found), "ceiling": None}
    return {
        "variant": variant,
        "seed": seed,
        "seconds": 60.0,
        "step": 10,
        "parameters": {"generator": 700000, "discriminators": 1300000},
        "figures": dict.fromkeys(MEASURES, one),
        "samples": {name: {"ids": list(range(len(values))), "values": values} for name in MEASURES},
    }


def test_differences_are_paired_over_the_seeds_that_both_have() -> None:
    ours = {0: _row(FULL, 0, [1.0, 0.5, None]), 1: _row(FULL, 1, [0.0, 0.5, 1.0]), 2: _row(FULL, 2, [1.0, 1.0, 1.0])}
    theirs = {0: _row("no_layout", 0, [0.5, 0.5, 1.0]), 1: _row("no_layout", 1, [0.0, 0.0, 1.0])}
    found = difference(ours, theirs, next(iter(MEASURES)))
    assert found is not None
    assert (found.samples, found.value) == (2, pytest.approx(0.25))  # images: 0.5 - 0.25, 0.5 - 0.25, one without value
    other = {0: _row("no_layout", 0, [0.5])}
    assert difference(ours, other, next(iter(MEASURES))) is None, "other images"


def test_the_table_of_partial_rows_says_what_is_missing_and_orders_the_rest() -> None:
    rows = {"full_0": _row(FULL, 0, [0.2, 0.2]), "no_layout_0": _row("no_layout", 0, [0.9, 0.8])}
    table = ablation.table(rows)
    assert "no_object_attention_0" in table and "no_object_discriminators_0" in table
    assert "objects: (iii) 85.0, full 20.0" in table
    assert "0 of 1 seeds against (iii)" in table and "-65.0" in table


def test_goals_are_met_or_missed_by_name() -> None:
    def one(value: float) -> dict[str, Any]:
        return {"value": value, "interval": [value - 0.02, value + 0.02], "count": 9, "ceiling": None}

    figures = {
        "from_layouts/object_accuracy": one(0.86),
        "from_layouts/told_colour_accuracy": one(0.79),
        "from_layouts/r_precision": one(0.3),
        "true_images/r_precision": one(0.5),
    }
    evaluated = {"seconds": 60.0, "figures": figures, "skipped": {"fid": "no weights"}}
    table = sample_images.table({"evaluation": evaluated, "boxes": {"seconds": 120.0, "step": 7, "threads": 2}})
    assert "86.0 % [84.0, 88.0] (≥ 85: met)" in table and "(≥ 85: missed)" in table
    assert "60 % (≥ 95: missed)" in table and "fid (no weights)" in table
    assert "| boxes | 2.0 | 7 | 2 |" in table and "| images | not yet |" in table
    assert "Not evaluated yet" in sample_images.table({})


def test_pictures_stay_under_their_limit(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    write_picture(tmp_path / "a.jpg", noise, 60_000)
    assert 20_000 < (tmp_path / "a.jpg").stat().st_size <= 60_000
