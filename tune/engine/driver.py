"""The driver of a running sweep: rows, observers, budget, and requests to stop trials."""

import contextlib
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

from pipelines.runtime.console import Log
from pipelines.storage.lease import Lease
from pipelines.training.supervisor import INTERRUPTED, TERMINATED
from tune.sweep.resources import Allotment
from tune.sweep.results import Observer, Point, State, Trial
from tune.sweep.sweep import Sweep
from tune.sweep.trial_store import ENDED, TrialStore

BUDGET = "the budget is spent"
_STOPPED = "the scheduler ends it"
_NOTE_S = 5.0
_GRACE_S = 150.0
_DESK_S = 10.0


class SweepDriver(ray.tune.Callback, ray.tune.Stopper):
    """Ray Tune calls it at every event, and asks it some times a second whether all is to end.

    `asked` is why the sweep is to end before its last trial: a signal, or `BUDGET`. `failure` is what kept a trial from
    being recorded: Ray Tune raises its text alone.
    """

    def __init__(self, sweep: Sweep, rows: TrialStore, observers: Sequence[Observer], log: Log) -> None:
        self._sweep, self._rows, self._observers, self._log = sweep, rows, observers, log
        self.asked: str | None = None
        self.failure: Exception | None = None
        self._began, self._before = time.monotonic(), rows.seconds
        self._spent = sum(row.seconds for row in rows.rows.values())
        self._looked, self._noted = self._began, 0.0
        self._told_at: float | None = None
        self._busy = 0
        self._retried: dict[str, int] = {}
        self._stop_requests: Any = None
        self._lease: Lease | None = None
        self._units = 1

    def begin(self, stop_requests: Any, lease: Lease, allotment: Allotment) -> None:
        """All that is known once the cluster is there. Observers hear of the trials of earlier processes."""
        self._stop_requests, self._lease, self._units = stop_requests, lease, allotment.workers
        for row in self._rows.result().trials:
            self._tell(row)

    @property
    def seconds(self) -> float:
        """Of the sweep, over all its processes."""
        return self._before + time.monotonic() - self._began

    def put(self, row: Trial) -> None:
        """A row changes."""
        if self._rows.rows.get(row.id) != row:
            try:
                self._rows.put(row)
            except Exception as error:
                self.failure = error
                raise
            self._tell(row)

    def finish(self) -> None:
        """Ray Tune is done: a resumed sweep continues the trials that have not ended."""
        rows = self._rows.result().trials
        for row in rows:
            if row.state not in ENDED and row.state != "crashed":
                self.put(replace(row, state="interrupted"))
        state = "incomplete" if any(row.state == "crashed" for row in rows) else "finished"
        self._put_state("interrupted" if self.asked not in (None, BUDGET) else state, self.asked)

    @contextlib.contextmanager
    def hearing(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask for a clean end; a second one ends at once, as before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def hear(number: int, frame: FrameType | None) -> None:
            if self.asked is None or self.asked == BUDGET:
                self.asked = INTERRUPTED if number == signal.SIGINT else TERMINATED
                return
            for one, before in kept.items():
                signal.signal(one, before)
            signal.raise_signal(number)

        for number in kept:
            signal.signal(number, hear)
        try:
            yield
        finally:
            for number, before in kept.items():
                signal.signal(number, before)

    # Ray Tune's callbacks

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Some times a second."""
        if self._lease is not None and self._lease.lost.is_set():
            self._lease.check()
        now = time.monotonic()
        self._busy = sum(trial.status == trial.RUNNING for trial in trials)
        self._spent += self._busy * (now - self._looked)
        self._looked = now
        if self.asked is None and self._is_spent():
            self.asked = BUDGET
        if self.asked is not None and self._told_at is None:
            self._told_at = now
            self._log(f"sweep {self._sweep.run}: {self.asked}; running trials leave a checkpoint")
            self._stop_requests.end_all.remote(self.asked)
        if now - self._noted > _NOTE_S:
            self._noted = now
            self._put_state("running")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process begins with it, or goes on."""
        row = self._row(trial)
        if self.asked is None:
            self.put(replace(row, state="running"))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reports."""
        row = _with_report(self._row(trial), result["told"])
        if not result["done"] or "state" in result["told"]:
            self._say(row, result)
        self.put(row)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ends: by itself, or because the scheduler says so."""
        row, told = self._row(trial), trial.last_result.get("told", {})
        state: State = told.get("state") or "stopped"
        if state == "interrupted" and self.asked is None:
            state = "stopped"
        if state == "stopped":
            self._stop_requests.end.remote(row.id, _STOPPED)
        self.put(replace(row, state=state, error=told.get("error")))
        self._log(f"trial {row.id}: {state}" + (f" ({told['error']})" if told.get("error") else ""))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Infrastructure failed under a trial, which Ray Tune runs again."""
        row, why = self._row(trial), self._why(trial)
        self._retried[row.id] = count = self._retried.get(row.id, 0) + 1
        # A new process repeats none of the reports that are recorded.
        trial.config["job"]["told"] = row.points[-1].step if row.points else 0
        self.put(replace(row, error=why))
        self._log(f"trial {row.id}: {why}; retry {count} of {self._sweep.budget.retries}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Infrastructure failed under a trial more often than it is retried: `--resume` runs it again."""
        row = replace(self._row(trial), state="crashed", error=self._why(trial))
        self.put(row)
        self._log(f"trial {row.id}: crashed ({row.error}); --resume runs it again")

    # Ray Tune's stopper

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether one trial is to end: that is the scheduler's affair."""
        return False

    def stop_all(self) -> bool:
        """Whether nothing is left to wait for after the sweep was asked to end."""
        if self._told_at is None:
            return False
        return not self._busy or time.monotonic() - self._told_at > _GRACE_S

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _why(self, trial: Any) -> str:
        """Why a trial's process ended with an error, in a line."""
        why = None
        with contextlib.suppress(ray.exceptions.RayError):
            why = ray.get(self._stop_requests.take_crash.remote(trial.config["job"]["trial"]), timeout=_DESK_S)
        return why or "its process was killed, or its machine was lost"

    def _put_state(self, state: str, reason: str | None = None) -> None:
        left = self._sweep.budget.trials - len(self._rows.ended())
        self._rows.put_state(state, self.seconds, reason, left)

    def _row(self, trial: Any) -> Trial:
        job = trial.config["job"]
        known = self._rows.rows.get(job["trial"])
        return known or Trial(job["trial"], job["number"], dict(job["settings"]))

    def _is_spent(self) -> bool:
        budget = self._sweep.budget
        late = budget.seconds is not None and self.seconds > budget.seconds
        return late or (budget.gpu_hours is not None and self._spent * self._units > 3600 * budget.gpu_hours)

    def _say(self, row: Trial, result: dict[str, Any]) -> None:
        if "goal" in result:
            name = self._sweep.goal.metric
            self._log(f"trial {row.id}: step {result['step']}, {name} {result['goal']:.4g}")

    def _tell(self, row: Trial) -> None:
        for observer in self._observers:
            observer.trial(row)


def _with_report(row: Trial, told: dict[str, Any]) -> Trial:
    if "points" not in told:
        return row
    return replace(
        row,
        points=tuple(Point(**point) for point in told["points"]),
        checkpoint=told["checkpoint"],
        segment=told["segment"],
        donors=tuple((step, donor) for step, donor in told["donors"]),
        seconds=told["seconds"],
        training_s=told["training_s"],
    )


class StopRequests:
    """The actor's class."""

    def __init__(self) -> None:
        self._wishes: dict[str, str] = {}
        self._crashes: dict[str, str] = {}
        self._all: str | None = None

    def end(self, trial: str, reason: str) -> None:
        """One trial is to leave a checkpoint and go."""
        self._wishes.setdefault(trial, reason)

    def end_all(self, reason: str) -> None:
        """Every trial is, also those to come."""
        self._all = self._all or reason

    def begin(self, trial: str) -> str | None:
        """A trial starts (again): earlier wishes to it are void. Returns why it should not start, if so."""
        self._wishes.pop(trial, None)
        return self._all

    def crash(self, trial: str, why: str) -> None:
        """A trial's process says why it is about to end with an error."""
        self._crashes[trial] = why

    def take_crash(self, trial: str) -> str | None:
        """Why it ended, once; None: it could not say so."""
        return self._crashes.pop(trial, None)

    def wish(self, trial: str) -> str | None:
        """Why a trial is to go; None: it is not."""
        return self._all or self._wishes.get(trial)


def make_stop_requests() -> Any:
    """A desk on the driver's own node."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(num_cpus=0)(StopRequests).options(scheduling_strategy=here).remote()
