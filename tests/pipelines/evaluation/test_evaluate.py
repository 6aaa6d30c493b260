"""Evaluation of an untrained model by untrained judges: metrics that depend on model, data and seed alone."""

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from torch import Tensor

from objgan import generation
from objgan.checkpoint import save_checkpoint
from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.stages import NETWORKS, build_network, build_stage
from objgan.train_state import TrainState
from pipelines.__main__ import main
from pipelines.data.loading.data_folder import DataFolder
from pipelines.data.prepare.convert import run_here as prepare_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.sample import make_sample
from pipelines.data.shards.format import load_manifest, read_split
from pipelines.evaluation import trained_judges
from pipelines.evaluation.comparison import compare
from pipelines.evaluation.evaluate import EvaluationResult, evaluate, log_to_version, run_here, run_on_ray, save
from pipelines.evaluation.gate import DEFAULT
from pipelines.evaluation.image_judges import MEASURES, ImageJudges
from pipelines.evaluation.judge_training import OTHER_SEED, identity, judge_jobs
from pipelines.evaluation.judges import JUDGE, SECOND_ENCODERS, JudgePaths
from pipelines.evaluation.prompts_file import read_prompts_file
from pipelines.evaluation.protocols import Protocol
from pipelines.evaluation.scores import Score
from pipelines.evaluation.synthesis import Synthesis
from pipelines.evaluation.trained_judges import ObjectJudge, SecondEncoders
from pipelines.evaluation.worker import Evaluation, EvaluationTask, Measurer, OpenEvaluation
from pipelines.models.champion import find_champion
from pipelines.models.registry import mlflow_at, register
from pipelines.recipes import resolve
from pipelines.runs.listing import find_runs, to_go_on
from pipelines.storage.lease import Lease
from pipelines.storage.storage import Storage
from pipelines.training.job import OpenRun, TrainJob, claim_folder, open_run
from pipelines.training.validation import judge
from pipelines.workflow.run import sample_source
from tests.tools.crashes import run_crashing
from tests.tools.training import small_config, wait_until

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
    prepare(sample_source(folder / "coco"), folder / "data", config, prepare_here)
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
def evaluation(tmp_path_factory: pytest.TempPathFactory, data: Path, config: Config) -> Evaluation:
    folder, domain = tmp_path_factory.mktemp("made"), Domain.load(data / "domain")
    judges = JudgePaths(_judges(folder, config, domain))
    return Evaluation(_model(folder, config, domain), data, PROTOCOL, judges=judges, batch=4)


@pytest.fixture(scope="module")
def opened(evaluation: Evaluation) -> OpenEvaluation:
    return OpenEvaluation(evaluation)


@pytest.fixture(scope="module")
def result(opened: OpenEvaluation) -> EvaluationResult:
    return measure(opened)


def measure(opened: OpenEvaluation | Evaluation) -> EvaluationResult:
    """In this process."""
    return evaluate(OpenEvaluation(opened) if isinstance(opened, Evaluation) else opened, run_here)


def _check_same(a: EvaluationResult, b: EvaluationResult, exact: bool = False) -> None:
    assert a.counts == b.counts
    assert a.samples.drop_columns("value") == b.samples.drop_columns("value")
    if exact:
        assert a.scores == b.scores
    else:
        assert a.means == pytest.approx(b.means, rel=1e-3, abs=1e-4)


def test_every_metric_has_its_row_and_protocol(result: EvaluationResult) -> None:
    rows = {name.split("/")[0] for name in result.scores}
    assert rows == {
        *("encoders", "boxes", "shapes", "images"),
        *("from_captions", "from_boxes", "from_layouts", "true_images"),
    }
    drawn = {"r_precision", "fd_encoder", "soa_c", "soa_i", "object_accuracy", "colour_accuracy", "scene_accuracy"}
    for row in ("from_captions", "from_boxes", "from_layouts", "true_images"):
        assert {f"{row}/{name}_p" for name in drawn} <= set(result.scores)
    layouts = ("label_f1", "count_histogram_distance", "diversity_pixels", "diversity_encoder")
    assert {f"from_captions/{name}_p" for name in layouts} <= set(result.scores)
    assert {"shapes/mask_iou", "shapes/mask_iou_class_mean", "boxes/label_f1", "encoders/r1_of_pool"} <= set(
        result.scores
    )
    assert "no Inception weights" in result.skipped["fid, kid, is"]
    assert not any(name.split("/")[-1].startswith(("fid", "kid", "is_")) for name in result.scores)


