"""What commands read may lie in a bucket; what they write, and MLflow's store, may lie in a folder of any name."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from objgan.config import Config
from objgan.errors import InputError
from objgan.generation import ObjGAN
from pipelines.__main__ import main, parse
from pipelines.cli.train import _job
from pipelines.data.prepare.source import CocoSource
from pipelines.evaluation.captions_and_layouts import open_sources
from pipelines.evaluation.judge_training import judge_jobs
from pipelines.models.generate import local_model
from pipelines.recipes import resolve
from pipelines.storage.fetching import at_hand
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_client import mlflow_client, sqlite_path, sqlite_uri
from pipelines.tracking.tracker import prepare_store, tracked_run, tracking_uri

Scenes = Callable[..., tuple[list[dict], list[dict], list[dict]]]
WriteCoco = Callable[..., CocoSource]
ODD = "a%20b ?c=%3F #d 100% é"


@pytest.mark.parametrize("name", [ODD, "plain", "%", "a%2Fb", "?", "#", " ", "%25"])
def test_the_uri_of_a_sqlite_store_means_its_path(name: str) -> None:
    path = Path("/x") / name / "mlflow.db"
    assert sqlite_path(sqlite_uri(path)) == path
    assert sqlite_path("http://server:5000") is None
    assert sqlite_uri(Path("/a b/é.db")) == "sqlite:////a b/é.db", "what need not be quoted is not"


def test_mlflow_s_store_is_in_the_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = tmp_path / ODD / "runs"
    runs.mkdir(parents=True)
    uri = tracking_uri(runs)
    prepare_store(uri)
    (tmp_path / "picture.txt").write_text("x")
    with tracked_run(uri, "a", Storage(runs / "a"), {}) as tracking:
        assert tracking.run is not None
        mlflow_client(uri).log_artifact(tracking.run, str(tmp_path / "picture.txt"), "pictures")
    with sqlite3.connect(runs / "mlflow.db") as store:
        assert store.execute("select run_uuid, status from runs").fetchall() == [(tracking.run, "FINISHED")]
    assert len(list((runs / "mlartifacts").rglob("picture.txt"))) == 1
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files - {"picture.txt", "mlflow_run.txt", "mlflow.db"} == set(), "nothing lies anywhere else"


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Storage:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return Storage(s3, patience=5)


def _put(bucket: Storage, folder: Path, name: str) -> str:
    bucket.upload(folder, name)
    return bucket.child(name).uri


def test_a_model_in_a_bucket(bucket: Storage, model_folder: Path) -> None:
    uri = _put(bucket, model_folder, "model")
    with local_model(uri, "") as folder:
        assert ObjGAN.load(folder, device="cpu").domain.classes == ("kite", "boat", "stop sign")
    assert not folder.exists()
    with local_model(bucket.uri, "") as folder:
        assert (folder / "model.json").is_file(), "a folder that holds one model"
    with pytest.raises(InputError, match=r"no folder s3://.*none") as caught, local_model(bucket.child("none").uri, ""):
        pass
    assert "hush" not in str(caught.value)


def test_a_model_in_a_file_uri(model_folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / ODD
    shutil.copytree(model_folder, odd)
    _, options = parse(["generate", "a kite", "--model", odd.as_uri()])
    with local_model(options.model, "") as folder:
        assert folder == odd


def test_checkpoints_in_a_bucket(
    bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: Path, data_config: Config
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "state.json").write_text("{}")
    uri = _put(bucket, tmp_path / "step", "encoders/step_1")
    words = ["train", "images", "--data", str(prepared), "--encoders", uri, "--init-from", uri]
    job = _job(parse(words)[1], resolve("tiny", None, ()))
    assert job.init_from is not None
    for folder in (job.needs["encoders"], job.init_from):
        assert (folder / "state.json").read_text() == "{}" and folder.resolve().is_relative_to(tmp_path / "runs")
    words[words.index("--encoders") + 1] = bucket.child("none").uri
    with pytest.raises(InputError, match="--encoders: no folder s3://"):
        _job(parse(words)[1], resolve("tiny", None, ()))


def test_judges_and_data_in_a_bucket(
    bucket: Storage, prepared: Path, data_config: Config, tmp_path: Path, model_folder: Path
) -> None:
    with at_hand("--judges", _put(bucket, prepared / "domain", "judges")) as folder:
        assert folder is not None and {path.name for path in folder.iterdir()} == {
            path.name for path in (prepared / "domain").iterdir()
        }
    data = _put(bucket, prepared, "data")
    compute = data_config.compute.model_copy(update={"cache": tmp_path / "cache"})
    config = data_config.model_copy(update={"compute": compute})
    jobs, skipped = judge_jobs(config, data, tmp_path / "judges")
    assert jobs["second_encoders"].data == data and "hush" not in str(skipped)
    with pytest.raises(InputError, match="other classes than the model's") as caught:
        open_sources(data, "test", ObjGAN.load(model_folder, device="cpu"))
    assert "hush" not in str(caught.value)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_all_of_it_in_a_folder_of_an_odd_name(
    tmp_path: Path, write_coco: WriteCoco, scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    odd = tmp_path / ODD
    source = write_coco(odd / "coco", *scenes(12))
    monkeypatch.chdir(odd)
    few = "{training: {steps: 2, batch_size: 4, validation_samples: 4, checkpoint_every: 2}}"
    Path("quick.yaml").write_text(f"encoders: {few}\nboxes: {few}\n")
    files = ["--images", source.images, "--instances", source.instances, "--captions", source.captions]
    assert main(["prepare", *map(str, files), "--config", "quick.yaml"]) == 0
    for stage in ("encoders", "boxes"):
        assert main(["train", stage, "--config", "quick.yaml"]) == 0
    assert main(["train", "boxes", "--config", "quick.yaml", "--run", "other", "--init-from", _step("boxes")]) == 0
    with sqlite3.connect("runs/mlflow.db") as store:
        assert store.execute("select count(*) from runs where status = 'FINISHED'").fetchall() == [(3,)]


def _step(stage: str) -> str:
    return str(next(Path("runs/default", stage).glob("step_*")).resolve())


@pytest.mark.parametrize("command", ["evaluate", "judges", "train boxes", "inspect", "verify"])
def test_no_data_at_a_uri_is_one_line(
    bucket: Storage, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    model_folder: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    uri = bucket.child("none").uri
    words = [*command.split(), *([] if command in ("inspect", "verify") else ["--data"]), uri]
    words += ["--model", str(model_folder)] if command == "evaluate" else []
    assert main(words) == 2
    text = capsys.readouterr().err.strip()
    assert len(text.splitlines()) == 1 and "s3://" in text and "hush" not in text, text
    assert not list(tmp_path.glob("s3:*"))
