"""The results of a sweep's trials: rows for tables, for MLflow and for a resumed sweep."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tune.sweep.sweep import Goal

State = Literal["pending", "running", "finished", "stopped", "failed", "diverged", "interrupted", "crashed"]
"""The state of a trial; `tune.sweep.outcomes` decides how it ended.

finished:    ran to its last step
stopped:     the scheduler stopped it
failed:      its settings are refused, or the program has an error
diverged:    a loss or the goal's metric is not finite
interrupted: the sweep ended first; a resumed sweep continues it
crashed:     infrastructure failures used up its retries; a resumed sweep runs it again
"""


@dataclass(frozen=True)
class Point:
    """A report: the held-out measures of a checkpoint. `seconds` since the trial began, over all its processes."""

    step: int
    seconds: float
    measures: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings that were in force; they change over time only under population-based training."""


@dataclass(frozen=True)
class Trial:
    """One trial so far.

    settings:   initial settings, by dotted name
    points:     in order of their steps, without those of weights that a take-over discarded
    checkpoint: name of the best checkpoint in the storage of the trial's last stage
    donors:     under population-based training, (step, trial id) of every take-over
    training_s: seconds inside training steps; the rest is overhead
    """

    id: str
    number: int
    settings: dict[str, Any]
    state: State = "pending"
    points: tuple[Point, ...] = ()
    checkpoint: str | None = None
    error: str | None = None
    seconds: float = 0.0
    training_s: float = 0.0
    donors: tuple[tuple[int, str], ...] = ()
    segment: int = 0
    """The segment that `checkpoint` lies in: see tune.sweep.trial_store."""

    def report(self, goal: Goal) -> Point | None:
        """The report that the trial stands for: the best one that keeps the requirements, or the one nearest to them.

        None: no report has finite values of all metrics of the goal.
        """
        points = [point for point in self.points if goal.measured(point.measures)]
        return max(points, key=lambda point: goal.rank(point.measures), default=None)

    def best(self, goal: Goal) -> Point | None:
        """The best report that keeps the requirements."""
        point = self.report(goal)
        return None if point is None or goal.broken(point.measures) else point


@dataclass(frozen=True)
class SweepResult:
    """All trials of a sweep, by number. `state` is running only in the file of a killed driver.

    state:  incomplete: trials crashed, and a resumed sweep runs them again
    reason: why it ended before its last trial: interrupted, terminated, the budget is spent, or the goal is reached
    """

    state: Literal["running", "finished", "interrupted", "incomplete"]
    trials: tuple[Trial, ...]
    seconds: float
    reason: str | None = None

    def best(self, goal: Goal) -> Trial | None:
        """The trial with the best report that keeps the requirements; the earliest of equal ones."""
        points = [(trial, point) for trial in self.trials if (point := trial.best(goal)) is not None]
        best = max(points, key=lambda pair: (goal.rank(pair[1].measures), -pair[0].number), default=None)
        return None if best is None else best[0]

    def front(self, goal: Goal) -> tuple[Trial, ...]:
        """The Pareto front of the trials that keep the requirements: no other one is better without being worse."""
        found = [(trial, goal.signed(point.measures)) for trial in self.trials if (point := trial.best(goal))]
        values = [own for _, own in found]
        return tuple(trial for trial, own in found if not any(_dominates(other, own) for other in values))


def _dominates(other: tuple[float, ...], own: tuple[float, ...]) -> bool:
    return other != own and all(a >= b for a, b in zip(other, own, strict=True))


class Observer(Protocol):
    """Is notified of trials while a sweep runs, in the driver; after a resume once more of earlier trials."""

    def trial(self, trial: Trial) -> None:
        """A trial started, reported or ended: its current row."""