def test_intervals_contain_their_values_and_true_images_are_the_ceiling(result: EvaluationResult) -> None:
    for score in result.scores.values():
        assert score.interval is None or score.interval[0] <= score.value <= score.interval[1]
    assert result.means["true_images/fd_encoder_p"] == pytest.approx(0, abs=1e-9)
    ours = result.scores["from_layouts/r_precision_p"]
    assert ours.ceiling == result.means["true_images/r_precision_p"]


def test_the_size_of_batches_changes_nothing(evaluation: Evaluation, result: EvaluationResult) -> None:
    _check_same(result, measure(replace(evaluation, batch=7)))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_workers_on_ray_change_nothing(evaluation: Evaluation, result: EvaluationResult) -> None:
    opened = OpenEvaluation(replace(evaluation, workers=2))
    _check_same(result, evaluate(opened, run_on_ray), exact=True)


@pytest.mark.ray
@pytest.mark.slow
def test_the_command_fails_and_names_a_batch_that_kills_its_workers(evaluation: Evaluation, tmp_path: Path) -> None:
    """Without a limit, Ray would restart the worker forever."""
    table = next(read_split(evaluation.data, load_manifest(evaluation.data), "test"))
    data, image_id = table["image"][2].as_py(), table["image_id"][2].as_py()
    arguments = ["evaluate", "--model", evaluation.model, "--data", evaluation.data, "--out", tmp_path / "out"]
    done = run_crashing(tmp_path / "site", {data: "SIGSEGV"}, *arguments)
    text = done.stdout + done.stderr
    assert done.returncode == 1, text[-3000:]
    death = r"failed \(exit code 1\): evaluate: 3 workers died one after the other at batch 0 of \w+ \(images ([^)]*)\)"
    (images,) = re.findall(death, text)
    assert str(image_id) in images.split(", ")
    assert not (tmp_path / "out" / "measures.json").exists()


def test_the_seed_changes_noise_and_captions(evaluation: Evaluation) -> None:
    tasks = [EvaluationTask("rows", 0), EvaluationTask("diversity", 0)]
    first, again, other = (
        [samples.values for samples in run_here(OpenEvaluation(replace(evaluation, seed=seed)), tasks)]
        for seed in (3, 3, 4)
    )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_equal(a, b)
    name = "from_captions/diversity_pixels_p"
    assert not np.array_equal(first[1][name], other[1][name])


def test_a_generator_of_true_images_reaches_every_ceiling(
    opened: OpenEvaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Synthesis, "images", lambda self, prompts, *rest: self.real(prompts))
    scores = measure(opened).scores
    assert scores["from_layouts/fd_encoder_p"].value == pytest.approx(0, abs=1e-9)
    for name in ("r_precision_p", "soa_c_p", "object_accuracy_p", "colour_accuracy_p", "scene_accuracy_p"):
        assert scores[f"from_layouts/{name}"].value == scores[f"true_images/{name}"].value
        assert scores[f"from_captions/{name}"].value == scores[f"from_captions/{name}"].ceiling
    assert scores["from_captions/diversity_pixels_p"].value == 0


