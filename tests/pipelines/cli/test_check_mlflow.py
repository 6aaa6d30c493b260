"""MLflow is asked before anything long starts: `check-mlflow`, and the order of what the other commands ask."""

from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_tracker import RUN_FILE
from tests.pipelines.tracking.test_tracker import Server

NOWHERE = "http://127.0.0.1:9"
# Nobody answers there either: which of the two is named first says which is asked first.
NO_CLUSTER = ["--address", "127.0.0.1:9"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)


def test_a_server_that_does_not_answer_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-mlflow"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot use {NOWHERE} (no server answers there: start it" in line


def test_a_run_that_began_before_does_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Storage(tmp_path / "runs" / "first" / "boxes").write(RUN_FILE, "abc\n")
    assert main(["check-mlflow", "--run", "first"]) == 0
    assert "its metrics are queued until MLflow is reachable" in capsys.readouterr().out
    assert main(["check-mlflow", "--run", "other"]) == 2


def test_a_store_that_answers_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert main(["check-mlflow", "--run", "first"]) == 0


@pytest.mark.parametrize("command", [["run", "--out", "runs/x"], ["demo", "--out", "runs/x"]])
def test_the_whole_way_asks_mlflow_before_it_looks_for_a_cluster(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *NO_CLUSTER]) == 2
    assert "MLflow: cannot use" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "x").exists()


def test_training_asks_mlflow_before_it_looks_for_a_cluster(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "train",
        "encoders",
        "--data",
        str(prepared),
        "--run",
        "x",
        "--set",
        "encoders.training.validation_samples=4",
    ]
    assert main([*words, "--set", "encoders.training.batch_size=4", *NO_CLUSTER]) == 2
    assert "MLflow: cannot use" in capsys.readouterr().err


@pytest.mark.slow
def test_a_server_that_refuses_the_name_of_its_host_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(tmp_path)
    server.command += ["--allowed-hosts", "mlflow.mlflow.svc:5000"]
    server.start()
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        assert main(["check-mlflow"]) == 2
        assert "start it with --allowed-hosts" in capsys.readouterr().err
    finally:
        server.kill()
