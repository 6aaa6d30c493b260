"""What happens in a training run, as typed events.

Workers and Ray Train's controller report them to the board, the driver takes them from there, and every listener (the
terminal, `progress.jsonl`, `status.json`, Prometheus, a sweep's trial) gets these same objects.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from pipelines.redaction import redact_all


@dataclass(frozen=True)
class Began:
    """Workers began to train. The board fills in `restarts` and `reason`.

    step:       that they begin at
    steps:      in all
    workers:    number of workers
    skipped:    steps left out so far
    checkpoint: that they resume from; None: from nothing
    restarts:   times that workers had begun before in this command
    reason:     why the workers before them ended, where that is known
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
    """The time of a log interval: steps, the seconds of each of them, and the seconds that the loop waited for data."""

    steps: int = 0
    seconds: tuple[float, ...] = ()
    waited: float = 0.0


@dataclass(frozen=True)
class Logged:
    """A log interval ended.

    values: means by name
    pace:   not written to `progress.jsonl`, which would grow too large
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
    """A checkpoint is complete. seconds: that it took to write, beside training."""

    kind: ClassVar[str] = "saved"
    step: int
    checkpoint: str
    seconds: float | None = None


@dataclass(frozen=True)
class Skipped:
    """A step was left out because a number was not finite. skipped: steps left out so far; term: `phase/term`."""

    kind: ClassVar[str] = "skipped"
    step: int
    skipped: int
    term: str | None = None


@dataclass(frozen=True)
class WorkerFailed:
    """A worker died or raised an error. Workers start again if `training.max_failures` allows it.

    failures: of workers in this command, this one included
    """

    kind: ClassVar[str] = "worker_failed"
    rank: int
    reason: str
    failures: int = 1

    def __str__(self) -> str:
        return f"worker {self.rank} failed: {self.reason}"


@dataclass(frozen=True)
class Stopping:
    """The workers write a last checkpoint and end."""

    kind: ClassVar[str] = "stopping"
    step: int
    reason: str


@dataclass(frozen=True)
class Warned:
    """Something that people should know; training goes on."""

    kind: ClassVar[str] = "warning"
    text: str


Event = Began | Logged | Validated | Saved | Skipped | WorkerFailed | Stopping | Warned
Listener = Callable[[Event], None]
"""Called by the driver's main thread, in the order of the events; it must not block."""


def facts(event: Event) -> dict[str, Any]:
    """The event as JSON: its kind under `event`, and its fields."""
    values = {field.name: getattr(event, field.name) for field in fields(event) if field.name != "pace"}
    return {"event": event.kind, **values}


class Recorder:
    """A listener that appends every event to a file, one JSON object a line, with the time in unix seconds.

    A file that cannot be written is logged once, and stops nothing: the checkpoints decide what becomes of the run.
    """

    def __init__(self, path: Path, log: Callable[[str], None]) -> None:
        self._path, self._log, self._broken = path, log, False

    def __call__(self, event: Event) -> None:
        """Append the event."""
        try:
            with self._path.open("a") as file:
                file.write(json.dumps({"time": time.time(), **redact_all(facts(event))}) + "\n")
        except OSError as error:
            if not self._broken:
                self._log(f"warning: cannot write {self._path} ({error.strerror}); training continues")
            self._broken = True