def test_a_constant_generator_has_no_variety(opened: OpenEvaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    def constant(self: Synthesis, prompts: object, *rest: object) -> Tensor:
        return torch.full_like(self.real(prompts), 200)  # type: ignore[arg-type]

    monkeypatch.setattr(Synthesis, "images", constant)
    scores = measure(opened).scores
    assert scores["from_captions/diversity_pixels_p"].value == 0
    assert scores["from_captions/diversity_encoder_p"].value == pytest.approx(0, abs=1e-6)
    assert scores["from_captions/fd_encoder_p"].value > 1e-6, "features of an untrained encoder are small"
    assert scores["from_captions/r_precision_p"].value < 0.3, "one image can be the nearest of few captions"


def test_a_process_opens_everything_once_and_encodes_each_batch_once(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(owner, name, counted)

    count(generation, "read_model")
    count(DataFolder, "__init__")
    count(trained_judges, "load_inference")
    count(ObjGAN, "encode")
    count(SecondEncoders, "of_captions")
    count(ObjectJudge, "measure")
    opened = OpenEvaluation(evaluation)
    measure(opened)
    kinds = Counter(task.kind for task in opened.tasks())
    assert kinds["rows"] > 1
    assert calls == {
        "read_model": 1,
        "__init__": 1,  # the data, for all readers
        "load_inference": 2,  # second encoders, judge of objects
        "encode": kinds["rows"] + kinds["diversity"] + 1,  # the picture of rows
        "of_captions": kinds["rows"],
        "measure": 4 * kinds["rows"],  # three rows and the true images
    }


def test_an_exact_number_uses_several_captions_of_an_image(evaluation: Evaluation) -> None:
    result = measure(replace(evaluation, protocol=replace(PROTOCOL, images=20, exact=True)))
    assert result.counts["from_captions/fd_encoder_p"] == 20
    images = result.counts["shapes/mask_iou"]
    assert images < 20
    rows = result.samples.to_pylist()
    drawn = [(row["image_id"], row["caption"]) for row in rows if row["measure"] == "from_captions/label_f1_p"]
    assert len(set(drawn)) == 20
    assert max(number for _, number in drawn) == 20 // images


def test_without_judges_no_image_is_judged(evaluation: Evaluation) -> None:
    result = measure(replace(evaluation, judges=JudgePaths()))
    assert not [name for name in result.scores if name.startswith(("from_boxes", "from_layouts"))]
    assert "from_captions/label_f1_p" in result.scores
    assert "no second encoders" in result.skipped["r_precision, fd_encoder, diversity_encoder"]


def test_prompts_with_known_numbers_and_relations(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    numbers = [{"prompt": f"{n} red kites above a boat", "counts": {"kite": n, "boat": 1}} for n in (1, 2, 3)]
    places = [{"prompt": "a kite left of a boat", "relations": [["kite", "left", "boat"]]}]
    path.write_text(json.dumps([*numbers, *places]))
    asked = replace(evaluation, judges=JudgePaths(), prompts=read_prompts_file(path))
    result = measure(asked)
    names = ("numerical_accuracy", "spatial_accuracy", "all_named", "precision", "recall")
    counts = {name: result.counts[f"from_prompts/{name}"] for name in names}
    assert counts == {"numerical_accuracy": 3, "spatial_accuracy": 1, "all_named": 4, "precision": 3, "recall": 3}
    assert all(0 <= result.means[f"from_prompts/{name}"] <= 1 for name in names)
    assert result.scores["from_prompts/recall"].interval is not None
    rows = result.samples.to_pylist()
    assert [row["image_id"] for row in rows if row["measure"] == "from_prompts/all_named"] == [1, 2, 3, 4]
    again = measure(replace(asked, batch=2))
    assert all(result.scores[f"from_prompts/{name}"] == again.scores[f"from_prompts/{name}"] for name in names)
    path.write_text(json.dumps([*numbers, {"prompt": "xyzzy", "counts": {"boat": 1}}]))
    with pytest.raises(InputError, match=r"prompts\.json: entry 4: caption 'xyzzy': this model knows none"):
        OpenEvaluation(replace(evaluation, prompts=read_prompts_file(path)))


def test_saved_files(result: EvaluationResult, evaluation: Evaluation, data: Path, tmp_path: Path) -> None:
    save(result, tmp_path, "models:/objgan/3")
    facts = json.loads((tmp_path / "measures.json").read_text())
    model = hashlib.sha256((evaluation.model / "model.json").read_bytes()).hexdigest()
    assert (facts["model"], facts["model_sha256"], facts["seed"]) == ("models:/objgan/3", model, 0)
    assert facts["data_digest"] == load_manifest(data)["digest"]
    assert facts["protocol"] == "p"
    assert facts["measures"] == result.means
    assert facts["samples"] == result.counts
    assert set(facts["intervals"]) == set(facts["measures"])
    assert facts["ceilings"]["from_captions/fd_encoder_p"] == facts["measures"]["true_images/fd_encoder_p"]
    table = parquet.read_table(tmp_path / "details" / "samples.parquet").to_pandas()
    for name, mean in table.groupby("measure")["value"].mean().dropna().items():
        assert mean == pytest.approx(facts["measures"][name], abs=1e-9)
    assert (tmp_path / "details" / "images_images.png").exists()
    assert (tmp_path / "details" / "rows.png").exists()


def test_judges_and_data_that_do_not_fit_the_model_are_rejected(
    evaluation: Evaluation, config: Config, data: Path, tmp_path: Path, model_folder: Path, prepared: Path
) -> None:
    domain = Domain.load(data / "domain")
    others = _judges(tmp_path / "other", config, replace(domain, classes=(*domain.classes[:-1], "unicorn")))
    with pytest.raises(InputError, match="other classes than the model"):
        OpenEvaluation(replace(evaluation, judges=JudgePaths(others)))
    with pytest.raises(InputError, match="no folder"):
        OpenEvaluation(replace(evaluation, judges=JudgePaths(tmp_path / "nowhere")))
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    assert evaluation.judges.judges is not None
    (swapped / SECOND_ENCODERS).symlink_to(evaluation.judges.judges / JUDGE)
    with pytest.raises(InputError, match="is of stage judge, not encoders"):
        OpenEvaluation(replace(evaluation, judges=JudgePaths(swapped)))
    with pytest.raises(InputError, match="other classes than the model's data"):
        OpenEvaluation(replace(evaluation, data=prepared))


def test_the_models_own_encoders_are_rejected_as_judges(
    evaluation: Evaluation, config: Config, data: Path, tmp_path: Path
) -> None:
    model = ObjGAN.load(evaluation.model, device="cpu")
    stage = build_stage("encoders", config, model.domain, {})
    for name in stage.inference:
        stage.networks[name] = model.networks[name]
    save_checkpoint(tmp_path / SECOND_ENCODERS, TrainState(stage.requires_grad_(True)))
    with pytest.raises(InputError, match="the encoders of the model itself"):
        OpenEvaluation(replace(evaluation, judges=JudgePaths(tmp_path)))


def test_wrong_options_are_one_line_and_code_2(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", "--model", str(evaluation.model), "--data", str(evaluation.data)]
    (tmp_path / "wrong.json").write_text('[{"prompt": "a kite", "counts": {"kit": 1}}]')
    for options, words in (
        (["--protocol", "all"], "unknown protocol 'all'"),
        (["--judges", "nowhere"], "no folder nowhere"),
        (["--inception", "none.pth"], "none.pth"),
        (["--detector", "none.pth"], "none.pth"),
        (["--prompts", "none.json"], "--prompts: no file none.json"),
        (["--prompts", "wrong.json"], "--prompts: wrong.json: entry 1: unknown class 'kit': did you mean kite?"),
    ):
        assert main([*command, *options]) == 2
        text = capsys.readouterr().err.strip()
        assert text.startswith("error: ") and len(text.splitlines()) == 1 and words in text


def test_data_with_only_boxes_give_layout_metrics(prepared_boxes: Path, data_config: Config, tmp_path: Path) -> None:
    settings = [f"data.{name}={value}" for name, value in data_config.data.model_dump().items()]
    words = [f"{name}.training.max_words=8" for name in ("encoders", "boxes", "shapes", "images")]
    config = resolve("tiny", None, [*SMALL, *settings, *words, "images.word_channels=6"])
    model = _model(tmp_path, config, Domain.load(prepared_boxes / "domain"))
    result = measure(Evaluation(model, prepared_boxes, PROTOCOL))
    assert "from_captions/label_f1_p" in result.scores
    assert "pixels" in result.skipped["images"]


def test_metrics_are_a_function_of_the_task_alone(opened: OpenEvaluation) -> None:
    measurer = Measurer(opened)
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


def test_judges_are_identified_by_their_content(evaluation: Evaluation, tmp_path: Path) -> None:
    ours = evaluation.judges.judges
    assert ours is not None
    shutil.copytree(ours / SECOND_ENCODERS, tmp_path / "a" / SECOND_ENCODERS)
    assert identity(tmp_path / "a") != identity(ours), "the judge of objects is missing"
    shutil.copytree(ours / JUDGE, tmp_path / "a" / JUDGE)
    assert identity(tmp_path / "a") == identity(ours)


@pytest.fixture(scope="module")
def images_run(evaluation: Evaluation, config: Config, tmp_path_factory: pytest.TempPathFactory) -> OpenRun:
    """A run of stage `images`, whose validation the judges join."""
    folder = tmp_path_factory.mktemp("images")
    model, judges = ObjGAN.load(evaluation.model, device="cpu"), evaluation.judges.judges
    stage = build_stage("encoders", config, model.domain, {})
    for name in stage.inference:
        stage.networks[name] = model.networks[name]
    save_checkpoint(folder / "encoders", TrainState(stage.requires_grad_(True)))
    assert judges is not None
    needs = {"encoders": folder / "encoders"}
    return open_run(TrainJob("images", config, evaluation.data, folder / "run", needs, judges=ImageJudges(judges)))


def test_in_training_judges_measure_what_evaluate_measures(
    images_run: OpenRun, evaluation: Evaluation, result: EvaluationResult
) -> None:
    """The networks stay as they were."""
    model, stage = ObjGAN.load(evaluation.model, device="cpu"), images_run.new_stage()
    stage.networks["image_generator"] = model.networks["image_generator"].requires_grad_(True)
    state = TrainState(stage)
    assert images_run.job.judges is not None
    judges = images_run.job.judges.open(images_run, stage, "test")
    measures = judge(state, judges)
    expected = {
        name.removesuffix("_p"): value
        for name, value in result.means.items()
        if name.startswith("from_layouts/") and "r_precision" not in name
    }
    assert measures == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert set(MEASURES) - measures.keys() == {"from_layouts/r_precision"}, "a pool of 100 needs 100 images"
    assert judge(state, judges) == measures, "the second time, measures of true images are those of the first"
    assert stage.networks["image_generator"].training
    assert all(parameter.requires_grad for parameter in stage.networks["image_generator"].parameters())


def test_judges_that_do_not_fit_a_training_are_rejected(
    images_run: OpenRun, config: Config, data: Path, prepared: Path, data_config: Config, tmp_path: Path
) -> None:
    job, judges = images_run.job, images_run.job.judges
    assert isinstance(judges, ImageJudges)
    domain = Domain.load(data / "domain")
    others = _judges(tmp_path / "other", config, replace(domain, classes=(*domain.classes[:-1], "unicorn")))
    own = tmp_path / "own"
    shutil.copytree(job.needs["encoders"], own / SECOND_ENCODERS)
    for folder, words in (
        (others, "other classes than"),
        (tmp_path / "nowhere", "no folder"),
        (own, "the encoders of the training itself"),
    ):
        with pytest.raises(InputError, match=words):
            open_run(replace(job, judges=ImageJudges(folder)))
    with pytest.raises(InputError, match="stage shapes makes none"):
        open_run(TrainJob("shapes", small_config(data_config), prepared, tmp_path / "run", judges=judges))
    assert list(judges.lacking(images_run)) == ["from_layouts/r_precision"]
    assert set(ImageJudges(own).lacking(images_run)) == set(MEASURES) - {"from_layouts/fd_encoder"}
    claim_folder(images_run)
    (own / SECOND_ENCODERS).rename(own / "copy")
    shutil.copytree(judges.folder / SECOND_ENCODERS, own / SECOND_ENCODERS)
    with pytest.raises(InputError, match=r"begun differently \(judges"):
        open_run(replace(job, judges=ImageJudges(own)))


def test_a_folder_that_another_driver_holds_is_rejected(
    evaluation: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--model", str(evaluation.model), "--data", str(evaluation.data), "--out", str(tmp_path)]
    with Lease.acquire(Storage(tmp_path)):
        assert main(command) == 2
    assert "is held by process" in capsys.readouterr().err


@pytest.mark.ray
def test_a_killed_evaluation_is_not_shown_as_running(evaluation: Evaluation, tmp_path: Path, repository: Path) -> None:
    arguments = ["--model", evaluation.model, "--data", evaluation.data, "--out", tmp_path / "measured"]
    words = ["evaluate", *map(str, arguments)]
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


def test_two_models_are_compared_sample_by_sample(
    evaluation: Evaluation, data: Path, config: Config, tmp_path: Path
) -> None:
    plain = replace(evaluation, judges=JudgePaths())
    same = compare(plain, plain.model, DEFAULT, run_here)
    assert len(same.verdict.findings) > 4 and not same.verdict.passed and same.cases == ()
    assert same.data == load_manifest(data)["digest"]
    assert {(f.difference.low, f.difference.high) for f in same.verdict.findings} == {(0.0, 0.0)}, "the same noise"
    torch.manual_seed(5)
    domain = Domain.load(data / "domain")
    # Untrained models would name the same classes: this one draws also those that a caption does not name.
    config = config.model_copy(update={"boxes": config.boxes.model_copy(update={"unnamed_presence": 0.0})})
    other = ObjGAN(config, domain, {name: build_network(name, config, domain) for name in NETWORKS})
    other.save(tmp_path / "other")
    ours = compare(plain, tmp_path / "other", DEFAULT, run_here)
    theirs = compare(replace(plain, model=tmp_path / "other"), plain.model, DEFAULT, run_here)
    assert [f.ours for f in ours.verdict.findings] == [f.theirs for f in theirs.verdict.findings]
    assert {f.difference.value for f in ours.verdict.findings} != {0.0}
    page = ours.html([("data", "a < b")])
    assert "a &lt; b" in page and "<script" not in page and page.count("data:image/png") == 2 * len(ours.cases) > 0
    first = compare(plain, None, DEFAULT, run_here)
    assert {f.kind for f in first.verdict.findings} == {"baseline"} and first.cases == ()


def test_an_evaluation_of_a_version_is_logged_to_its_run(prepared: Path, model_folder: Path, tmp_path: Path) -> None:
    store, name = f"sqlite:///{tmp_path / 'mlflow.db'}", "boxes/label_f1_p"
    version = register(model_folder, tracking_uri=store).uri
    manifest = load_manifest(prepared)
    source = {"model_sha256": "", "data_digest": manifest["digest"], "seed": 3}
    row = Image.new("RGB", (4, 4))
    scores = {name: Score(0.5, 9, (0.4, 0.6)), "from_prompts/recall": Score(math.nan, 2)}
    save(EvaluationResult("p", scores, pa.table({}), {"rows": row}, {}, source), tmp_path / "out", version)
    log_to_version(tmp_path / "out", model_folder, prepared, version, store)
    with mlflow_at(store) as client:
        found = client.get_model_version("objgan", "1")
        run = client.get_run(found.run_id)
        assert run.data.metrics == {name: 0.5} and "0.4000 to 0.6000" in found.description
        (data,) = run.inputs.dataset_inputs
        assert json.loads(data.dataset.profile)["rows"] == manifest["rows"]
        assert [file.path for file in client.list_artifacts(found.run_id, "pictures/p")] == ["pictures/p/rows.png"]
    with pytest.raises(InputError, match="cannot log the metrics of models:/objgan/2"):
        log_to_version(tmp_path / "out", model_folder, prepared, "models:/objgan/2", store)


@pytest.mark.ray
@pytest.mark.slow
def test_the_command_promotes_what_passes_and_declines_the_rest(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    register(evaluation.model, tracking_uri=store)
    command = ["promote", "--data", str(evaluation.data), "--out", str(tmp_path / "out")]
    (tmp_path / "rules.yaml").write_text("baselines: {boxes/label_f1: 2}")
    assert main([*command, "--rules", "rules.yaml"]) == 3
    assert "is not promoted: 1 of 1 rules do not hold: baseline: boxes/label_f1" in capsys.readouterr().err
    facts = json.loads((tmp_path / "out" / "promotion.json").read_text())
    assert not facts["passed"] and facts["challenger"] == "models:/objgan/1" and facts["rules"][0]["bound"] == 0
    with mlflow_at(store) as client:
        assert find_champion(client, "objgan") is None
    (tmp_path / "rules.yaml").write_text("baselines: {boxes/label_f1: -1}")
    assert main([*command, "--rules", "rules.yaml"]) == 0
    with mlflow_at(store) as client:
        champion = find_champion(client, "objgan")
        assert champion is not None and champion.number == "1"
        assert client.get_model_version("objgan", "1").tags["validation_status"] == "passed"
    assert "Passed" in (tmp_path / "out" / "promotion.html").read_text()
    assert main(command) == 2
    assert "is the champion already" in capsys.readouterr().err
