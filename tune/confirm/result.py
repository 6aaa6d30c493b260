"""The confirmation of a sweep: the best trial's settings and the recipe's, trained again with other seeds."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from objgan.errors import InputError
from pipelines.storage.storage import Storage
from tune.report.tables import aligned
from tune.sweep.sweep import Goal

FILE = "confirm/confirmed.json"
ArmName = Literal["best", "default"]
Outcome = Literal["better", "worse", "no difference shown", "not enough runs"]


@dataclass(frozen=True)
class Retrained:
    """One run of a confirmation: held-out measures on the test split, which the sweep did not use.

    place: its folder below the sweep
    """

    arm: ArmName
    seed: int
    place: str
    measures: dict[str, float]
    split: str = "test"
    error: str | None = None


@dataclass(frozen=True)
class MeanInterval:
    """A mean over seeds with its 95 % interval (Student's t); None: fewer than two values."""

    mean: float
    low: float | None
    high: float | None

    def text(self, signed: bool = False) -> str:
        """`0.512 [0.498, 0.526]`."""
        sign = "+" if signed else ""
        ends = "" if self.low is None or self.high is None else f" [{self.low:{sign}.4f}, {self.high:{sign}.4f}]"
        return f"{self.mean:{sign}.4f}{ends}"


@dataclass(frozen=True)
class Confirmed:
    """The runs of a confirmation, with its trial and goal."""

    trial: str
    number: int
    goal: Goal
    runs: tuple[Retrained, ...]

    def values(self, arm: ArmName, measure: str) -> list[float]:
        """Finite values of a measure, in the order of the seeds."""
        values = [run.measures.get(measure, math.nan) for run in self.runs if run.arm == arm]
        return [value for value in values if math.isfinite(value)]

    def difference(self, measure: str) -> MeanInterval | None:
        """Best - default (Welch); None: an arm has no value."""
        best, default = (self.values(arm, measure) for arm in ("best", "default"))
        return welch(best, default) if best and default else None

    @property
    def outcome(self) -> Outcome:
        """The result for the goal's metric: whether the interval of its difference contains 0."""
        difference = self.difference(self.goal.metric)
        if difference is None or difference.low is None or difference.high is None:
            return "not enough runs"
        sign = 1 if self.goal.mode == "max" else -1
        if difference.low <= 0 <= difference.high:
            return "no difference shown"
        return "better" if sign * difference.mean > 0 else "worse"

    def measures(self) -> list[str]:
        """Names of all measures, the goal first."""
        names = dict.fromkeys(name for run in self.runs for name in run.measures)
        return [self.goal.metric, *(name for name in names if name != self.goal.metric)]

    def text(self) -> str:
        """A table of all measures, and the verdict."""
        rows: list[tuple[str, ...]] = [("HELD OUT", "BEST SETTINGS", "RECIPE'S", "DIFFERENCE")]
        for name in self.measures():
            best, default, apart = (self.values("best", name), self.values("default", name), self.difference(name))
            spreads = [mean_interval(values).text() if values else "-" for values in (best, default)]
            rows.append((name, *spreads, "-" if apart is None else apart.text(signed=True)))
        failed = [f"{run.arm}, seed {run.seed}: {run.error}" for run in self.runs if run.error]
        return "\n".join([*aligned(rows), *failed, self.verdict()])

    def verdict(self) -> str:
        """One line: the result, the metric, the split, and the interval."""
        name, difference = self.goal.metric, self.difference(self.goal.metric)
        best, default = len(self.values("best", name)), len(self.values("default", name))
        split = self.runs[0].split if self.runs else "test"
        on = f"{name} on the {split} split, {best} + {default} seeds"
        if difference is None or self.outcome == "not enough runs":
            return f"verdict: not enough runs ({on})"
        text = {
            "better": f"trial {self.number}'s settings are better than the recipe's",
            "worse": f"trial {self.number}'s settings are worse than the recipe's, which stand",
            "no difference shown": "no difference shown: the recipe's settings stand",
        }[self.outcome]
        return f"verdict: {text} ({on}: {difference.text(signed=True)})"


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """Mean of a few values, with its interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return MeanInterval(mean, None, None)
    half = _student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return MeanInterval(mean, mean - half, mean + half)


def welch(first: Sequence[float], second: Sequence[float]) -> MeanInterval:
    """Difference of two means with its interval; variances may differ (Welch 1947)."""
    mean = statistics.fmean(first) - statistics.fmean(second)
    if len(first) < 2 or len(second) < 2:
        return MeanInterval(mean, None, None)
    a, b = (statistics.variance(values) / len(values) for values in (first, second))
    if a + b == 0:
        return MeanInterval(mean, mean, mean)
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    half = _student(freedom) * math.sqrt(a + b)
    return MeanInterval(mean, mean - half, mean + half)


def save(confirmed: Confirmed, store: Storage) -> None:
    """Write a confirmation to the sweep's storage."""
    store.write(FILE, json.dumps(asdict(confirmed), indent=1) + "\n")


def load(store: Storage) -> Confirmed | None:
    """The confirmation of a sweep; None: there is none.

    Raises:
        InputError: `save` did not write the file.
    """
    facts: Any = store.json(FILE)
    if facts is None:
        return None
    try:
        runs = tuple(Retrained(**run) for run in facts["runs"])
        return Confirmed(facts["trial"], facts["number"], TypeAdapter(Goal).validate_python(facts["goal"]), runs)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{store}/{FILE} is not a confirmation ({error}): delete it") from None


def _student(freedom: float) -> float:
    """97.5 % quantile of Student's t."""
    import scipy.stats

    return float(scipy.stats.t.ppf(0.975, freedom))
