"""What a sweep is: inert data. How it is run is in `tune.engine.engine`, what came of it in `tune.sweep.results`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from objgan.config import Config
from pipelines.storage.storage import Storage
from tune.space.space import Space

Search = Literal["random", "optuna"]
Scheduler = Literal["asha", "median", "pbt", "none"]


@dataclass(frozen=True)
class Goal:
    """The held-out measure that a sweep improves, by the name under which the last stage tells it."""

    metric: str
    mode: Literal["max", "min"]

    def better(self, one: float, other: float) -> bool:
        """Whether `one` is strictly better."""
        return one > other if self.mode == "max" else one < other


@dataclass(frozen=True)
class Budget:
    """Where a sweep ends, whichever comes first, and how patient it is.

    trials:         how many settings are tried
    max_concurrent: trials at once; None: as many as the cluster has room for
    seconds:        of the whole sweep; running trials end with a checkpoint
    gpu_hours:      GPUs x hours (CPU workers count where there is no GPU) over all trials
    retries:        how often a trial runs again in one process of the sweep after an infrastructure failure
    """

    trials: int
    max_concurrent: int | None = None
    seconds: float | None = None
    gpu_hours: float | None = None
    retries: int = 2


@dataclass(frozen=True)
class SweepTracking:
    """The sweep's own run in MLflow, under which its trials' runs are nested.

    uri:    of MLflow's store or server
    parent: id of the sweep's run
    key:    what the tags of its runs begin with, so that they are found again
    """

    uri: str
    parent: str | None
    key: str


@dataclass(frozen=True)
class Sweep:
    """One sweep.

    run:      its name; it lives in `storage`/`run`, each trial as `run`/trials/ID/STAGE, an ordinary training run
    stages:   trained one after the other in every trial; the goal is the last one's
    config:   the recipe with --config and --set; a trial's settings go over it
    encoders: checkpoint that all trials share, for stages that need encoders and do not train them
    tracking: where trials tell MLflow; None: nowhere
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

    @property
    def stage(self) -> str:
        """The stage whose measure counts."""
        return self.stages[-1]

    def store(self) -> Storage:
        """Where the sweep lives."""
        return Storage(self.storage).child(self.run)
