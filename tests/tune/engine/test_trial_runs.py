"""Every trial's run in MLflow is complete when the sweep ends, whatever ended the trial; sqlite and a real server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from objgan.config import flatten
from pipelines.__main__ import main as pipelines_main
from pipelines.storage.lease import LEASE, Lease
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_client import mlflow_client
from pipelines.tracking.mlflow_tracker import RUN_FILE
from pipelines.tracking.offline_queue import Metrics, OfflineQueue
from tests.pipelines.tracking.test_tracker import Server
from tests.tools.recorded import recorded_sweep
from tune.space.space import with_settings
from tune.sweep.results import Point, Trial
from tune.sweep.sweep import Goal, Sweep
from tune.sweep.tracking import TrialRuns, sweep_run, trial_run

SETTINGS = {"boxes.dropout": 0.2, "boxes.training.lr": 1e-3}
MEASURES = [(100, 0.5), (200, 0.7), (300, 0.6)]
POINTS = tuple(Point(step, step / 10, {"label_f1": value, "count_error": 2.0}) for step, value in MEASURES)
ENDS = {
    "finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED", "diverged": "FAILED", "crashed": "FAILED",
    "interrupted": "KILLED",
}  # fmt: skip


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    server.start()
    yield server
    server.kill()


def place(sweep: Sweep, trial: Trial) -> Storage:
    return sweep.store().child(f"trials/{trial.id}/boxes")


def begin(sweep: Sweep, trial: Trial) -> str | None:
    """A trial's process that ends before it logs anything."""
    with trial_run(sweep, trial.id, trial.number, "boxes", trial.settings, place(sweep, trial)) as tracking:
        return tracking.run


def check_complete(sweep: Sweep, uri: str, trial: Trial) -> None:
    """Its run holds parameters, each measure once at each step, the best one, and how the trial ended."""
    client = mlflow_client(uri)
    parent = sweep.tracking.parent
    (run,) = client.search_runs(["1"], f"tags.`objgan.trial` = '{trial.id}' and tags.`mlflow.parentRunId` = '{parent}'")
    wanted = {name: str(value) for name, value in flatten(with_settings(sweep.config, SETTINGS)).items()}
    assert run.data.params.items() >= {k: v for k, v in wanted.items() if k != "compute.threads"}.items()
    history = client.get_metric_history(run.info.run_id, "validation/label_f1")
    assert [(metric.step, metric.value) for metric in history] == [
        (p.step, p.measures["label_f1"]) for p in trial.points
    ]
    (best,) = client.get_metric_history(run.info.run_id, "best_label_f1")
    assert (best.value, best.step, run.data.metrics["best_step"]) == (0.7, 200, 200)
    assert run.data.metrics["validation/label_f1"] == 0.6, "the last value is not the best"
    assert run.info.status == ENDS[trial.state] and run.info.end_time
    assert run.data.tags["objgan.trial_state"] == trial.state
    assert run.data.tags.get("objgan.error") == trial.error


@pytest.mark.parametrize("state", list(ENDS))
def test_a_trial_without_reports_is_complete_when_the_sweep_ends(
    state, uri: str, tmp_path: Path, logs: list[str]
) -> None:
    sweep = recorded_sweep(tmp_path)
    error = None if state in ("finished", "stopped", "interrupted") else "Stalled: no worker"
    trial = Trial("a", 0, SETTINGS, state, POINTS, "step_00000200", error)
    with sweep_run(sweep, uri) as tracked:
        begin(tracked, trial)
        runs = TrialRuns(tracked)
        runs.trial(trial)
        runs.close([trial])
        check_complete(tracked, uri, trial)
        # A resumed sweep records everything again.
        again = TrialRuns(tracked)
        again.trial(trial)
        again.close([trial])
        check_complete(tracked, uri, trial)
    assert logs == []


def test_the_best_of_a_measure_that_falls_is_its_least(uri: str, tmp_path: Path) -> None:
    sweep = replace(recorded_sweep(tmp_path), goal=Goal("label_f1", "min"))
    with sweep_run(sweep, uri) as tracked:
        trial = Trial("a", 0, SETTINGS, "stopped", POINTS)
        run = begin(tracked, trial)
        TrialRuns(tracked).close([trial])
    metrics = mlflow_client(uri).get_run(run).data.metrics
    assert (metrics["best_label_f1"], metrics["best_step"]) == (0.5, 100)


def test_records_that_a_trials_process_queued_come_first(uri: str, tmp_path: Path) -> None:
    """Metrics of training, which the row does not have; no value is logged twice."""
    sweep, trial = recorded_sweep(tmp_path), Trial("a", 0, SETTINGS, "stopped", POINTS)
    with sweep_run(sweep, uri) as tracked:
        run = begin(tracked, trial)
        kept = [Metrics({"loss/generator": 1.5}, 90), Metrics({"validation/label_f1": 0.5, "validation/extra": 1}, 100)]
        OfflineQueue(place(tracked, trial)).add(kept)
        TrialRuns(tracked).close([trial])
        check_complete(tracked, uri, trial)
    metrics = mlflow_client(uri).get_run(run).data.metrics
    assert metrics["loss/generator"] == 1.5 and metrics["validation/extra"] == 1
    assert not OfflineQueue(place(sweep, trial)).names()


