from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from objgan.errors import InputError
from pipelines.tracking import MLflowTracker, prepare_store, tracked_run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'new' / 'mlflow.db'}"
    prepare_store(uri)
    return uri


def test_no_step_is_told_twice_after_a_resume(store: str, tmp_path: Path) -> None:
    with tracked_run(store, "resumed", tmp_path / "run.txt", {}) as tracking:
        first = tracking.tracker()
        for step in (10, 20, 30):
            first.metrics({"loss": float(step)}, step)
        again = tracking.tracker()  # a worker that died at 35 and goes on from the checkpoint at 20
        for step in (30, 40):
            again.metrics({"loss": float(step)}, step)
    history = MlflowClient(store).get_metric_history(tracking.run, "loss")
    assert [metric.step for metric in history] == [10, 20, 30, 40]


def test_parameters_can_be_told_again_and_are_cut_to_length(store: str, tmp_path: Path) -> None:
    with tracked_run(store, "parameters", tmp_path / "run.txt", {}) as tracking:
        values = {f"name{i}": i for i in range(250)} | {"long": "x" * 9000}
        tracking.tracker().parameters(values)
        tracking.tracker().parameters(values)
    known = MlflowClient(store).get_run(tracking.run).data.params
    assert len(known) == 251


def test_the_run_ends_with_the_right_status_and_is_found_again(store: str, tmp_path: Path) -> None:
    client, known = MlflowClient(store), tmp_path / "run.txt"
    with pytest.raises(RuntimeError), tracked_run(store, "fails", known, {"a": "b"}) as first:
        raise RuntimeError("on purpose")
    assert client.get_run(first.run).info.status == "FAILED"
    with pytest.raises(KeyboardInterrupt), tracked_run(store, "fails", known, {}) as second:
        raise KeyboardInterrupt
    assert second.run == first.run
    assert client.get_run(first.run).info.status == "KILLED"
    with tracked_run(store, "fails", known, {}):
        assert client.get_run(first.run).info.status == "RUNNING"
    assert client.get_run(first.run).info.status == "FINISHED"


def test_a_run_that_the_store_does_not_know_begins_anew(store: str, tmp_path: Path) -> None:
    known = tmp_path / "run.txt"
    known.write_text("0123456789abcdef0123456789abcdef\n")
    with tracked_run(store, "new", known, {}) as tracking:
        assert tracking.run != "0123456789abcdef0123456789abcdef"


def test_pictures_land_under_their_step(store: str, tmp_path: Path) -> None:
    with tracked_run(store, "pictures", tmp_path / "run.txt", {}) as tracking:
        MLflowTracker(store, tracking.run).picture("boxes", Image.new("RGB", (8, 8)), 7)
    listed = MlflowClient(store).list_artifacts(tracking.run, "pictures/boxes")
    assert [item.path for item in listed] == ["pictures/boxes/0000007.png"]


def test_a_store_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="MLflow: cannot use"):
        prepare_store(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
