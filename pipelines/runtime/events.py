"""Typed events of a training run.

Workers and Ray Train's controller report them to the RunCoordinator, the driver takes them from there, and all
listeners (the terminal, `progress.jsonl`, `status.json`, Prometheus, a sweep's trial) get the same objects.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from pipelines.redaction import redact_all

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Began:
    """Workers began to train. The RunCoordinator fills in `restarts` and `reason`.

    step:       first step
    steps:      total number of steps
    workers:    number of workers
    skipped:    number of steps skipped so far
    checkpoint: the workers resume from it; None: they start from scratch
    restarts:   number of earlier starts of workers in this command
    reason:     why the previous workers ended, if it is known
    """

    kind: ClassVar[str] = "began"
    step: int
    steps: int
    workers: int = 1
    skipped: int = 0
    checkpoint: str | None = None
    restarts: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Pace:
    """Timing of a log interval: steps, seconds of each step, and seconds that the loop waited for data."""

    steps: int = 0
    seconds: tuple[float, ...] = ()
    waited: float = 0.0


@dataclass(frozen=True)
class Logged:
    """A log interval ended.

    values: mean values by name
    pace:   not written to `progress.jsonl`, which would become too large
    """

    kind: ClassVar[str] = "logged"
    step: int
    steps: int
    values: Mapping[str, float]
    skipped: int = 0
    pace: Pace | None = None


@dataclass(frozen=True)
class Validated:
    """Held-out measures of a step, by name."""

    kind: ClassVar[str] = "validated"
    step: int
    steps: int
    measures: Mapping[str, float]


@dataclass(frozen=True)
class Saved:
    """A checkpoint is complete. seconds: time to write it, in parallel with training."""

    kind: ClassVar[str] = "saved"
    step: int
    checkpoint: str
    seconds: float | None = None


@dataclass(frozen=True)
class Skipped:
    """A step was skipped because a value was not finite. skipped: steps skipped so far; term: `phase/term`."""

    kind: ClassVar[str] = "skipped"
    step: int
    skipped: int
    term: str | None = None


@dataclass(frozen=True)
class WorkerFailed:
    """A worker died or raised an error. Workers start again if `training.max_failures` allows it.

    failures: number of failures of workers in this command, with this one
    """

    kind: ClassVar[str] = "worker_failed"
    rank: int
    reason: str
    failures: int = 1

    def __str__(self) -> str:
        return f"worker {self.rank} failed: {self.reason}"


@dataclass(frozen=True)
class Stopping:
    """The workers write a last checkpoint and exit."""

    kind: ClassVar[str] = "stopping"
    step: int
    reason: str


@dataclass(frozen=True)
class Warned:
    """A warning for people; training continues."""

    kind: ClassVar[str] = "warning"
    text: str


Event = Began | Logged | Validated | Saved | Skipped | WorkerFailed | Stopping | Warned
Listener = Callable[[Event], None]
"""The driver's main thread calls it, in the order of the events; it must not block."""


def facts(event: Event) -> dict[str, Any]:
    """The event as JSON: its kind under `event`, and its fields."""
    values = {field.name: getattr(event, field.name) for field in fields(event) if field.name != "pace"}
    return {"event": event.kind, **values}


class Recorder:
    """A listener that appends every event to a file, one JSON object a line, with the time in unix seconds.

    An error of the file is logged once and does not stop the run, which resumes from its checkpoints alone.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._broken = path, False

    def __call__(self, event: Event) -> None:
        """Append the event."""
        try:
            with self._path.open("a") as file:
                file.write(json.dumps({"time": time.time(), **redact_all(facts(event))}) + "\n")
        except OSError as error:
            if not self._broken:
                logger.warning("cannot write %s (%s); training continues", self._path, error.strerror)
            self._broken = True
