"""The registered model, loaded where Ray and this repository's programs cannot be imported."""

import base64
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

import objgan
from objgan.checkpoint import STATE, _seal, read_config
from objgan.config import STAGES
from objgan.errors import InputError
from objgan.files import sha256
from objgan.generation import ObjGAN
from objgan.serving import OUTPUTS
from objgan.stages import stage_class
from pipelines.__main__ import main
from pipelines.models.card import Measured
from pipelines.models.generate import local_model
from pipelines.models.registry import (
    REQUIREMENTS,
    Registered,
    assemble,
    lineage_tags,
    log_measures,
    mlflow_at,
    register,
)
from pipelines.tracking.tracker import prepare_store, tracked_run
from tests.tools.training import wait_until

# Run in a folder elsewhere, isolated from the working directory and from installed checkouts: what may not be there is
# not there. `objgan` itself comes out of the registered model's own copy of the code.
ELSEWHERE = """
    import json, sys

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {"ray", "pipelines", "tune", "cluster"}:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Absent())
    import mlflow, pandas

    mlflow.set_tracking_uri(sys.argv[1])
    model = mlflow.pyfunc.load_model("models:/objgan@challenger")
    table = model.predict(pandas.DataFrame({"caption": ["a red kite", "the boat"]}), params={"n": 2, "seed": 3})
    default = model.predict(pandas.DataFrame({"caption": ["a red kite"]}))
    try:
        model.predict(pandas.DataFrame({"caption": ["zebra"]}))
        refused = ""
    except mlflow.exceptions.MlflowException as error:
        refused = str(error)
    files = {name: module.__file__ for name, module in sys.modules.items() if name.startswith("objgan")}
    print(json.dumps({"objgan": files, "rows": table.to_dict("records"), "refused": refused,
                      "default": default.to_dict("records"), "ray": "ray" in sys.modules}))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def addresses() -> list[str | None]:
    return [os.environ.get(f"MLFLOW_{name}") for name in ("TRACKING_URI", "REGISTRY_URI", "EXPERIMENT_ID")]


@pytest.fixture(scope="module")
def version(store: str, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    prepare_store(store)
    before, path = addresses(), list(sys.path)
    with tracked_run(store, "register", tmp_path_factory.mktemp("run") / "run.txt", {}) as tracking:
        done = register(model_folder, tracking_uri=store, run_id=tracking.run, tags={"mask_iou": "0.5"})
    assert addresses() == before and sys.path == path, "the rest of the process goes on as before"
    assert done == Registered("models:/objgan/1", new=True)
    return mlflow.MlflowClient(store, store).get_model_version_by_alias("objgan", "challenger")


@pytest.fixture(scope="module")
def logged(store: str, version: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("download")
    with mlflow_at(store):
        return Path(mlflow.artifacts.download_artifacts(version.source, dst_path=str(folder)))


def test_the_version_knows_its_run_and_tags(version: Any) -> None:
    assert str(version.version) == "1" and version.tags["mask_iou"] == "0.5" and version.run_id


def test_version_and_run_say_who_made_them_of_what(store: str, version: Any) -> None:
    run = mlflow.MlflowClient(store, store).get_run(version.run_id)
    for tags in (version.tags, run.data.tags):
        assert tags["objgan.user"] and tags["licence"] == "Apache-2.0"
        assert len(tags.get("objgan.git_revision", "0" * 40)) == 40
    assert run.data.tags["mlflow.user"] == version.tags["objgan.user"]
    assert version.tags["validation_status"] == "pending"


def test_lineage_comes_of_the_sources_and_never_fails() -> None:
    stages = {"boxes": {"mlflow_run": "r1", "step": 3}, "other": {"mlflow_run": "r2"}, "shapes": 4, "images": {}}
    tags = lineage_tags({"sources": {"data": "ab" * 32, "stages": stages}})
    assert tags["objgan.data_digest"] == "ab" * 32
    assert {name: value for name, value in tags.items() if name.startswith("objgan.run.")} == {"objgan.run.boxes": "r1"}
    hostile = {"data": "x" * 10_000, "stages": {"boxes": {"mlflow_run": "https://u:secret@host/"}}}
    tags = lineage_tags({"sources": hostile})
    assert len(tags["objgan.data_digest"]) == 500 and "secret" not in tags["objgan.run.boxes"]
    for sources in (None, [], {"data": 3, "stages": []}, {"stages": {"boxes": None}}):
        assert lineage_tags({"sources": sources}).keys() == lineage_tags({}).keys()


def test_it_predicts_where_ray_and_pipelines_are_not(
    store: str, version: Any, model_folder: Path, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", textwrap.dedent(ELSEWHERE), store],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert not said["ray"] and len({name.split(".")[0] for name in said["objgan"]}) == 1
    assert "objgan" not in said["objgan"], "an installed objgan is neither imported nor in the way of a later import"
    assert not any(file.startswith(str(Path(objgan.__file__).parent)) for file in said["objgan"].values())
    assert [row["caption"] for row in said["rows"]] == ["a red kite"] * 2 + ["the boat"] * 2
    assert "'zebra'" in said["refused"]
    ours = objgan.load(model_folder, "cpu").generate(["a red kite", "the boat"], n=2, seed=3)
    for row, one in zip(said["rows"], ours, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(row["image_png"]))) as image:
            assert np.array_equal(np.asarray(image), one.image)
        assert row["layout"] == one.layout_json(("kite", "boat", "stop sign"))
        assert json.loads(row["facts"]) == [fact._asdict() for fact in one.facts] != []
    assert len(said["default"]) == 1


def test_nothing_in_it_is_pickled(logged: Path) -> None:
    files = [path for path in logged.rglob("*") if path.is_file()]
    endings = {path.suffix for path in files}
    assert endings <= {".json", ".safetensors", ".py", ".txt", ".yaml", ".yml", ".typed", ".md", ""}, endings
    for path in files:
        assert path.read_bytes()[:1] != b"\x80", f"{path} starts like a pickle"
        assert not zipfile.is_zipfile(path), f"{path} is a zip, as torch.save writes"
    assert {path.suffix for path in (logged / "artifacts").rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_its_card_lies_beside_it_and_in_the_description(version: Any, logged: Path) -> None:
    text = (logged / "README.md").read_text()
    assert text.startswith("# models:/objgan/1\n") and "Not measured yet" in text
    assert version.description == text.strip()


def test_measures_become_metrics_of_run_and_model_and_a_part_of_the_card(
    store: str, version: Any, model_folder: Path, tmp_path: Path
) -> None:
    digest = "ab" * 32
    values = {"boxes/label_f1_test": 0.51, "is_test": 1.5, "none": float("nan")}
    measured = Measured(
        "test", digest, 7, values, {"is_test": 9}, {"boxes/label_f1_test": [0.4, 0.6]}, "/data/prepared", {"test": 9}
    )
    Image.new("RGB", (4, 4)).save(tmp_path / "rows.png")
    client = mlflow.MlflowClient(store, store)
    for _ in range(2):
        log_measures("models:/objgan/1", model_folder, measured, store, tmp_path)
    run, model = client.get_run(version.run_id), client.get_logged_model(version.source.removeprefix("models:/"))
    assert run.data.metrics == {"boxes/label_f1_test": 0.51, "is_test": 1.5}
    assert len(client.get_metric_history(version.run_id, "is_test")) == 1, "the same value is not logged twice"
    assert {(one.key, one.value, one.dataset_name, one.dataset_digest) for one in model.metrics} == {
        (name, values[name], "prepared", digest[:36]) for name in ("boxes/label_f1_test", "is_test")
    }
    assert [file.path for file in client.list_artifacts(version.run_id, "pictures/test")] == ["pictures/test/rows.png"]
    assert run.data.params["recipe"] == "tiny"
    (data,) = run.inputs.dataset_inputs
    assert json.loads(data.dataset.source) == {"uri": "/data/prepared"} and data.dataset.digest == digest[:36]
    found = client.get_model_version("objgan", "1")
    assert "0.4000 to 0.6000" in found.description and not {"is_test", "boxes/label_f1_test"} & found.tags.keys()
    assert "0.4000 to 0.6000" in (Path(model.artifact_location.removeprefix("file://")) / "README.md").read_text()
    with pytest.raises(InputError, match="cannot log the metrics of models:/objgan/99"):
        log_measures("models:/objgan/99", model_folder, measured, store, tmp_path)


def test_it_says_what_it_needs_and_takes(logged: Path) -> None:
    lines = (logged / "requirements.txt").read_text().split()
    assert [line.split("==")[0] for line in lines] == list(REQUIREMENTS)
    assert all("==" in line and "+" not in line for line in lines)
    info = mlflow.models.Model.load(str(logged))
    assert info.signature.inputs is None, "MLflow would drop unknown columns and refuse plain texts"
    assert info.signature.outputs.input_names() == list(OUTPUTS)
    defaults = {"n": 1, "seed": None, "steps": "image", "on_error": "raise"}
    assert {p.name: p.default for p in info.signature.params.params} == defaults
    example = json.loads((logged / "input_example.json").read_text())
    assert example == {"columns": ["caption"], "data": [["a kite"]]}


def test_generate_finds_it_by_alias_run_and_folder(store: str, version: Any, logged: Path, model_folder: Path) -> None:
    for uri in ("models:/objgan@challenger", "models:/objgan/1", f"runs:/{version.run_id}/objgan", str(logged)):
        with local_model(uri, store) as folder:
            assert (folder / "model.json").read_bytes() == (model_folder / "model.json").read_bytes()


def test_python_loads_it_by_its_uri(store: str, version: Any, model_folder: Path) -> None:
    caption = "a red kite"
    with mlflow_at(store):
        for uri in ("models:/objgan@challenger", f"runs:/{version.run_id}/objgan"):
            assert (objgan.load(uri, "cpu")(caption).image == objgan.load(model_folder, "cpu")(caption).image).all()
        for uri in ("models:/objgan@nobody", "models:/other/1", f"runs:/{version.run_id}/nothing"):
            with pytest.raises(InputError, match=f"unknown model {uri}") as error:
                objgan.load(uri, "cpu")
            assert "\n" not in str(error.value)


def test_a_moved_store_is_refused_with_what_to_do(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow records absolute places of files. A link, and `runs relocate`, help, as the messages say."""
    old, new = tmp_path / "an old place", tmp_path / "new"
    old.mkdir()
    uri = register(model_folder, tracking_uri=f"sqlite:///{old / 'mlflow.db'}").uri
    old.rename(new)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new / 'mlflow.db'}")
    with pytest.raises(InputError) as caught:
        objgan.load(uri, "cpu")
    message = str(caught.value)
    assert f"no files at {old.as_uri()}/" in message and "ln -s NEW OLD" in message and "\n" not in message
    with pytest.raises(mlflow.exceptions.MlflowException, match="No such artifact"):
        mlflow.pyfunc.load_model(uri)  # MLflow's own message, which the README explains
    assert main(["register", "--model", str(model_folder)]) == 2 and not old.exists(), "nothing is written there"
    assert f"{new}/mlflow.db was moved" in (line := capsys.readouterr().err) and "runs relocate" in line
    old.symlink_to(new)
    assert objgan.load(uri, "cpu").domain.classes
    old.unlink()
    assert main(["runs", "relocate"]) == 0 and "changed 4 places" in capsys.readouterr().out
    assert len(mlflow.pyfunc.load_model(uri).predict("a red kite", params={"steps": "layout"})) == 1


