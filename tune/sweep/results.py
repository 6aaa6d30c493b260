"""What came of a sweep's trials: rows that a person reads, MLflow takes and a resumed sweep begins with."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

State = Literal["pending", "running", "finished", "stopped", "failed", "diverged", "interrupted", "crashed"]
"""How a trial stands; `tune.sweep.outcomes` decides how it ended.

finished:    ran to its last step
stopped:     the scheduler ended it
failed:      its settings are refused, or the program has an error
diverged:    a loss or the measure is not finite
interrupted: the sweep ended first; a resumed sweep continues it
crashed:     infrastructure failed more often than it is retried; a resumed sweep runs it again
"""


@dataclass(frozen=True)
class Point:
    """A report: the held-out measures of a checkpoint. `seconds` since the trial began, over all its processes."""

    step: int
    seconds: float
    measures: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings that were in force; they change over time under population-based training alone."""


@dataclass(frozen=True)
class Trial:
    """One trial so far.

    settings:   by dotted name, those that it began with
    points:     in order of their steps; under population-based training those of its own weights that a take-over threw
                away are gone
    checkpoint: name of the best checkpoint in the trial's last stage's storage
    donors:     under population-based training, (step, trial id) of every take-over
    training_s: seconds inside training steps, to tell a sweep's overhead
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

    def best(self, metric: str, mode: str) -> Point | None:
        """The report with the best finite value of a measure."""
        told = [p for p in self.points if metric in p.measures and p.measures[metric] == p.measures[metric]]
        if not told:
            return None
        choose = max if mode == "max" else min
        return choose(told, key=lambda point: point.measures[metric])


@dataclass(frozen=True)
class SweepResult:
    """All trials of a sweep, by number. `state` is running only in a file that a killed driver left.

    state:  incomplete: trials crashed and are left for a resumed sweep
    reason: why it ended before its last trial: interrupted, terminated, or that its budget is spent
    """

    state: Literal["running", "finished", "interrupted", "incomplete"]
    trials: tuple[Trial, ...]
    seconds: float
    reason: str | None = None

    def best(self, metric: str, mode: str) -> Trial | None:
        """The trial with the best report; the earliest of equal ones."""
        with_one = [(trial, trial.best(metric, mode)) for trial in self.trials]
        told = [(trial, point.measures[metric]) for trial, point in with_one if point is not None]
        if not told:
            return None
        sign = 1 if mode == "max" else -1
        return max(told, key=lambda row: (sign * row[1], -row[0].number))[0]


class Observer(Protocol):
    """Hears of trials while a sweep runs, in the driver; called again for known trials after a resume."""

    def trial(self, trial: Trial) -> None:
        """A trial began, reported or ended: its row as it stands."""
