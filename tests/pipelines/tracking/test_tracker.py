"""Tracking with real sqlite stores, and a real server that is killed, frozen and started again."""

import http.client
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from objgan.errors import InputError
from pipelines.storage.lease import LeaseLost
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_tracker import MLflowTracker, Tracker
from pipelines.tracking.offline_queue import OfflineQueue
from pipelines.tracking.tracker import Tracking, prepare_store, send_queued, tracked_run
from tests.tools.ports import free_port

PICTURE = Image.new("RGB", (8, 8))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'new' / 'mlflow.db'}"
    prepare_store(uri)
    return uri


class Server:
    """`mlflow server` on a port of its own, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.uri, self.log = f"http://127.0.0.1:{port}", folder / "server.log"
        self.command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "a")),
        ]
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        wait_for(self.answers, 60)

    def answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=1).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    prepare_store(server.uri)
    yield server
    server.kill()


@pytest.fixture
def server(one_server: Server) -> Server:
    if one_server.process is None:
        one_server.start()
    return one_server


def wait_for(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.05)


def steps(uri: str, run: str | None, key: str) -> list[int]:
    return sorted(metric.step for metric in MlflowClient(uri).get_metric_history(run, key))


def status(uri: str, run: str | None) -> str:
    return MlflowClient(uri).get_run(run).info.status


def pictures(uri: str, run: str | None) -> list[str]:
    return [item.path for item in MlflowClient(uri).list_artifacts(run, "pictures/boxes")]


def picture(step: int) -> str:
    return f"pictures/boxes/{step:07d}.png"


def test_no_step_is_logged_twice_after_a_resume(store: str, tmp_path: Path) -> None:
    with tracked_run(store, "resumed", tmp_path / "run.txt", {}) as tracking:
        first = MLflowTracker(store, tracking.run, Storage(tmp_path))
        for step in (10, 20, 30):
            first.metrics({"loss": float(step)}, step)
        first.close()
        again = tracking.tracker()  # a worker that died at 35 and resumes from the checkpoint at 20
        for step in (30, 40):
            again.metrics({"loss": float(step), "new": 0.0}, step)
    assert steps(store, tracking.run, "loss") == [10, 20, 30, 40]
    assert steps(store, tracking.run, "new") == [30, 40]


def test_parameters_can_be_logged_again_and_are_cut_to_length(store: str, tmp_path: Path) -> None:
    with tracked_run(store, "parameters", tmp_path / "run.txt", {}) as tracking:
        values = {f"name{i}": i for i in range(250)} | {"long": "x" * 9000}
        tracking.tracker().parameters(values)
        tracking.tracker().parameters(values | {"name0": "another"})
    known = MlflowClient(store).get_run(tracking.run).data.params
    assert len(known) == 251 and known["name0"] == "0"


def test_the_run_ends_with_the_right_status_and_is_found_again(store: str, tmp_path: Path) -> None:
    known = tmp_path / "run.txt"
    with pytest.raises(RuntimeError), tracked_run(store, "fails", known, {"a": "b"}) as first:
        raise RuntimeError("on purpose")
    assert status(store, first.run) == "FAILED"

    def stopped(stop: BaseException) -> None:
        with tracked_run(store, "fails", known, {}) as second:
            assert second.run == first.run
            second.tracker().metrics({"late": 1.0}, 1)
            raise stop

    for stop in (KeyboardInterrupt(), SystemExit(143)):
        with pytest.raises(type(stop)):
            stopped(stop)
        assert status(store, first.run) == "KILLED"
    assert steps(store, first.run, "late") == [1]
    with tracked_run(store, "fails", known, {}):
        assert status(store, first.run) == "RUNNING"
    assert status(store, first.run) == "FINISHED"


def test_a_driver_that_lost_its_run_does_not_change_the_status(store: str, tmp_path: Path) -> None:
    with pytest.raises(LeaseLost), tracked_run(store, "lost", tmp_path / "run.txt", {}) as tracking:
        raise LeaseLost("taken over")
    assert status(store, tracking.run) == "RUNNING"


def test_records_after_close_are_queued(store: str, tmp_path: Path) -> None:
    with tracked_run(store, "late", Storage(tmp_path), {}) as tracking:
        tracker = tracking.tracker()
        tracker.metrics({"loss": 1.0}, 1)
    tracker.metrics({"loss": 2.0}, 2)
    assert tracker.queued().metrics == 1
    assert send_queued(tracking, 10) is None
    assert steps(store, tracking.run, "loss") == [1, 2]
    unusable = MLflowTracker(store, tracking.run, Storage(tmp_path / "away"))
    unusable.close()
    (tmp_path / "away").write_text("a file instead of the folder")
    with pytest.raises(RuntimeError, match="closed"):
        unusable.metrics({"loss": 3.0}, 3)


def test_an_unknown_run_is_created_again(store: str, tmp_path: Path) -> None:
    known = tmp_path / "run.txt"
    known.write_text("0123456789abcdef0123456789abcdef\n")
    with tracked_run(store, "new", known, {}) as tracking:
        assert tracking.run != "0123456789abcdef0123456789abcdef"


def test_pictures_are_stored_by_step(store: str, tmp_path: Path) -> None:
    with tracked_run(store, "pictures", tmp_path / "run.txt", {}) as tracking:
        tracking.tracker().picture("boxes", PICTURE, 7)
    assert pictures(store, tracking.run) == [picture(7)]


def test_mlflow_opens_the_experiment_as_machine_learning(store: str) -> None:
    client, tag = MlflowClient(store), "mlflow.experimentKind"
    experiment = client.get_experiment_by_name("objgan")
    assert experiment.tags[tag] == "custom_model_development"
    client.delete_experiment_tag(experiment.experiment_id, tag)
    prepare_store(store)
    assert client.get_experiment_by_name("objgan").tags[tag] == "custom_model_development", "of an earlier version"
    client.set_experiment_tag(experiment.experiment_id, tag, "finetuning")
    prepare_store(store)
    assert client.get_experiment_by_name("objgan").tags[tag] == "finetuning", "a choice of the user is kept"


def test_a_run_says_who_began_it(store: str, tmp_path: Path) -> None:
    with tracked_run(store, "who", tmp_path / "run.txt", {}) as tracking:
        pass
    tags = MlflowClient(store).get_run(tracking.run).data.tags
    assert tags["objgan.user"] == tags["mlflow.user"] != ""
    assert tags.get("objgan.git_revision") == tags.get("mlflow.source.git.commit")


def test_a_run_names_its_data_once(store: str, tmp_path: Path) -> None:
    for _ in range(2):  # the second time after a resume
        with tracked_run(store, "data", tmp_path / "run.txt", {}) as tracking:
            tracking.tracker().dataset("ab" * 32, "s3://user:secret@bucket/data", {"train": 90, "test": 10})
    (one,) = MlflowClient(store).get_run(tracking.run).inputs.dataset_inputs
    assert one.dataset.name == "prepared" and ("ab" * 32).startswith(one.dataset.digest)
    assert one.dataset.source_type == "s3" and json.loads(one.dataset.source) == {"uri": "s3://bucket/data"}
    profile = json.loads(one.dataset.profile)
    assert profile == {"images": 100, "rows": {"train": 90, "test": 10}, "digest": "ab" * 32}


def test_a_store_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="MLflow: cannot use"):
        prepare_store(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")


def test_a_value_that_mlflow_rejects_is_named_and_blocks_nothing(store: str, tmp_path: Path, logs: list[str]) -> None:
    with tracked_run(store, "refused", tmp_path / "run.txt", {}) as tracking:
        tracker = tracking.tracker()
        tracker.metrics({"good": 1.0, "bad*name": 2.0, "nan": float("nan")}, 1)
        tracker.metrics({"good": 1.0}, 2)
    assert steps(store, tracking.run, "good") == [1, 2]
    assert [line.split(" (")[0] for line in logs] == ["warning: MLflow rejects bad*name"]


def test_untracked_runs_have_a_tracker_that_does_nothing() -> None:
    tracker = Tracking().tracker()
    assert type(tracker) is Tracker
    tracker.metrics({"loss": 1.0}, 1)
    tracker.close()
    assert tracker.flush() and tracker.queued() is None


def test_a_server_that_was_killed_and_restarted_has_every_step_once(
    server: Server, tmp_path: Path, logs: list[str]
) -> None:
    slowest = 0.0
    with tracked_run(server.uri, "gap", Storage(tmp_path), {}) as tracking:
        tracker = MLflowTracker(server.uri, tracking.run, tracking.storage, longest_wait=1)

        def log(step: int) -> float:
            began = time.perf_counter()
            tracker.metrics({f"loss{i}": float(step) for i in range(20)}, step)
            tracker.picture("boxes", PICTURE, step)
            return time.perf_counter() - began

        for step in range(1, 41):
            if step == 15:
                server.kill()
            if step == 30:
                server.start()
            slowest = max(slowest, log(step))
            if step in (10, 20, 25, 28):
                assert tracker.flush()  # as before a checkpoint
            time.sleep(0.05)
        tracker.close(30)
        assert tracker.queued() is None
    print(f"slowest call {slowest * 1000:.1f} ms")
    assert slowest < 0.05
    assert all(steps(server.uri, tracking.run, f"loss{i}") == list(range(1, 41)) for i in (0, 19))
    assert pictures(server.uri, tracking.run) == [picture(step) for step in range(1, 41)]
    assert [line.split(" (")[0].split(";")[0] for line in logs] == [
        "warning: MLflow is not reachable",
        "MLflow is reachable again",
    ]
    assert status(server.uri, tracking.run) == "FINISHED"
    assert not (tmp_path / "mlflow_backlog").exists()


def test_a_frozen_server_delays_nothing_and_has_every_step_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with tracked_run(server.uri, "frozen", Storage(tmp_path), {}) as tracking:
        tracker = MLflowTracker(server.uri, tracking.run, tracking.storage, longest_wait=0.5)
        tracker.metrics({"loss": 1.0}, 1)
        assert tracker.flush()
        server.signal(signal.SIGSTOP)
        try:
            tracker.metrics({"loss": 2.0}, 2)
            began = time.monotonic()
            assert tracker.flush(timeout=0.5)
            assert time.monotonic() - began < 1
            assert OfflineQueue(Storage(tmp_path)).summary().metrics == 1
            tracker.metrics({"loss": 3.0}, 3)
            time.sleep(3)  # several attempts; their answers arrive after the client has given up
            other = MLflowTracker(server.uri, tracking.run, Storage(tmp_path / "other"))
            other.metrics({"other": 1.0}, 1)
            began = time.monotonic()
            other.close(timeout=0.5)
            assert time.monotonic() - began < 1
        finally:
            server.signal(signal.SIGCONT)
        tracker.close(20)
        assert tracker.queued() is None
    assert steps(server.uri, tracking.run, "loss") == [1, 2, 3]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from PIL import Image
    from pipelines.storage.storage import Storage
    from pipelines.tracking.tracker import Tracking

    uri, run, folder = sys.argv[1:]
    tracker = Tracking(uri, run, Storage(Path(folder))).tracker()
    tracker.parameters({"late": 1})
    for step in range(1, 31):
        tracker.metrics({"loss": float(step)}, step)
        if step % 10 == 0:
            tracker.picture("boxes", Image.new("RGB", (8, 8)), step)
            assert tracker.flush()
    tracker.metrics({"loss": 31.0}, 31)  # not flushed: it belongs to no checkpoint and will be logged again
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_process_uploads_what_a_killed_process_flushed(
    server: Server, tmp_path: Path, repository: Path
) -> None:
    with tracked_run(server.uri, "killed", Storage(tmp_path), {}) as tracking:
        assert tracking.run is not None
    server.kill()
    command = [sys.executable, "-c", textwrap.dedent(KILLED), server.uri, tracking.run, str(tmp_path)]
    assert subprocess.run(command, cwd=repository, timeout=60).returncode == -signal.SIGKILL
    queued = OfflineQueue(Storage(tmp_path)).summary()
    assert (queued.metrics, queued.pictures, queued.others) == (30, 3, 1)
    # The resumed worker, the server still away: it logs again from step 21 on.
    resumed = tracking.tracker()
    for step in range(21, 41):
        resumed.metrics({"loss": float(step)}, step)
    resumed.close()
    queued = OfflineQueue(Storage(tmp_path)).summary()
    assert (queued.metrics, queued.pictures) == (40, 3)
    assert f"40 metrics and 3 pictures are queued in {tmp_path}/mlflow_backlog" in queued.text()
    assert f"`python -m pipelines runs send {tmp_path}`" in queued.text()
    server.start()
    assert send_queued(tracking, 20) is None
    assert steps(server.uri, tracking.run, "loss") == list(range(1, 41))
    assert pictures(server.uri, tracking.run) == [picture(10), picture(20), picture(30)]
    assert MlflowClient(server.uri).get_run(tracking.run).data.params == {"late": "1"}


def test_a_known_run_continues_without_the_server_and_a_new_run_does_not_begin(
    server: Server, tmp_path: Path, logs: list[str]
) -> None:
    place = Storage(tmp_path / "known")
    with tracked_run(server.uri, "known", place, {}) as parent:
        pass
    ended = tracked_run(server.uri, "fails", tmp_path / "fails" / "run.txt", {})
    with pytest.raises(ZeroDivisionError), ended as fails:
        server.kill() or 1 / 0
    with pytest.raises(InputError, match="MLflow: cannot use"):
        prepare_store(server.uri)
    with (
        pytest.raises(InputError, match="MLflow: cannot use"),
        tracked_run(server.uri, "new", tmp_path / "run.txt", {}),
    ):
        pytest.fail("it began")
    prepare_store(server.uri, place)
    with tracked_run(server.uri, "known", place, {}) as known:
        assert known.run == parent.run
        known.tracker().metrics({"loss": 1.0}, 1)
        # A step of a run that is under way: its MLflow run is made as soon as the server answers.
        step = Storage(tmp_path / "step")
        with tracked_run(server.uri, "step", step, {"objgan.step": "boxes"}, parent.run) as nested:
            assert nested.run is None
            nested.tracker().metrics({"loss": 1.0}, 1)
    assert [line.partition(" queued in ")[0] for line in logs if "was not" in line] == [
        "MLflow was not reachable: 1 record (settings, status) is",
        *["MLflow was not reachable: 1 metric and 0 pictures are"] * 2,
    ]
    assert not step.exists("mlflow_run.txt")
    server.start()
    for tracking in (fails, known, nested):
        assert send_queued(tracking, 20) is None
    assert [status(server.uri, tracking.run) for tracking in (fails, known)] == ["FAILED", "FINISHED"]
    made = step.read("mlflow_run.txt").decode().strip()
    tags = MlflowClient(server.uri).get_run(made).data.tags
    assert tags["mlflow.parentRunId"] == parent.run and tags["objgan.step"] == "boxes"
    assert status(server.uri, made) == "FINISHED" and steps(server.uri, made, "loss") == [1]
    experiment = MlflowClient(server.uri).get_run(made).info.experiment_id
    names = Counter(run.info.run_name for run in MlflowClient(server.uri).search_runs([experiment]))
    assert names["step"] == 1 and names["new"] == 0