def test_a_trial_is_complete_only_after_its_process_has_ended(uri: str, tmp_path: Path) -> None:
    sweep, trial = recorded_sweep(tmp_path), Trial("a", 0, SETTINGS, "stopped", POINTS)
    client = mlflow_client(uri)
    with sweep_run(sweep, uri) as tracked:
        runs = TrialRuns(tracked)
        with Lease.acquire(place(tracked, trial), who="its process"):
            run = begin(tracked, trial)
            client.update_run(run, status="RUNNING")
            runs.trial(trial)
            time.sleep(2.5)
            assert client.get_run(run).info.status == "RUNNING" and not client.get_run(run).data.params
        deadline = time.monotonic() + 20
        while client.get_run(run).info.status != "FINISHED" and time.monotonic() < deadline:
            time.sleep(0.1)
        check_complete(tracked, uri, trial)  # long before the sweep ends
        runs.close([trial])


def test_a_process_that_was_killed_delays_nothing(uri: str, tmp_path: Path, repository: Path) -> None:
    sweep, trial = recorded_sweep(tmp_path), Trial("a", 0, SETTINGS, "stopped", POINTS)
    with sweep_run(sweep, uri) as tracked:
        begin(tracked, trial)
        store = place(tracked, trial)
        code = "import sys, time; from pipelines.storage.lease import Lease\n"
        code += "from pipelines.storage.storage import Storage\n"
        code += "Lease.acquire(Storage(sys.argv[1])); print('held', flush=True); time.sleep(60)"
        held = subprocess.Popen(
            [sys.executable, "-c", code, str(store)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(repository)},
        )  # fmt: skip
        assert held.stdout is not None and held.stdout.readline() == "held\n"
        held.send_signal(signal.SIGKILL)
        held.wait()
        assert store.exists(LEASE)
        TrialRuns(tracked).close([trial], timeout=20)
        check_complete(tracked, uri, trial)


def test_trials_that_are_about_to_run_again_are_left_alone(uri: str, tmp_path: Path) -> None:
    sweep, client = recorded_sweep(tmp_path), mlflow_client(uri)
    trials = [Trial(state, n, SETTINGS, state, POINTS) for n, state in enumerate(("interrupted", "crashed"))]
    with sweep_run(sweep, uri) as tracked:
        ids = [begin(tracked, trial) for trial in trials]
        for run in ids:
            client.update_run(run, status="RUNNING")
        runs = TrialRuns(tracked)
        for trial in trials:
            runs.trial(trial)
        time.sleep(2)
        assert {client.get_run(run).info.status for run in ids} == {"RUNNING"}
        runs.close(trials)
        assert [client.get_run(run).info.status for run in ids] == ["KILLED", "FAILED"]


def test_a_run_that_was_deleted_costs_a_line_and_no_time(uri: str, tmp_path: Path, logs: list[str]) -> None:
    sweep = recorded_sweep(tmp_path)
    trials = [Trial(name, n, SETTINGS, "stopped", POINTS) for n, name in enumerate(("gone", "unknown", "whole"))]
    with sweep_run(sweep, uri) as tracked:
        mlflow_client(uri).delete_run(begin(tracked, trials[0]))
        begin(tracked, trials[1])
        place(tracked, trials[1]).write(RUN_FILE, "0" * 32)
        begin(tracked, trials[2])
        began = time.monotonic()
        TrialRuns(tracked).close(trials)
        assert time.monotonic() - began < 20 and len(logs) == 2 and all("no longer exists" in s for s in logs)
        check_complete(tracked, uri, trials[2])


@pytest.mark.slow
def test_an_mlflow_that_is_unreachable_to_the_end_gets_everything_later(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, logs: list[str]
) -> None:
    """Unreachable from the first trial to the end: nothing is lost, and the sweep names the command to use."""
    sweep = recorded_sweep(tmp_path / "runs")
    trials = [
        Trial("a", 0, SETTINGS, "stopped", POINTS),
        Trial("b", 1, SETTINGS, "diverged", POINTS, error="TrainingStopped: loss is not finite"),
        Trial("never", 2, SETTINGS, "failed", (), error="boxes.training.lr: too large"),
    ]
    with sweep_run(sweep, server.uri) as tracked:
        server.kill()
        for trial in trials[:2]:
            begin(tracked, trial)
        runs = TrialRuns(tracked)
        for trial in trials:
            runs.trial(trial)
        runs.close(trials, timeout=4)
    assert any("2 trials" in line and "runs send recorded" in line for line in logs), logs
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    server.start()
    for trial in trials[:2]:
        place(sweep, trial).write("settings.json", "{}")
    monkeypatch.chdir(tmp_path)
    assert pipelines_main(["runs", "send", "recorded"]) == 0, capsys.readouterr()
    for trial in trials[:2]:
        check_complete(tracked, server.uri, trial)
    parent = mlflow_client(server.uri).get_run(tracked.tracking.parent)
    assert parent.info.status == "FINISHED", "the sweep's own queue is uploaded, too"


@pytest.mark.slow
def test_an_mlflow_that_comes_back_gets_everything_before_the_sweep_ends(
    server: Server, tmp_path: Path, logs: list[str]
) -> None:
    sweep, trial = recorded_sweep(tmp_path), Trial("a", 0, SETTINGS, "stopped", POINTS)
    with sweep_run(sweep, server.uri) as tracked:
        server.kill()
        begin(tracked, trial)
        runs = TrialRuns(tracked)
        runs.trial(trial)
        time.sleep(3)
        server.start()
        runs.close([trial])
        check_complete(tracked, server.uri, trial)
    assert len([line for line in logs if "cannot complete trial 0" in line]) == 1, logs
