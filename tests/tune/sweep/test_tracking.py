"""A sweep in MLflow: its own run and nested ones, found again, with the right status. The engine is a recording."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_client import mlflow_client
from pipelines.tracking.mlflow_tracker import RUN_FILE
from tests.tools.recorded import recorded_sweep
from tune.cli.artifacts import log_confirmed, write_outcome
from tune.confirm.result import Confirmed, Retrained
from tune.sweep.results import Point, Trial
from tune.sweep.sweep import Goal
from tune.sweep.tracking import TrialRuns, find_run, sweep_run, trial_key, trial_run


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def stage_store(sweep, trial: Trial) -> Storage:
    return sweep.store().child(f"trials/{trial.id}/boxes")


def begin(sweep, trial: Trial) -> str | None:
    """Log as a trial's process does; returns the run's id."""
    with trial_run(sweep, trial.id, trial.number, "boxes", trial.settings, stage_store(sweep, trial)) as tracking:
        tracking.tracker().parameters({"boxes.dropout": trial.settings.get("boxes.dropout")})
        tracking.tracker().metrics({"validation/label_f1": 0.5}, 10)
    return tracking.run


def all_runs(client, key: str) -> list:
    return client.search_runs(["1"], f"tags.`objgan.sweep_key` LIKE '{key}%'", max_results=100)


def test_a_sweep_is_a_run_with_its_trials_nested_in_it(uri: str, tmp_path: Path) -> None:
    from tests.tools.recorded import recorded_result

    sweep = recorded_sweep(tmp_path)
    result = recorded_result(sweep)
    with sweep_run(sweep, uri) as tracked:
        children = {trial.id: begin(tracked, trial) for trial in result.trials[4:10]}
        observer = TrialRuns(tracked)
        for trial in result.trials[4:10]:
            observer.trial(trial)
        observer.close(result.trials)
        write_outcome(tracked, result)
    client = mlflow_client(uri)
    parent = client.get_run(tracked.tracking.parent)
    assert parent.info.status == "FINISHED" and parent.data.params["scheduler"] == "asha"
    assert parent.data.params["space.boxes.training.lr"] == "log_uniform [0.0005, 0.01]"
    assert parent.data.tags["objgan.best_trial_number"] == "7" and parent.data.metrics["best/label_f1"] > 0.5
    assert json.loads(parent.data.tags["mlflow.loggedArtifacts"])[0]["type"] == "table"
    files = {one.path for one in client.list_artifacts(parent.info.run_id)}
    assert {"trials.csv", "trials_table.json", "best.yaml", "pictures"} <= files
    assert "pictures/parallel_coordinates.png" in {
        one.path for one in client.list_artifacts(parent.info.run_id, "pictures")
    }
    child = client.get_run(children["t00007"])
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["objgan.trial_state"] == "finished" and child.info.status == "FINISHED"
    failed = client.get_run(children["t00005"])
    assert failed.info.status == "FAILED" and failed.data.tags["objgan.error"] == "RuntimeError: out of luck"
    assert client.get_run(children["t00009"]).data.tags["objgan.trial_state"] == "stopped"


def test_runs_are_found_again_although_their_ids_were_lost(uri: str, tmp_path: Path) -> None:
    sweep, trial = recorded_sweep(tmp_path), Trial("a", 0, {"boxes.dropout": 0.1})
    with sweep_run(sweep, uri) as tracked:
        first = begin(tracked, trial)
    for store in (sweep.store(), stage_store(sweep, trial)):
        store.delete(RUN_FILE)  # as after a kill between making the run and writing down its id
    with sweep_run(sweep, uri) as again:
        assert again.tracking == tracked.tracking
        assert begin(again, trial) == first
    assert len(all_runs(mlflow_client(uri), tracked.tracking.key)) == 2
    # The same name elsewhere is another sweep.
    with sweep_run(recorded_sweep(tmp_path / "other"), uri) as other:
        assert other.tracking.parent != tracked.tracking.parent


def test_runs_that_a_kill_left_running_are_corrected(uri: str, tmp_path: Path) -> None:
    sweep, client = recorded_sweep(tmp_path), mlflow_client(uri)
    trials = [Trial(name, number, {}) for number, name in enumerate(("done", "ended", "cut"))]
    with sweep_run(sweep, uri) as tracked:
        runs = {trial.id: begin(tracked, trial) for trial in trials}
    for run in (*runs.values(), tracked.tracking.parent):
        client.update_run(run, status="RUNNING")
    states = {"done": "finished", "ended": "stopped", "cut": "interrupted"}
    with pytest.raises(SystemExit):
        resumed_and_stopped(sweep, uri, [replace(trial, state=states[trial.id]) for trial in trials])
    statuses = {name: client.get_run(run).info.status for name, run in runs.items()}
    assert statuses == {"done": "FINISHED", "ended": "FINISHED", "cut": "KILLED"}
    assert client.get_run(tracked.tracking.parent).info.status == "KILLED"


def resumed_and_stopped(sweep, uri: str, trials: list[Trial]) -> None:
    with sweep_run(sweep, uri) as again:
        TrialRuns(again).close(trials)
        raise SystemExit(143)


def test_settings_that_change_are_metrics_and_the_first_ones_parameters(uri: str, tmp_path: Path) -> None:
    sweep, client = recorded_sweep(tmp_path), mlflow_client(uri)
    first = {"boxes.dropout": 0.1, "boxes.adversarial": "bce"}
    points = [Point(step, step, {"label_f1": 0.5}, first | {"boxes.dropout": step / 10}) for step in (1, 2, 3)]
    trial = Trial("a", 0, first, "running", tuple(points[:2]))
    with sweep_run(sweep, uri) as tracked:
        run = begin(tracked, trial)
        TrialRuns(tracked).close([trial])
        # Another process, after a resume, records everything again.
        TrialRuns(tracked).close([replace(trial, points=tuple(points))])
    history = client.get_metric_history(run, "settings/boxes.dropout")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert client.get_run(run).data.params["boxes.dropout"] == "0.1"


def test_a_verdict_and_its_figures_are_in_the_sweeps_run(uri: str, tmp_path: Path) -> None:
    sweep = recorded_sweep(tmp_path)
    runs = [
        Retrained(arm, seed, "", {"label_f1": 0.5 + 0.1 * (arm == "best") + seed / 1000})  # type: ignore[arg-type]
        for seed in (1, 2, 3)
        for arm in ("best", "default")
    ]
    confirmed = Confirmed("a", 0, Goal("label_f1", "max"), tuple(runs))
    with sweep_run(sweep, uri) as tracked:
        log_confirmed(tracked, confirmed)
    data = mlflow_client(uri).get_run(tracked.tracking.parent).data
    assert data.metrics["confirm/difference/label_f1"] == pytest.approx(0.1)
    assert data.tags["objgan.confirmed"] == "better" and data.tags["objgan.verdict"].startswith("verdict: trial 0")


def test_nothing_is_tracked_without_a_uri_and_an_unreachable_server_ends_no_sweep(
    tmp_path: Path, result, sweep, logs: list[str]
) -> None:
    with trial_run(sweep, "a", 0, "boxes", {}, Storage(tmp_path / "x")) as tracking:
        assert tracking.run is None
    away = replace(sweep, tracking=None)
    TrialRuns(away).close(result.trials)
    from tune.sweep.sweep import SweepTracking

    away = replace(sweep, tracking=SweepTracking("http://127.0.0.1:9", "no-such-run", "key"))
    write_outcome(away, result)
    assert len(logs) == 1 and "could not be sent" in logs[0] and (tmp_path / "recorded" / "trials.csv").exists()
    assert find_run_or_none(away) is None


def find_run_or_none(sweep) -> str | None:
    try:
        return find_run(sweep.tracking.uri, trial_key(sweep.tracking, "a", "boxes"))
    except Exception:
        return None
