"""A sweep in MLflow: one run for the sweep, with one nested run for each trial and stage, each identified by a tag."""

import contextlib
import logging
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
from pipelines.storage.lease import holder
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_client import EXPERIMENT, mlflow_client
from pipelines.tracking.mlflow_tracker import NEW_FILE, RUN_FILE, Sender
from pipelines.tracking.offline_queue import Metrics, OfflineQueue, Parameters, Record, Status, Tags
from pipelines.tracking.tracker import Tracking, known_run, prepare_store, tracked_run
from tune.space.space import with_settings
from tune.sweep.checkpoint_lineage import CheckpointLineage
from tune.sweep.results import Point, State, Trial
from tune.sweep.sweep import Goal, Sweep, SweepTracking
from tune.sweep.trial_store import ENDED, trial_folder

logger = logging.getLogger(__name__)
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
_RETRY_S = 1.0
_LAST_CALL_S = 15.0
"""Seconds that a call of MLflow may take after the deadline."""


@contextlib.contextmanager
def sweep_run(sweep: Sweep, uri: str) -> Iterator[Sweep]:
    """The sweep's own run, for a block; yields the sweep with its `tracking`.

    Raises:
        InputError: the sweep is new, and MLflow cannot be used.
    """
    store = sweep.store()
    prepare_store(uri, store)
    if not store.exists(_KEY_FILE):
        store.write(_KEY_FILE, secrets.token_hex(8) + "\n")
    key = store.read(_KEY_FILE).decode().strip()
    _restore_id(uri, store, key)
    tags = {"objgan.sweep": sweep.run, "objgan.step": "sweep", KEY_TAG: key}
    with tracked_run(uri, sweep.run, store, tags) as tracking:
        tracking.tracker().parameters(_parameters(sweep))
        yield replace(sweep, tracking=SweepTracking(uri, tracking.run, key))


@contextlib.contextmanager
def trial_run(
    sweep: Sweep, trial: str, number: int, stage: str, settings: Mapping[str, Any], store: Storage
) -> Iterator[Tracking]:
    """A trial's run of one stage, nested in the sweep's, for a block; after a kill it is the same run.

    settings: initial settings of the trial
    store:    holds the run's id; always the same one for a trial and stage
    """
    tags = {"objgan.trial": trial, "objgan.trial_number": str(number)}
    tags |= {f"setting.{name}": str(value) for name, value in settings.items()}
    with nested_run(sweep, trial, stage, tags, store) as tracking:
        yield tracking


@contextlib.contextmanager
def nested_run(sweep: Sweep, name: str, stage: str, tags: Mapping[str, str], store: Storage) -> Iterator[Tracking]:
    """A run nested in the sweep's, identified by the sweep's key, its name and stage; no run if nothing is tracked."""
    parent = sweep.tracking
    if parent is None:
        yield Tracking()
        return
    key = trial_key(parent, name, stage)
    _restore_id(parent.uri, store, key)
    tags = {"objgan.sweep": sweep.run, "objgan.step": stage, **tags, KEY_TAG: key}
    with tracked_run(parent.uri, f"{sweep.run}-{name}-{stage}", store, tags, parent.parent) as tracking:
        yield tracking


def trial_key(tracking: SweepTracking, trial: str, stage: str) -> str:
    """The tag that identifies a trial's run of a stage."""
    return f"{tracking.key}-{trial}-{stage}"