def test_the_same_model_is_no_new_version(store: str, version: Any, model_folder: Path, tmp_path: Path) -> None:
    """Wherever its folder lies. The version that is there gets the alias and the tags."""
    elsewhere = tmp_path / "copy"
    shutil.copytree(model_folder, elsewhere)
    again = register(elsewhere, alias="again", tracking_uri=store, tags={"more": "1"})
    assert again == Registered("models:/objgan/1", new=False)
    assert again.text("again") == "models:/objgan/1 already holds this model: no new version; alias again points to it"
    client = mlflow.MlflowClient(store, store)
    there = client.get_model_version_by_alias("objgan", "again")
    assert str(there.version) == "1" and there.run_id == version.run_id
    assert there.tags["mask_iou"] == "0.5" and there.tags["more"] == "1"
    assert there.tags["validation_status"] == "pending"
    other = register(elsewhere, name="other", tracking_uri=store)
    alone = client.get_model_version("other", "1")
    assert client.get_run(alone.run_id).info.status == "FINISHED", "a version without a run gets one of its own"
    assert other == Registered("models:/other/1", new=True), "another registered model has versions of its own"


def test_another_model_is_a_new_version_that_takes_the_alias(
    store: str, version: Any, model_folder: Path, tmp_path: Path
) -> None:
    model = ObjGAN.load(model_folder, device="cpu")
    with torch.no_grad():
        next(model.networks["box_generator"].parameters()).add_(1.0)
    model.save(tmp_path / "changed")
    assert register(tmp_path / "changed", tracking_uri=store) == Registered("models:/objgan/2", new=True)
    client = mlflow.MlflowClient(store, store)
    assert str(client.get_model_version_by_alias("objgan", "challenger").version) == "2"
    assert client.get_model_version("objgan", "1").run_id == version.run_id


