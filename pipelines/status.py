"""`status.json` of a run: what it is doing, for whoever looks from outside."""

import json
import math
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from objgan.errors import InputError
from pipelines.storage import Storage

FILE = "status.json"
VERSION = 1
State = Literal["running", "finished", "failed", "preempted", "stopped"]


@dataclass(frozen=True)
class CheckpointNote:
    """The last checkpoint: name of its folder, its step, when it was complete (unix seconds)."""

    name: str
    step: int
    time: float


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands; written at log intervals, so `updated` is its last sign of life."""

    state: State
    stage: str
    step: int = 0
    steps: int = 0
    samples_per_s: float | None = None
    seconds_per_step: float | None = None
    eta_s: float | None = None
    checkpoint: CheckpointNote | None = None
    error: str | None = None
    """The last error, in one line; also of a run that went on after it."""
    skipped: int = 0
    """Steps whose gradients were not finite and were left out."""
    restarts: int = 0
    workers: int = 0
    mlflow_run: str | None = None
    reason: str | None = None
    """Why the state is what it is, where that needs saying: `preempted` by what, `stopped` by whom."""
    command: str | None = None
    """What was typed, so that it can be typed again."""
    updated: float = field(default_factory=time.time)
    """Unix seconds."""
    version: int = VERSION

    def save(self, storage: Storage) -> None:
        """Write `status.json` whole; JSON has no NaN and no infinity: such a number is left out."""
        facts = {name: _finite(value) for name, value in asdict(self).items()}
        storage.write(FILE, (json.dumps(facts, indent=1) + "\n").encode())

    @classmethod
    def load(cls, storage: Storage) -> "RunStatus | None":
        """The status that a run left; None where there is none yet.

        What a newer version added is passed over.

        Raises:
            InputError: the file is not a status.
        """
        if not storage.exists(FILE):
            return None
        where = f"{storage}/{FILE}"
        try:
            facts = json.loads(storage.read(FILE))
            return cls(**_known(facts))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"status of the run: {where} cannot be read ({error}); remove it, the run goes on"
            ) from None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _known(facts: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(RunStatus)}
    known = {name: value for name, value in facts.items() if name in names}
    if known["state"] not in get_args(State):
        raise ValueError(f"unknown state {known['state']!r}")
    for name in ("step", "steps", "skipped", "restarts", "workers", "updated"):
        if name in known and not isinstance(known[name], int | float):
            raise ValueError(f"{name} is not a number")
    note = known.get("checkpoint")
    if note is not None:
        known["checkpoint"] = CheckpointNote(str(note["name"]), int(note["step"]), float(note["time"]))
    return known
