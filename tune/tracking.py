"""A sweep in MLflow: a run of its own, and under it one for every trial and stage, each found again by its tag."""

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.mlflow_store import EXPERIMENT, RUN_FILE, mlflow_client
from pipelines.progress import Log
from pipelines.storage import Storage
from pipelines.tracking import Tracking, prepare_store, tracked_run
from redaction import in_a_line, redact
from tune.results import State, Trial
from tune.sweep import Sweep, SweepTracking

KEY_TAG = "objgan.sweep_key"
_KEY_FILE = "mlflow_key.txt"
_STATUS: dict[State, str] = {
    "finished": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


@contextlib.contextmanager
def sweep_run(sweep: Sweep, uri: str, log: Log) -> Iterator[Sweep]:
    """The sweep's own run for the length of a block; yields the sweep with its `tracking`.

    Raises:
        InputError: a new sweep, and MLflow cannot be used.
    """
    store = sweep.store()
    prepare_store(uri, store)
    if not store.exists(_KEY_FILE):
        store.write(_KEY_FILE, secrets.token_hex(8) + "\n")
    key = store.read(_KEY_FILE).decode().strip()
    _find_again(uri, store, key)
    tags = {"objgan.sweep": sweep.run, "objgan.step": "sweep", KEY_TAG: key}
    with tracked_run(uri, sweep.run, store, tags, log=log) as tracking:
        tracking.tracker().parameters(_parameters(sweep))
        yield replace(sweep, tracking=SweepTracking(uri, tracking.run, key))


@contextlib.contextmanager
def trial_run(
    sweep: Sweep, trial: str, number: int, stage: str, settings: Mapping[str, Any], store: Storage
) -> Iterator[Tracking]:
    """A trial's run of one stage, nested in the sweep's, for a block; the same run again after a kill.

    settings: those that the trial began with
    store:    where the run's id is kept; the same one for a trial and stage all the time
    """
    tags = {"objgan.trial": trial, "objgan.trial_number": str(number)}
    tags |= {f"setting.{name}": str(value) for name, value in settings.items()}
    with nested_run(sweep, trial, stage, tags, store) as tracking:
        yield tracking


@contextlib.contextmanager
def nested_run(sweep: Sweep, name: str, stage: str, tags: Mapping[str, str], store: Storage) -> Iterator[Tracking]:
    """A run under the sweep's, found again by the sweep's key, its name and stage; nothing where nothing is tracked."""
    where = sweep.tracking
    if where is None:
        yield Tracking()
        return
    key = trial_key(where, name, stage)
    _find_again(where.uri, store, key)
    tags = {"objgan.sweep": sweep.run, "objgan.step": stage, **tags, KEY_TAG: key}
    with tracked_run(where.uri, f"{sweep.run}-{name}-{stage}", store, tags, where.parent, _quiet) as tracking:
        yield tracking


def trial_key(where: SweepTracking, trial: str, stage: str) -> str:
    """The tag by which a trial's run of a stage is found."""
    return f"{where.key}-{trial}-{stage}"


def find_run(uri: str, key: str) -> str | None:
    """The run with a key; None: there is none.

    Raises:
        Exception: MLflow does not answer.
    """
    client = mlflow_client(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    found = client.search_runs([experiment.experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return str(found[0].info.run_id) if found else None


class TrialRuns:
    """Observer that sees to it that MLflow says of every trial how it ended, and what its settings became.

    A trial that the scheduler stops, or a kill, cannot say so itself. A thread sends, so that a sweep never waits.
    """

    def __init__(self, sweep: Sweep, log: Log) -> None:
        self._sweep, self._log = sweep, log
        self._waiting: dict[str, Trial] = {}
        self._runs: dict[str, str] = {}
        self._told: dict[str, int] = {}
        self._changed, self._closing = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name="trials-to-mlflow", daemon=True)
        if sweep.tracking is not None:
            self._thread.start()

    def trial(self, trial: Trial) -> None:
        """Take a trial's row as it stands."""
        with self._changed:
            self._waiting[trial.id] = trial
            self._changed.notify_all()

    def close(self, trials: Sequence[Trial], timeout: float = 60.0) -> None:
        """Send the last word on all trials; what MLflow does not take in `timeout` seconds, `runs gc` puts right."""
        if self._sweep.tracking is None:
            return
        with self._changed:
            self._waiting = {trial.id: trial for trial in trials}
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                waiting, self._waiting, last = self._waiting, {}, self._closing
            for trial in waiting.values():
                try:
                    self._send(trial)
                except Exception as error:  # a sweep is worth more than its table in MLflow
                    self._log(f"MLflow: cannot say how trial {trial.number} stands ({in_a_line(error)})")
                    break
            if last:
                return

    def _send(self, trial: Trial) -> None:
        where = self._sweep.tracking
        assert where is not None
        for stage in reversed(self._sweep.stages):
            run = self._run(where, trial, stage)
            if run is None:
                continue
            client = mlflow_client(where.uri)
            if stage == self._sweep.stage:
                self._settings(client, run, trial)
            self._state(client, run, trial)

    def _run(self, where: SweepTracking, trial: Trial, stage: str) -> str | None:
        key = trial_key(where, trial.id, stage)
        if key not in self._runs and (found := find_run(where.uri, key)):
            self._runs[key] = found
        return self._runs.get(key)

    def _settings(self, client: Any, run: str, trial: Trial) -> None:
        """Settings that change over time, as metrics; the first ones are the run's parameters."""
        if all(not point.settings or point.settings == trial.settings for point in trial.points):
            return
        from mlflow.entities import Metric

        if run not in self._told:
            there = client.get_run(run).data.to_proto().metrics
            self._told[run] = max((m.step for m in there if m.key.startswith("settings/")), default=-1)
        fresh = [point for point in trial.points if point.step > self._told[run]]
        now = _milliseconds()
        metrics = [
            Metric(f"settings/{name}", float(value), now, point.step)
            for point in fresh
            for name, value in (point.settings or trial.settings).items()
            if isinstance(value, int | float)
        ]
        if metrics:
            client.log_batch(run, metrics=metrics)
            self._told[run] = fresh[-1].step

    def _state(self, client: Any, run: str, trial: Trial) -> None:
        status = _STATUS.get(trial.state)
        if status is None:
            return
        client.set_tag(run, "objgan.trial_state", trial.state)
        if trial.error:
            client.set_tag(run, "objgan.error", redact(trial.error)[:500])
        if client.get_run(run).info.status != status:
            client.set_terminated(run, status)


def _find_again(uri: str, store: Storage, key: str) -> None:
    """A run that was made by a process that died before it could write down the id."""
    if store.exists(RUN_FILE):
        return
    with contextlib.suppress(Exception):  # away: the run is made, or found by its key, later
        if run := find_run(uri, key):
            store.write(RUN_FILE, run + "\n")


def _parameters(sweep: Sweep) -> dict[str, Any]:
    budget = {f"budget.{name}": value for name, value in vars(sweep.budget).items() if value is not None}
    space = {
        f"space.{name}": list(knob.values) if knob.kind == "choice" else f"{knob.kind} [{knob.low:g}, {knob.high:g}]"
        for name, knob in sweep.space.knobs.items()
    }
    return {
        "recipe": sweep.config.recipe,
        "stages": " ".join(sweep.stages),
        "metric": sweep.goal.metric,
        "mode": sweep.goal.mode,
        "search": sweep.search,
        "scheduler": sweep.scheduler,
        "seed": sweep.seed,
        **budget,
        **space,
    }


def _milliseconds() -> int:
    return int(time.time() * 1000)


def _quiet(text: str) -> None:
    """A trial's process has nobody to talk to."""