def _logged(store: str) -> list[Any]:
    client = mlflow.MlflowClient(store, store)
    return list(client.search_logged_models([client.get_experiment_by_name("objgan").experiment_id]))


def _stop_outside_transactions(process: subprocess.Popen[bytes], database: Path) -> None:
    """A process that is stopped while it writes to SQLite keeps the lock, and nobody else can read."""
    for _ in range(1000):
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        try:
            with closing(sqlite3.connect(database, timeout=0)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                return
        except sqlite3.OperationalError:
            process.send_signal(signal.SIGCONT)
            time.sleep(0.001)
    raise AssertionError("the process holds the lock of the database all the time")


def test_a_register_that_was_killed_leaves_nothing_that_gc_does_not_remove(
    model_folder: Path, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    prepare_store(store)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    words = [sys.executable, "-m", "pipelines", "register", "--model", str(model_folder)]
    process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(repository)})
    wait_until(lambda: bool(_logged(store)) or process.poll() is not None)
    _stop_outside_transactions(process, tmp_path / "mlflow.db")
    (model,) = _logged(store)
    place = Path(model.artifact_location.removeprefix("file://"))
    place.mkdir(parents=True, exist_ok=True)
    (place / "half").write_text("a file that the killed process had written")
    assert main(["runs", "gc"]) == 0 and len(_logged(store)) == 1, "the process lives: its model is no leftover"
    process.kill()
    process.wait()
    assert main(["runs", "gc", "--dry-run"]) == 0
    assert f"would remove {model.model_id}" in capsys.readouterr().out and len(_logged(store)) == 1
    assert main(["runs", "gc"]) == 0
    assert f"removed {model.model_id}" in capsys.readouterr().out
    assert _logged(store) == [] and not place.exists()
    assert register(model_folder, tracking_uri=store) == Registered("models:/objgan/1", new=True)
    assert main(["runs", "gc"]) == 0 and len(_logged(store)) == 1, "what became a version stays"
    assert main(["register", "--model", str(model_folder)]) == 0
    assert "models:/objgan/1 already holds this model" in capsys.readouterr().out


