"""A sweep in MLflow: a run of its own, and under it one for every trial and stage, each found again by its tag."""

import contextlib
import math
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from objgan.config import flatten
from objgan.errors import InputError
from pipelines.redaction import in_a_line, redact
from pipelines.runs.sweeps import storage_option, typed
from pipelines.runtime.console import Log
from pipelines.storage.lease import holder
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_tracker import EXPERIMENT, NEW_FILE, RUN_FILE, Sender, mlflow_client
from pipelines.tracking.offline_queue import Metrics, OfflineQueue, Parameters, Record, Status, Tags
from pipelines.tracking.tracker import Tracking, known_run, prepare_store, tracked_run
from tune.space.space import with_settings
from tune.sweep.checkpoint_lineage import CheckpointLineage
from tune.sweep.results import Point, State, Trial
from tune.sweep.sweep import Goal, Sweep, SweepTracking
from tune.sweep.trial_store import ENDED, trial_folder

KEY_TAG = "objgan.sweep_key"
_KEY_FILE = "mlflow_key.txt"
_STATUS: dict[State, str] = {
    "finished": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "crashed": "FAILED",
    "interrupted": "KILLED",
}
_AGAIN_S = 1.0
_LAST_CALL_S = 15.0
"""Seconds that a call of MLflow may still take after the time is up."""


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
    """Observer that makes every trial's runs in MLflow complete as soon as the trial has ended, before the sweep does.

    A trial that the scheduler, the budget, a signal or a kill ends cannot do so itself: its process leaves in a hurry,
    and what MLflow did not take in time stays in its storage. From the row of the trial come parameters, held-out
    measures, the best one under a name of its own, and how the trial ended. A thread sends, so a sweep never waits.
    """

    def __init__(self, sweep: Sweep, log: Log) -> None:
        self._sweep, self._log = sweep, log
        self._waiting: dict[str, Trial] = {}
        self._done: dict[str, Trial] = {}
        self._senders: dict[str, Sender] = {}
        self._changed, self._deadline = threading.Condition(), math.inf
        self._away = False
        self._thread = threading.Thread(target=self._work, name="trials-to-mlflow", daemon=True)
        if sweep.tracking is not None:
            self._thread.start()

    def trial(self, trial: Trial) -> None:
        """Take a trial's row as it stands."""
        if trial.state in _STATUS and trial.state not in ENDED:
            return  # a resumed sweep is about to run it again; `close` says how it stands at the end
        with self._changed:
            self._waiting[trial.id] = trial
            self._changed.notify_all()

    def close(self, trials: Sequence[Trial], timeout: float = 60.0) -> None:
        """Complete all trials; what MLflow does not take in `timeout` seconds is kept in the trials' storage."""
        if self._sweep.tracking is None:
            return
        with self._changed:
            self._waiting = {trial.id: trial for trial in trials if self._done.get(trial.id) != trial}
            self._deadline = time.monotonic() + timeout
            self._changed.notify_all()
        self._thread.join(timeout + _LAST_CALL_S)
        with self._changed:
            left, self._waiting = list(self._waiting.values()), {}
        kept = sum(self._keep(trial) for trial in left)
        if kept:
            how = f"runs send {self._sweep.run}{storage_option(typed(Storage(self._sweep.storage)))}"
            self._log(
                f"MLflow was not reached: what {kept} trials have to report is kept in the sweep's storage; "
                f"`python -m pipelines {how}` sends it"
            )

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._deadline < math.inf)
                waiting = list(self._waiting.values())
            if not waiting or time.monotonic() > self._deadline:
                return
            sent = self._send_some(waiting)
            with self._changed:
                for trial in sent:
                    self._done[trial.id] = trial
                    if self._waiting.get(trial.id) == trial:
                        del self._waiting[trial.id]
                if len(sent) < len(waiting):
                    self._changed.wait(_AGAIN_S)

    def _send_some(self, waiting: Sequence[Trial]) -> list[Trial]:
        """Those that were sent; the others are still held by their processes, or MLflow does not answer."""
        sent = []
        for trial in waiting:
            if time.monotonic() > self._deadline:
                break
            try:
                if self._send(trial):
                    sent.append(trial)
                    self._away = False
            except Exception as error:  # a sweep is worth more than its table in MLflow
                if _is_unknown(error):
                    self._log(f"MLflow: trial {trial.number} has no run there any more ({in_a_line(error)})")
                    sent.append(trial)
                    continue
                if not self._away:
                    self._log(f"MLflow: cannot complete trial {trial.number} ({in_a_line(error)}); trying again")
                self._away = True
                break
        return sent

    def _send(self, trial: Trial) -> bool:
        where = self._sweep.tracking
        assert where is not None
        if trial.state not in _STATUS:
            self._send_settings(where, trial)
            return True
        places = self._places(trial)
        if any(_is_held(store) for _, store in places):
            return False
        for stage, store in places:
            run = self._run(where, trial, stage, store)
            if run is None and not store.exists(NEW_FILE):
                continue  # it never began
            backlog = OfflineQueue(store)
            names = backlog.names()
            kept = [record for name in names for record in backlog.read(name)]
            Sender(where.uri, run, store).send([*kept, *self._records(trial, stage, store)])
            for name in names:
                backlog.remove(name)
        return True

    def _send_settings(self, where: SweepTracking, trial: Trial) -> None:
        """Settings that change over time while a trial runs; nobody else writes these metrics."""
        if not (records := _changing_settings(trial)):
            return
        store = self._places(trial)[-1][1]
        if trial.id not in self._senders:
            run = self._run(where, trial, self._sweep.stage, store)
            if run is None:
                return
            self._senders[trial.id] = Sender(where.uri, run, store)
        self._senders[trial.id].send(records)

    def _keep(self, trial: Trial) -> bool:
        """Put what a trial has to report into its storage's backlog; whether there was anything."""
        if trial.state not in _STATUS:
            return False
        places = [(stage, at) for stage, at in self._places(trial) if at.exists(RUN_FILE) or at.exists(NEW_FILE)]
        for stage, store in places:
            try:
                OfflineQueue(store).add(self._records(trial, stage, store))
            except OSError as error:
                self._log(f"MLflow: what trial {trial.number} has to report could not be kept ({in_a_line(error)})")
                return False
        return bool(places)

    def _places(self, trial: Trial) -> list[tuple[str, Storage]]:
        """Every run that a trial may have in storage; those of its last stage have one run in MLflow."""
        store, stage = self._sweep.store(), self._sweep.stage
        first = store.child(trial_folder(trial.id))
        found = [(name, first.child(name)) for name in self._sweep.stages[:-1]]
        lineage = range(CheckpointLineage(store, trial.id, stage).current + 1)
        return found + [(stage, store.child(trial_folder(trial.id, number)).child(stage)) for number in lineage]

    def _run(self, where: SweepTracking, trial: Trial, stage: str, store: Storage) -> str | None:
        return known_run(store) or find_run(where.uri, trial_key(where, trial.id, stage))

    def _records(self, trial: Trial, stage: str, store: Storage) -> list[Record]:
        """Everything that a trial's run of a stage has to hold; what MLflow has already is sent no second time."""
        if stage != self._sweep.stage:
            # Its own training has told the rest.
            return [Status("FINISHED" if store.exists("finished.json") else _STATUS[trial.state])]
        tags = {
            "objgan.trial_state": trial.state,
            **({"objgan.error": redact(trial.error)[:500]} if trial.error else {}),
        }
        return [
            *_parameters_of(self._sweep, trial),
            *[Metrics(_validation(point), point.step) for point in trial.points],
            *_changing_settings(trial),
            *_best(self._sweep.goal, trial),
            Tags(tags),
            Status(_STATUS[trial.state]),
        ]