def find_run(uri: str, key: str) -> str | None:
    """The id of the run with a key; None: no run has it.

    Raises:
        Exception: MLflow is not reachable.
    """
    client = mlflow_client(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    runs = client.search_runs([experiment.experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


class TrialRuns:
    """Observer that completes a trial's runs in MLflow as soon as the trial has ended.

    A trial that is ended by the scheduler, the budget, a signal or a kill cannot do so itself: its process has little
    time, and records that MLflow did not receive stay queued in its storage. The trial's row adds parameters, held-out
    measures, the best measure under its own name, and the status. A thread uploads, so a sweep never waits.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._waiting: dict[str, Trial] = {}
        self._done: dict[str, Trial] = {}
        self._senders: dict[str, Sender] = {}
        self._changed, self._deadline = threading.Condition(), math.inf
        self._unreachable = False
        self._thread = threading.Thread(target=self._work, name="trials-to-mlflow", daemon=True)
        if sweep.tracking is not None:
            self._thread.start()

    def trial(self, trial: Trial) -> None:
        """Record the current row of a trial."""
        if trial.state in _STATUS and trial.state not in ENDED:
            return  # a resumed sweep is about to run it again; `close` records its last state
        with self._changed:
            self._waiting[trial.id] = trial
            self._changed.notify_all()

    def close(self, trials: Sequence[Trial], timeout: float = 60.0) -> None:
        """Complete all trials; what is not uploaded within `timeout` seconds is queued in the trials' storage."""
        if self._sweep.tracking is None:
            return
        with self._changed:
            self._waiting = {trial.id: trial for trial in trials if self._done.get(trial.id) != trial}
            self._deadline = time.monotonic() + timeout
            self._changed.notify_all()
        self._thread.join(timeout + _LAST_CALL_S)
        with self._changed:
            remaining, self._waiting = list(self._waiting.values()), {}
        if queued := sum(self._queue(trial) for trial in remaining):
            command = f"runs send {self._sweep.run}{storage_option(typed(Storage(self._sweep.storage)))}"
            logger.info(
                f"MLflow was not reachable: the records of {queued} trials are queued in the sweep's storage; run "
                f"`python -m pipelines {command}` to upload them"
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
                    self._changed.wait(_RETRY_S)

    def _send_some(self, waiting: Sequence[Trial]) -> list[Trial]:
        """Returns the trials that were sent; the others are held by their processes, or MLflow is not reachable."""
        sent = []
        for trial in waiting:
            if time.monotonic() > self._deadline:
                break
            try:
                if self._send(trial):
                    sent.append(trial)
                    self._unreachable = False
            except Exception as error:  # no error of MLflow may end a sweep
                if _is_unknown(error):
                    logger.info(f"MLflow: the run of trial {trial.number} no longer exists ({in_a_line(error)})")
                    sent.append(trial)
                    continue
                if not self._unreachable:
                    logger.info(f"MLflow: cannot complete trial {trial.number} ({in_a_line(error)}); retrying")
                self._unreachable = True
                break
        return sent

    def _send(self, trial: Trial) -> bool:
        """Complete a trial's runs; False: its process still holds one of them."""
        if trial.state not in _STATUS:
            self._send_settings(trial)
            return True
        places = self._places(trial)
        if any(_is_held(store) for _, store in places):
            return False
        for stage, store in places:
            sender = self._sender(trial, stage, store)
            if sender is None:
                continue  # it never began
            queue = OfflineQueue(store)
            names = queue.names()
            queued = [record for name in names for record in queue.read(name)]
            sender.send([*queued, *self._records(trial, stage, store)])
            for name in names:
                queue.remove(name)
        return True

    def _send_settings(self, trial: Trial) -> None:
        """Send the settings that change while a trial runs; no other process writes these metrics."""
        if not (records := _changing_settings(trial)):
            return
        store = self._places(trial)[-1][1]
        sender = self._senders.get(trial.id) or self._sender(trial, self._sweep.stage, store)
        if sender is not None:
            self._senders[trial.id] = sender
            sender.send(records)

    def _queue(self, trial: Trial) -> bool:
        """Queue a trial's records in its storage; False: it has none, or the storage is not available."""
        if trial.state not in _STATUS:
            return False
        places = [(stage, at) for stage, at in self._places(trial) if at.exists(RUN_FILE) or at.exists(NEW_FILE)]
        for stage, store in places:
            try:
                OfflineQueue(store).add(self._records(trial, stage, store))
            except OSError as error:
                logger.info(f"MLflow: cannot queue the records of trial {trial.number} ({in_a_line(error)})")
                return False
        return bool(places)

    def _places(self, trial: Trial) -> list[tuple[str, Storage]]:
        """Stage and storage of every run that a trial may have; those of its last stage share one run in MLflow."""
        store, stage = self._sweep.store(), self._sweep.stage
        first = store.child(trial_folder(trial.id))
        earlier = [(name, first.child(name)) for name in self._sweep.stages[:-1]]
        lineage = range(CheckpointLineage(store, trial.id, stage).current + 1)
        return earlier + [(stage, store.child(trial_folder(trial.id, number)).child(stage)) for number in lineage]

    def _sender(self, trial: Trial, stage: str, store: Storage) -> Sender | None:
        """Sends to a trial's run of a stage; None: the run never began, or the live trial has yet to create it."""
        tracking = self._sweep.tracking
        assert tracking is not None
        run = known_run(store) or find_run(tracking.uri, trial_key(tracking, trial.id, stage))
        if run is None and not (trial.state in _STATUS and store.exists(NEW_FILE)):
            return None
        return Sender(tracking.uri, run, store)

    def _records(self, trial: Trial, stage: str, store: Storage) -> list[Record]:
        """All records of a trial's run of a stage; the sender skips what MLflow already has."""
        if stage != self._sweep.stage:
            # Its own training has logged everything else.
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
    """Whether MLflow is reachable and does not have the run."""
    from mlflow.exceptions import MlflowException

    deleted = isinstance(error, RuntimeError) and "is deleted in MLflow" in str(error)
    return deleted or (isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST")


def best_name(metric: str) -> str:
    """The MLflow metric that holds a trial's best value of a measure."""
    return f"best_{metric}"


def _is_held(store: Storage) -> bool:
    """Whether a live process of the trial holds the run."""
    try:
        lease = holder(store)
    except InputError:
        return False
    return lease is not None and lease.seems_alive


def _parameters_of(sweep: Sweep, trial: Trial) -> list[Record]:
    """The initial settings of the trial, without `compute.threads`, which only the worker knows."""
    try:
        flat = flatten(with_settings(sweep.config, trial.settings))
    except InputError:  # rejected: no training began
        return []
    return [Parameters({name: redact(str(value)) for name, value in flat.items() if name != "compute.threads"})]


def _validation(point: Point) -> dict[str, float]:
    return {f"validation/{name}": float(value) for name, value in point.measures.items()}


def _best(goal: Goal, trial: Trial) -> list[Record]:
    """The best value of the measure and its step; MLflow itself shows the last value of a metric."""
    point = trial.best(goal)
    if point is None:
        return []
    return [Metrics({best_name(goal.metric): point.measures[goal.metric], "best_step": point.step}, point.step)]


def _changing_settings(trial: Trial) -> list[Record]:
    """Settings that change during training, as metrics; the initial ones are the run's parameters."""
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


def _restore_id(uri: str, store: Storage, key: str) -> None:
    """Store the id of a run whose process was killed before it could store it."""
    if store.exists(RUN_FILE):
        return
    with contextlib.suppress(Exception):  # not reachable: the run is created, or found by its key, later
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
        "metric": " ".join(objective.metric for objective in sweep.goal.objectives),
        "mode": " ".join(objective.mode for objective in sweep.goal.objectives),
        **({"require": "; ".join(map(str, sweep.goal.requires))} if sweep.goal.requires else {}),
        "search": sweep.search,
        "scheduler": sweep.scheduler,
        "seed": sweep.seed,
        **budget,
        **space,
    }
