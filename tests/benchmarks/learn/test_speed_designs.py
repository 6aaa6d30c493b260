"""The section `speed_designs` on a few pictures and two steps, and the published forms that it compares with."""

from pathlib import Path

import pytest
import torch

from objgan.config import Config
from objgan.networks.image_generator import ImageGenerator
from pipelines.recipes import resolve
from tests.benchmarks.learn import speed_designs
from tests.benchmarks.learn.rows import Row
from tests.benchmarks.learn.sample_runs import SampleRuns
from tests.benchmarks.learn.speed_designs import DESIGNS, MEASURES, run
from tests.benchmarks.paper_step import Scenes, drawn_batch, drawn_state
from tests.benchmarks.published_form import convolve_after_doubling, double_object_images

SETTINGS = tuple(
    f"{stage}.training.{name}"
    for stage in ("encoders", "images")
    for name in ("steps=2", "batch_size=8", "checkpoint_every=2", "validation_samples=4")
)


def _silent(text: str) -> None: ...


@pytest.fixture
def tiny() -> Config:
    return resolve("tiny", None, ["images.shared_trunk=false"])


def test_every_design_is_trained_measured_and_in_the_table(tmp_path: Path) -> None:
    runs, rows = SampleRuns(tmp_path, SETTINGS, 60), {}
    for name in DESIGNS:
        row: Row = run(runs, name, 0, 2, tmp_path / name, _silent)
        assert row["step"] == 2 and set(row["figures"]) == set(MEASURES)
        rows[f"{name}_0"] = row
    assert rows["doubled_0"]["figures"] != rows["default_0"]["figures"]
    assert run(runs, "fast", 0, 2, tmp_path / "fast", _silent)["figures"] == rows["fast_0"]["figures"]
    table = speed_designs.table(rows)
    assert all(design.title in table for design in DESIGNS.values())
    assert "better with 0 of 1" in table or "better with 1 of 1" in table


def test_objects_are_judged_at_twice_the_size_with_the_same_weights(tiny: Config) -> None:
    state, batch = drawn_state(tiny, Scenes()), drawn_batch(tiny, Scenes())
    judge, before = state.stage.networks["object_small"], state.stage.state_dict()
    layout, size = batch.layout, judge.resolution
    plain = judge.features(batch.pixels(size), judge.encode(layout))
    double_object_images(state.stage.networks)
    doubled = judge.features(batch.pixels(size), judge.encode(layout))
    assert [one.shape[-1] for one in doubled] == [2 * one.shape[-1] for one in plain]
    assert state.stage.state_dict().keys() == before.keys()


def test_up_blocks_of_the_published_form_paint_the_same_image(tiny: Config) -> None:
    state, batch = drawn_state(tiny, Scenes()), drawn_batch(tiny, Scenes())
    generator = state.stage.networks["image_generator"]
    assert isinstance(generator, ImageGenerator)
    seen = []
    for _ in range(2):
        torch.manual_seed(0)
        with torch.no_grad():
            seen.append(state.stage(batch).generated.images[-1])
        convolve_after_doubling(state.stage.networks)
    torch.testing.assert_close(seen[0], seen[1], atol=1e-4, rtol=0)