def test_no_store_is_made_in_the_folder_that_a_process_happens_to_be_in(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own default is `mlflow.db` in the working folder."""
    monkeypatch.chdir(tmp_path)
    assert register(model_folder).uri == "models:/objgan/1"
    with local_model("models:/objgan@challenger", "") as folder:
        assert (folder / "model.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_an_assembled_model_names_its_sources(model_folder: Path, tmp_path: Path) -> None:
    checkpoints = {}
    for number, stage in enumerate(STAGES):
        folder = checkpoints[stage] = tmp_path / stage / f"step_{number:08d}"
        shutil.copytree(model_folder, folder, ignore=shutil.ignore_patterns("model.json", "networks"))
        (folder / "networks").mkdir()
        for name in stage_class(stage).inference:
            shutil.copy(model_folder / "networks" / f"{name}.safetensors", folder / "networks")
        files = {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}
        facts = {"format": 2, "stage": stage, "step": number, "objgan": "1.2.3", "torch": "2.0", "sha256": files}
        (folder / STATE).write_text(json.dumps(facts | {"seal": _seal(facts)}))
    (tmp_path / "boxes" / "mlflow_run.txt").write_text("run-of-boxes\n")
    assemble(read_config(model_folder), model_folder, checkpoints, tmp_path, {"data": "a digest"})
    sources = json.loads((tmp_path / "model" / "model.json").read_text())["sources"]
    assert sources["data"] == "a digest" and list(sources["stages"]) == list(STAGES)
    assert sources["stages"]["boxes"]["mlflow_run"] == "run-of-boxes"
    assert sources["stages"]["shapes"] == {
        "checkpoint": "step_00000002", "step": 2, "objgan": "1.2.3", "torch": "2.0"
    }  # fmt: skip
    ours, theirs = ObjGAN.load(tmp_path / "model", "cpu"), ObjGAN.load(model_folder, "cpu")
    assert np.array_equal(ours.generate(["a kite"])[0].image, theirs.generate(["a kite"])[0].image)


def test_wrong_input_is_refused_in_one_line(store: str, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[]")
    cases = (
        (lambda: register(tmp_path / "none", tracking_uri=store), "no file"),
        (lambda: register(tmp_path, tracking_uri=store), "not a model's model.json"),
        (lambda: register(model_folder, tracking_uri=str(tmp_path / "mlruns")), "MLflow"),
        (lambda: register(model_folder, name="", tracking_uri=store), "cannot register"),
    )
    for attempt, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)