def _is_unknown(error: Exception) -> bool:
    """Whether MLflow answers, and does not have the run (any more)."""
    from mlflow.exceptions import MlflowException

    deleted = isinstance(error, RuntimeError) and "is deleted in MLflow" in str(error)
    return deleted or (isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST")


def best_name(metric: str) -> str:
    """The metric under which a trial's best value of a measure stands."""
    return f"best_{metric}"


def _is_held(store: Storage) -> bool:
    """Whether a trial's process still has the run; one that is gone, or silent for long, has not."""
    try:
        there = holder(store)
    except InputError:
        return False
    return there is not None and there.seems_alive


def _parameters_of(sweep: Sweep, trial: Trial) -> list[Record]:
    """The tree of settings that the trial began with; how many threads a worker had only it knows."""
    try:
        flat = flatten(with_settings(sweep.config, trial.settings))
    except InputError:  # refused: there was no training
        return []
    return [Parameters({name: redact(str(value)) for name, value in flat.items() if name != "compute.threads"})]


def _validation(point: Point) -> dict[str, float]:
    return {f"validation/{name}": float(value) for name, value in point.measures.items()}


def _best(goal: Goal, trial: Trial) -> list[Record]:
    """The best value of the measure and its step: MLflow shows the last value of a metric, which is another."""
    point = trial.best(goal.metric, goal.mode)
    if point is None:
        return []
    return [Metrics({best_name(goal.metric): point.measures[goal.metric], "best_step": point.step}, point.step)]


def _changing_settings(trial: Trial) -> list[Record]:
    """Settings that change over time, as metrics; the first ones are the run's parameters."""
    if all(not point.settings or point.settings == trial.settings for point in trial.points):
        return []
    return [
        Metrics(
            {
                f"settings/{name}": float(value)
                for name, value in (point.settings or trial.settings).items()
                if isinstance(value, int | float)
            },
            point.step,
        )
        for point in trial.points
    ]


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


def _quiet(text: str) -> None:
    """A trial's process has no terminal."""
