"""The definition of a sweep: plain data. `tune.engine.engine` runs it, `tune.sweep.results` holds its results."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from objgan.config import Config
from pipelines.storage.storage import Storage
from tune.space.space import Space

Search = Literal["random", "tpe", "cmaes", "gp", "qmc", "grid", "optuna"]
"""`optuna` is the earlier name of `tpe`."""
Scheduler = Literal["asha", "median", "pbt", "none"]


Mode = Literal["max", "min"]


@dataclass(frozen=True)
class Requirement:
    """A bound that a held-out metric of the best trial keeps."""

    metric: str
    sign: Literal[">=", "<="]
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:g}"

    def violation(self, measures: Mapping[str, float]) -> float:
        """How far the metric is beyond its bound; at most 0: it keeps the bound; NaN: it was not measured."""
        value = measures.get(self.metric, math.nan)
        return self.bound - value if self.sign == ">=" else value - self.bound


@dataclass(frozen=True)
class Objective:
    """A held-out metric and its better direction."""

    metric: str
    mode: Mode


@dataclass(frozen=True)
class Goal:
    """The held-out metric of the last stage that a sweep improves, and what its best trial has to keep.

    others: further metrics, which make a Pareto front; the first one decides which trial of the front is the best
    """

    metric: str
    mode: Mode
    requires: tuple[Requirement, ...] = ()
    others: tuple[Objective, ...] = ()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All metrics that are improved, the deciding one first."""
        return (Objective(self.metric, self.mode), *self.others)

    @property
    def directions(self) -> list[str]:
        """The directions of a study of Optuna."""
        return ["maximize" if objective.mode == "max" else "minimize" for objective in self.objectives]

    @property
    def names(self) -> list[str]:
        """The metrics that a report needs, the deciding one first."""
        improved, required = (part.metric for part in self.objectives), (part.metric for part in self.requires)
        return list(dict.fromkeys([*improved, *required]))

    def values(self, measures: Mapping[str, float]) -> list[float]:
        """The value of each objective."""
        return [measures[objective.metric] for objective in self.objectives]

    def signed(self, measures: Mapping[str, float]) -> tuple[float, ...]:
        """The value of each objective with a sign, so that more is better."""
        values = zip(self.objectives, self.values(measures), strict=True)
        return tuple(value if objective.mode == "max" else -value for objective, value in values)

    def measured(self, measures: Mapping[str, float]) -> bool:
        """Whether a report has a finite value of every metric that it needs."""
        return all(math.isfinite(measures.get(name, math.nan)) for name in self.names)

    def violations(self, measures: Mapping[str, float]) -> dict[str, float]:
        """The violation of each requirement."""
        return {str(requirement): requirement.violation(measures) for requirement in self.requires}

    def broken(self, measures: Mapping[str, float]) -> list[str]:
        """The requirements that a report does not keep."""
        return [name for name, violation in self.violations(measures).items() if not violation <= 0]

    def rank(self, measures: Mapping[str, float]) -> tuple[float, ...]:
        """The more, the better is a report: by the violation of the requirements, then by the metrics in order."""
        excess = sum(max(0.0, violation) for violation in self.violations(measures).values())
        return (-excess, *self.signed(measures))

    def reached(self, value: float, wanted: float) -> bool:
        """Whether a value is as good as the wanted one; NaN is not."""
        return value >= wanted if self.mode == "max" else value <= wanted


@dataclass(frozen=True)
class Budget:
    """The limits of a sweep, of which the first one ends it, and its retries.

    trials:         number of trials
    max_concurrent: trials at once; None: as many as fit into the cluster
    seconds:        duration of the whole sweep; running trials end with a checkpoint
    gpu_hours:      GPUs x hours over all trials (without GPUs, CPU workers x hours)
    retries:        retries of a trial after infrastructure failures, in one process of the sweep
    stop_at:        value of the goal's metric at which the sweep ends
    """

    trials: int
    max_concurrent: int | None = None
    seconds: float | None = None
    gpu_hours: float | None = None
    retries: int = 2
    stop_at: float | None = None


@dataclass(frozen=True)
class SweepTracking:
    """The sweep's own run in MLflow, under which its trials' runs are nested.

    uri:    of MLflow's store or server
    parent: id of the sweep's run
    key:    prefix of the tags that identify its runs
    """

    uri: str
    parent: str | None
    key: str


@dataclass(frozen=True)
class Sweep:
    """One sweep.

    run:      its name; its folder is `storage`/`run`, and each trial is an ordinary training run in trials/ID/STAGE
    stages:   trained one after the other in every trial; the goal is a metric of the last one
    config:   the recipe with --config and --set, which a trial's settings override
    encoders: checkpoint that all trials share, for stages that need encoders but do not train them
    judges:   folder of judges that measure the images of stage `images`; None: no judges
    tracking: its run in MLflow; None: trials are not tracked
    pbt_quantile, pbt_interval: share of a population that is replaced, and steps between replacements; None: at
              every report
    points:   settings of the first trials; the search chooses those of the others
    """

    run: str
    stages: tuple[str, ...]
    config: Config
    data: Path | str
    storage: str
    space: Space
    goal: Goal
    budget: Budget
    search: Search = "random"
    scheduler: Scheduler = "asha"
    seed: int = 0
    encoders: Path | None = None
    tracking: SweepTracking | None = None
    pbt_quantile: float = 0.25
    pbt_interval: int | None = None
    points: tuple[Mapping[str, Any], ...] = ()
    judges: Path | None = None

    @property
    def stage(self) -> str:
        """The last stage, which has the goal's metric."""
        return self.stages[-1]

    def store(self) -> Storage:
        """The sweep's storage."""
        return Storage(self.storage).child(self.run)
