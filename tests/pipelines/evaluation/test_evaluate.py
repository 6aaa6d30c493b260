"""Evaluation of an untrained model by untrained judges: what is measured, and that nothing but the model matters."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from torch import Tensor

from objgan.checkpoint import save_checkpoint
from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.stages import NETWORKS, build_network, build_stage
from objgan.train_state import TrainState
from pipelines.__main__ import main
from pipelines.data.prepare.convert import run_here as prepare_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.sample import make_sample
from pipelines.data.shards.format import load_manifest, read_split
from pipelines.evaluation.evaluate import EvaluationResult, check, evaluate, run_here, run_on_ray, save
from pipelines.evaluation.judge_training import OTHER_SEED, identity, judge_jobs
from pipelines.evaluation.judges import JUDGE, SECOND_ENCODERS, JudgePaths
from pipelines.evaluation.protocols import Protocol
from pipelines.evaluation.synthesis import Synthesis
from pipelines.evaluation.worker import Evaluation, EvaluationTask, Measurer
from pipelines.recipes import resolve
from pipelines.runs.listing import find_runs, to_go_on
from pipelines.storage.lease import Lease
from pipelines.storage.storage import Storage
from pipelines.workflow.run import sample_source
from tests.tools.crashes import run_crashing
from tests.tools.training import wait_until

PROTOCOL = Protocol("p", pool=8, diverse_captions=3, diverse_samples=2)
SMALL = (
    *("data.test_percent=40", "encoders.channels=16", "encoders.embedding=8", "encoders.small_width=8"),
    *("boxes.hidden=16", "images.width=8", "images.discriminator_width=8", "judge.width=4"),
)


@pytest.fixture(scope="module")
def config() -> Config:
    return resolve("tiny", None, SMALL)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Path:
    """30 drawn pictures, prepared."""
    folder: Path = tmp_path_factory.mktemp("drawn")
    make_sample(folder / "coco", 30, 0)
    prepare(sample_source(folder / "coco"), folder / "data", config, lambda line: None, prepare_here)
    return folder / "data"


def _model(folder: Path, config: Config, domain: Domain) -> Path:
    torch.manual_seed(0)
    ObjGAN(config, domain, {name: build_network(name, config, domain) for name in NETWORKS}).save(folder / "model")
    return folder / "model"


def _judges(folder: Path, config: Config, domain: Domain) -> Path:
    torch.manual_seed(1)
    for name, stage in ((SECOND_ENCODERS, "encoders"), (JUDGE, "judge")):
        save_checkpoint(folder / "judges" / name, TrainState(build_stage(stage, config, domain, {})))
    return folder / "judges"


@pytest.fixture(scope="module")
def what(tmp_path_factory: pytest.TempPathFactory, data: Path, config: Config) -> Evaluation:
    folder, domain = tmp_path_factory.mktemp("made"), Domain.load(data / "domain")
    judges = JudgePaths(_judges(folder, config, domain))
    return Evaluation(_model(folder, config, domain), data, PROTOCOL, judges=judges, batch=4)


@pytest.fixture(scope="module")
def measured(what: Evaluation) -> EvaluationResult:
    return evaluate(what, lambda line: None, run_here)


def _check_same(a: EvaluationResult, b: EvaluationResult, exact: bool = False) -> None:
    assert a.counts == b.counts
    assert a.samples.drop_columns("value") == b.samples.drop_columns("value")
    if exact:
        assert a.scores == b.scores
    else:
        assert a.means == pytest.approx(b.means, rel=1e-3, abs=1e-4)


def test_every_measure_is_there_with_its_row_and_protocol(measured: EvaluationResult) -> None:
    rows = {name.split("/")[0] for name in measured.scores}
    assert rows == {
        *("encoders", "boxes", "shapes", "images"),
        *("from_captions", "from_boxes", "from_layouts", "true_images"),
    }
    drawn = {"r_precision", "fd_encoder", "soa_c", "soa_i", "object_accuracy", "colour_accuracy", "scene_accuracy"}
    for row in ("from_captions", "from_boxes", "from_layouts", "true_images"):
        assert {f"{row}/{name}_p" for name in drawn} <= set(measured.scores)
    layouts = ("label_f1", "count_histogram_distance", "diversity_pixels", "diversity_encoder")
    assert {f"from_captions/{name}_p" for name in layouts} <= set(measured.scores)
    assert {"shapes/mask_iou", "shapes/mask_iou_class_mean", "boxes/label_f1", "encoders/r1_of_pool"} <= set(
        measured.scores
    )
    assert "no Inception weights" in measured.skipped["fid, kid, is"]
    assert not any(name.split("/")[-1].startswith(("fid", "kid", "is_")) for name in measured.scores)


def test_intervals_hold_their_figures_and_true_images_are_the_ceiling(measured: EvaluationResult) -> None:
    for one in measured.scores.values():
        assert one.interval is None or one.interval[0] <= one.value <= one.interval[1]
    assert measured.means["true_images/fd_encoder_p"] == pytest.approx(0, abs=1e-9)
    ours = measured.scores["from_layouts/r_precision_p"]
    assert ours.ceiling == measured.means["true_images/r_precision_p"]


def test_the_size_of_batches_changes_nothing(what: Evaluation, measured: EvaluationResult) -> None:
    _check_same(measured, evaluate(replace(what, batch=7), lambda line: None, run_here))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_workers_on_ray_change_nothing(what: Evaluation, measured: EvaluationResult) -> None:
    _check_same(measured, evaluate(replace(what, workers=2), lambda line: None, run_on_ray), exact=True)


@pytest.mark.ray
@pytest.mark.slow
def test_a_batch_that_kills_its_workers_is_named_and_ends_the_command(what: Evaluation, tmp_path: Path) -> None:
    """Without a bound, Ray would restart the worker for ever."""
    table = next(read_split(what.data, load_manifest(what.data), "test"))
    data, image_id = table["image"][2].as_py(), table["image_id"][2].as_py()
    arguments = ["evaluate", "--model", what.model, "--data", what.data, "--out", tmp_path / "out"]
    done = run_crashing(tmp_path / "site", {data: "SIGSEGV"}, *arguments)
    text = done.stdout + done.stderr
    assert done.returncode == 1, text[-3000:]
    death = r"failed \(exit code 1\): evaluate: 3 workers died one after the other at batch 0 of \w+ \(images ([^)]*)\)"
    (images,) = re.findall(death, text)
    assert str(image_id) in images.split(", ")
    assert not (tmp_path / "out" / "measures.json").exists()


def test_the_seed_changes_noise_and_captions(what: Evaluation) -> None:
    tasks = [EvaluationTask("rows", 0), EvaluationTask("diversity", 0)]
    one, again, other = ([found.values for found in run_here(replace(what, seed=seed), tasks)] for seed in (3, 3, 4))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_equal(a, b)
    name = "from_captions/diversity_pixels_p"
    assert not np.array_equal(one[1][name], other[1][name])


def test_a_generator_of_true_images_reaches_every_ceiling(what: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Synthesis, "images", lambda self, prompts, *rest: self.real(prompts))
    scores = evaluate(what, lambda line: None, run_here).scores
    assert scores["from_layouts/fd_encoder_p"].value == pytest.approx(0, abs=1e-9)
    for name in ("r_precision_p", "soa_c_p", "object_accuracy_p", "colour_accuracy_p", "scene_accuracy_p"):
        assert scores[f"from_layouts/{name}"].value == scores[f"true_images/{name}"].value
        assert scores[f"from_captions/{name}"].value == scores[f"from_captions/{name}"].ceiling
    assert scores["from_captions/diversity_pixels_p"].value == 0


def test_a_constant_generator_has_no_variety(what: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    def constant(self: Synthesis, prompts: object, *rest: object) -> Tensor:
        return torch.full_like(self.real(prompts), 200)  # type: ignore[arg-type]

    monkeypatch.setattr(Synthesis, "images", constant)
    scores = evaluate(what, lambda line: None, run_here).scores
    assert scores["from_captions/diversity_pixels_p"].value == 0
    assert scores["from_captions/diversity_encoder_p"].value == pytest.approx(0, abs=1e-6)
    assert scores["from_captions/fd_encoder_p"].value > 1e-6, "features of an untrained encoder are small"
    assert scores["from_captions/r_precision_p"].value < 0.3, "one image can be the nearest of few captions"


def test_an_exact_number_takes_further_captions(what: Evaluation) -> None:
    exact = replace(what, protocol=replace(PROTOCOL, images=20, exact=True))
    measured = evaluate(exact, lambda line: None, run_here)
    assert measured.counts["from_captions/fd_encoder_p"] == 20
    images = measured.counts["shapes/mask_iou"]
    assert images < 20
    rows = measured.samples.to_pylist()
    drawn = [(row["image_id"], row["caption"]) for row in rows if row["measure"] == "from_captions/label_f1_p"]
    assert len(set(drawn)) == 20
    assert max(number for _, number in drawn) == 20 // images


def test_without_judges_no_image_is_judged(what: Evaluation) -> None:
    measured = evaluate(replace(what, judges=JudgePaths()), lambda line: None, run_here)
    assert not [name for name in measured.scores if name.startswith(("from_boxes", "from_layouts"))]
    assert "from_captions/label_f1_p" in measured.scores
    assert "no second encoders" in measured.skipped["r_precision, fd_encoder, diversity_encoder"]


def test_what_is_written(measured: EvaluationResult, tmp_path: Path) -> None:
    save(measured, tmp_path)
    facts = json.loads((tmp_path / "measures.json").read_text())
    assert facts["protocol"] == "p"
    assert facts["measures"] == measured.means
    assert facts["samples"] == measured.counts
    assert set(facts["intervals"]) == set(facts["measures"])
    assert facts["ceilings"]["from_captions/fd_encoder_p"] == facts["measures"]["true_images/fd_encoder_p"]
    table = parquet.read_table(tmp_path / "details" / "samples.parquet").to_pandas()
    for name, mean in table.groupby("measure")["value"].mean().dropna().items():
        assert mean == pytest.approx(facts["measures"][name], abs=1e-9)
    assert (tmp_path / "details" / "images_images.png").exists()
    assert (tmp_path / "details" / "rows.png").exists()


def test_judges_that_do_not_fit_are_refused(
    what: Evaluation, config: Config, data: Path, tmp_path: Path, model_folder: Path, prepared: Path
) -> None:
    domain = Domain.load(data / "domain")
    others = _judges(tmp_path / "other", config, replace(domain, classes=(*domain.classes[:-1], "unicorn")))
    with pytest.raises(InputError, match="other classes than the model"):
        check(replace(what, judges=JudgePaths(others)))
    with pytest.raises(InputError, match="no folder"):
        check(replace(what, judges=JudgePaths(tmp_path / "nowhere")))
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    assert what.judges.judges is not None
    (swapped / SECOND_ENCODERS).symlink_to(what.judges.judges / JUDGE)
    with pytest.raises(InputError, match="is of stage judge, not encoders"):
        check(replace(what, judges=JudgePaths(swapped)))
    with pytest.raises(InputError, match="other classes than the model's data"):
        check(replace(what, data=prepared))


def test_the_models_own_encoders_are_no_judges(what: Evaluation, config: Config, data: Path, tmp_path: Path) -> None:
    model = ObjGAN.load(what.model, device="cpu")
    stage = build_stage("encoders", config, model.domain, {})
    for name in stage.inference:
        stage.networks[name] = model.networks[name]
    save_checkpoint(tmp_path / SECOND_ENCODERS, TrainState(stage.requires_grad_(True)))
    with pytest.raises(InputError, match="the encoders of the model itself"):
        check(replace(what, judges=JudgePaths(tmp_path)))


def test_wrong_options_are_one_line_and_code_2(
    what: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", "--model", str(what.model), "--data", str(what.data)]
    for options, words in (
        (["--protocol", "all"], "unknown protocol 'all'"),
        (["--judges", "nowhere"], "no folder nowhere"),
        (["--inception", "none.pth"], "none.pth"),
        (["--detector", "none.pth"], "none.pth"),
    ):
        assert main([*command, *options]) == 2
        text = capsys.readouterr().err.strip()
        assert text.startswith("error: ") and len(text.splitlines()) == 1 and words in text


def test_data_of_boxes_alone_show_layouts(prepared_boxes: Path, data_config: Config, tmp_path: Path) -> None:
    settings = [f"data.{name}={value}" for name, value in data_config.data.model_dump().items()]
    words = [f"{name}.training.max_words=8" for name in ("encoders", "boxes", "shapes", "images")]
    config = resolve("tiny", None, [*SMALL, *settings, *words, "images.word_channels=6"])
    model = _model(tmp_path, config, Domain.load(prepared_boxes / "domain"))
    measured = evaluate(Evaluation(model, prepared_boxes, PROTOCOL), lambda line: None, run_here)
    assert "from_captions/label_f1_p" in measured.scores
    assert "pixels" in measured.skipped["images"]


def test_a_task_depends_on_nothing_else(what: Evaluation) -> None:
    measurer = Measurer(what)
    first = measurer(EvaluationTask("rows", 1))
    measurer(EvaluationTask("rows", 0))
    np.testing.assert_equal(first.values, measurer(EvaluationTask("rows", 1)).values)


def test_judges_need_attributes_and_another_seed(data: Path, prepared: Path, config: Config, tmp_path: Path) -> None:
    jobs, skipped = judge_jobs(config, data, tmp_path)
    assert list(jobs) == [SECOND_ENCODERS, JUDGE] and not skipped
    assert {job.config.seed for job in jobs.values()} == {config.seed + OTHER_SEED}
    settings = config.model_copy(update={"data": config.data.model_copy(update={"max_objects": 3})})
    jobs, skipped = judge_jobs(settings, prepared, tmp_path)
    assert list(jobs) == [SECOND_ENCODERS]
    assert "no attributes" in skipped[JUDGE]


def test_judges_are_told_apart_by_what_they_are(what: Evaluation, tmp_path: Path) -> None:
    ours = what.judges.judges
    assert ours is not None
    shutil.copytree(ours / SECOND_ENCODERS, tmp_path / "a" / SECOND_ENCODERS)
    assert identity(tmp_path / "a") != identity(ours), "the judge of objects is missing"
    shutil.copytree(ours / JUDGE, tmp_path / "a" / JUDGE)
    assert identity(tmp_path / "a") == identity(ours)


def test_a_folder_that_another_driver_holds_is_left_alone(
    what: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--model", str(what.model), "--data", str(what.data), "--out", str(tmp_path)]
    with Lease.acquire(Storage(tmp_path)):
        assert main(command) == 2
    assert "is held by process" in capsys.readouterr().err


@pytest.mark.ray
def test_an_evaluation_that_was_killed_is_not_shown_as_running(
    what: Evaluation, tmp_path: Path, repository: Path
) -> None:
    words = ["evaluate", "--model", str(what.model), "--data", str(what.data), "--out", str(tmp_path / "measured")]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    process = subprocess.Popen([sys.executable, "-m", "pipelines", *words], cwd=tmp_path, env=environment)
    wait_until(lambda: (tmp_path / "measured" / "status.json").exists() or process.poll() is not None)
    (seen,) = find_runs(Storage(tmp_path))
    assert (seen.stage, seen.state, seen.alive) == ("evaluate", "running", True)
    assert seen.held is not None and seen.held.pid == process.pid
    process.kill()
    process.wait()
    (seen,) = find_runs(Storage(tmp_path))
    assert (seen.state, seen.alive) == ("dead", False)
    assert (to_go_on(seen) or "").startswith("python -m pipelines evaluate --model")
