"""The driver of a running sweep: rows, observers, budget, and requests to stop trials."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

import ray
import ray.tune
import ray.util.scheduling_strategies

from pipelines.runs.sweeps import GOAL_REACHED
from pipelines.storage.lease import Lease
from pipelines.training.supervisor import INTERRUPTED, TERMINATED
from tune.engine.stop_requests import StopRequests
from tune.sweep.resources import Allotment
from tune.sweep.results import Observer, Point, State, Trial
from tune.sweep.sweep import Sweep
from tune.sweep.trial_store import ENDED, TrialStore

logger = logging.getLogger(__name__)
BUDGET = "the budget is spent"
_STOPPED = "stopped by the scheduler"
_STATE_S = 5.0
"""Seconds between two writes of state.json."""
_GRACE_S = 150.0
"""Seconds that running trials have for a last checkpoint."""
_ACTOR_S = 10.0
"""Seconds to wait for an answer of the actor."""


class SweepDriver(ray.tune.Callback, ray.tune.Stopper):
    """Ray Tune's callback for every event, and its stopper, which Ray Tune asks several times a second.

    asked:   why the sweep has to end before its last trial (a signal, `BUDGET` or `GOAL_REACHED`); None: it does not
    failure: the error that occurred while a trial was recorded; Ray Tune raises only its text
    """

    def __init__(self, sweep: Sweep, rows: TrialStore, observers: Sequence[Observer]) -> None:
        self._sweep, self._rows, self._observers = sweep, rows, observers
        self.asked: str | None = None
        self.failure: Exception | None = None
        self._began, self._before = time.monotonic(), rows.seconds
        self._spent = sum(row.seconds for row in rows.rows.values())
        self._checked_at, self._stored_at = self._began, 0.0
        self._asked_at: float | None = None
        self._running = 0
        self._retried: dict[str, int] = {}
        self._stop_requests: Any = None
        self._lease: Lease | None = None
        self._units = 1.0

    def begin(self, stop_requests: Any, lease: Lease, allotment: Allotment) -> None:
        """Set what is known once Ray runs, and notify observers of trials of earlier processes."""
        self._stop_requests, self._lease, self._units = stop_requests, lease, allotment.units
        for row in self._rows.result().trials:
            self._notify(row)

    @property
    def seconds(self) -> float:
        """Duration of the sweep, over all its processes."""
        return self._before + time.monotonic() - self._began

    def put(self, row: Trial) -> None:
        """Store a changed row and notify observers."""
        if self._rows.rows.get(row.id) != row:
            try:
                self._rows.put(row)
            except Exception as error:
                self.failure = error
                raise
            self._notify(row)

    def finish(self) -> None:
        """Record the end of Ray Tune. Trials that have not ended are continued by a resumed sweep."""
        rows = self._rows.result().trials
        for row in rows:
            if row.state not in ENDED and row.state != "crashed":
                self.put(replace(row, state="interrupted"))
        state = "incomplete" if any(row.state == "crashed" for row in rows) else "finished"
        self._put_state("interrupted" if self.asked not in (None, BUDGET, GOAL_REACHED) else state, self.asked)

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """For a block, Ctrl-C and SIGTERM request a clean end; a second one ends the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def handle(number: int, frame: FrameType | None) -> None:
            if self.asked in (None, BUDGET, GOAL_REACHED):
                self.asked = INTERRUPTED if number == signal.SIGINT else TERMINATED
                return
            restore()
            signal.raise_signal(number)

        def restore() -> None:
            for number, handler in handlers.items():
                signal.signal(number, handler)

        for number in handlers:
            signal.signal(number, handle)
        try:
            yield
        finally:
            restore()

    # Ray Tune's callbacks

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called several times a second: check lease and budget, request the end, store the state."""
        if self._lease is not None and self._lease.lost.is_set():
            self._lease.check()
        now = time.monotonic()
        self._running = sum(trial.status == trial.RUNNING for trial in trials)
        self._spent += self._running * (now - self._checked_at)
        self._checked_at = now
        if self.asked is None:
            self.asked = GOAL_REACHED if self._is_reached() else BUDGET if self._is_spent() else None
        if self.asked is not None and self._asked_at is None:
            self._asked_at = now
            logger.info(f"sweep {self._sweep.run}: {self.asked}; running trials save a checkpoint and stop")
            self._stop_requests.end_all.remote(self.asked)
        if now - self._stored_at > _STATE_S:
            self._stored_at = now
            self._put_state("running")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A process starts or resumes a trial."""
        row = self._row(trial)
        if self.asked is None:
            self.put(replace(row, state="running"))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reports."""
        row = _with_report(self._row(trial), result["row"])
        if "goal" in result and (not result["done"] or "state" in result["row"]):
            logger.info(f"trial {row.id}: step {result['step']}, {self._sweep.goal.metric} {result['goal']:.4g}")
        self.put(row)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended by itself, or was stopped by the scheduler."""
        row, last = self._row(trial), trial.last_result.get("row", {})
        state: State = last.get("state") or "stopped"
        if state == "interrupted" and self.asked is None:
            state = "stopped"
        if state == "stopped":
            self._stop_requests.end.remote(row.id, _STOPPED)
        self.put(replace(row, state=state, error=last.get("error")))
        logger.info(f"trial {row.id}: {state}" + (f" ({last['error']})" if last.get("error") else ""))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """An infrastructure failure ended a trial, and Ray Tune retries it."""
        row, why = self._row(trial), self._why(trial)
        self._retried[row.id] = count = self._retried.get(row.id, 0) + 1
        # The new process repeats no report that is recorded.
        trial.config["job"]["reported"] = row.points[-1].step if row.points else 0
        self.put(replace(row, error=why))
        logger.info(f"trial {row.id}: {why}; retry {count} of {self._sweep.budget.retries}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Infrastructure failures used up a trial's retries: `--resume` runs it again."""
        row = replace(self._row(trial), state="crashed", error=self._why(trial))
        self.put(row)
        logger.info(f"trial {row.id}: crashed ({row.error}); --resume runs it again")

    # Ray Tune's stopper

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never end a single trial: the scheduler does that."""
        return False

    def stop_all(self) -> bool:
        """Whether to end Ray Tune: the end was requested, and no trial runs any more or the time for it is over."""
        if self._asked_at is None:
            return False
        return not self._running or time.monotonic() - self._asked_at > _GRACE_S

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _why(self, trial: Any) -> str:
        """The error that ended a trial's process, in one line."""
        why = None
        with contextlib.suppress(ray.exceptions.RayError):
            why = ray.get(self._stop_requests.take_crash.remote(trial.config["job"]["trial"]), timeout=_ACTOR_S)
        return why or "its process was killed, or its machine was lost"

    def _put_state(self, state: str, reason: str | None = None) -> None:
        left = self._sweep.budget.trials - len(self._rows.ended())
        self._rows.put_state(state, self.seconds, reason, left)

    def _row(self, trial: Any) -> Trial:
        job = trial.config["job"]
        known = self._rows.rows.get(job["trial"])
        return known or Trial(job["trial"], job["number"], dict(job["settings"]))

    def _is_reached(self) -> bool:
        goal, wanted = self._sweep.goal, self._sweep.budget.stop_at
        points = (row.best(goal) for row in self._rows.rows.values())
        return wanted is not None and any(
            point is not None and goal.reached(point.measures[goal.metric], wanted) for point in points
        )

    def _is_spent(self) -> bool:
        budget = self._sweep.budget
        late = budget.seconds is not None and self.seconds > budget.seconds
        return late or (budget.gpu_hours is not None and self._spent * self._units > 3600 * budget.gpu_hours)

    def _notify(self, row: Trial) -> None:
        for observer in self._observers:
            observer.trial(row)


def _with_report(row: Trial, facts: dict[str, Any]) -> Trial:
    if "points" not in facts:
        return row
    return replace(
        row,
        points=tuple(Point(**point) for point in facts["points"]),
        donors=tuple((step, donor) for step, donor in facts["donors"]),
        **{name: facts[name] for name in ("checkpoint", "segment", "seconds", "training_s")},
    )


def make_stop_requests() -> Any:
    """The actor, on the driver's own node."""
    own_node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(num_cpus=0)(StopRequests).options(scheduling_strategy=own_node).remote()
