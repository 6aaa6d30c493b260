"""Sweeps in a storage as seen from outside, by the files that `tune` keeps there: how each stands, what resumes it."""

import re
import shlex
from dataclasses import dataclass
from typing import Any

from objgan.errors import InputError
from pipelines.command_line import counted
from pipelines.redaction import typed_again
from pipelines.storage.lease import LEASE, LeaseInfo, holder
from pipelines.storage.storage import Storage
from pipelines.tracking.offline_queue import shown

_SWEEP, _STATE = "sweep.json", "state.json"
GOAL_REACHED = "the goal is reached"
"""Why a sweep ended that has a report as good as `--stop-at`."""
_WITHIN = re.compile(r"^(?P<sweep>.+)/(?P<what>trials|confirm)/[^/]+(/segment_\d+)?/[^/]+$")


def needed_to_resume(reason: str) -> str:
    """What a resumed sweep needs, if this ended it before its last trial."""
    return "another --stop-at" if reason == GOAL_REACHED else "a larger budget"


@dataclass(frozen=True)
class SeenSweep:
    """A sweep as it stands.

    location: of the storage, relative to the working directory, or its URI
    name:     the sweep's folder in it
    state:    running, interrupted, incomplete or finished; begun (no state yet), dead (killed) or unreadable
    left:     trials that have not ended; None: not known
    """

    location: str
    name: str
    storage: Storage
    state: str
    alive: bool
    held: LeaseInfo | None
    reason: str | None = None
    left: int | None = None

    @property
    def to_resume(self) -> str | None:
        """The command that resumes it; None: it is under way, or nothing is left to do."""
        if self.alive or (self.state == "finished" and not self.left):
            return None
        command = resume_command(self.location, self.name)
        if self.state == "finished" and self.reason:
            command += f" with {needed_to_resume(self.reason)}"
        return command

    def text(self) -> str:
        """Everything worth knowing about it, a line each."""
        why = f" ({self.reason})" if self.reason else ""
        held = f", held by {self.held}" if self.alive else ""
        lines = [f"{self.name} (sweep)", f"  state       {self.state}{why}{held}"]
        if self.left:
            lines.append(f"  left        {counted(self.left, 'trial')} not ended")
        if self.to_resume:
            lines.append(f"  to resume   {self.to_resume}")
        return "\n".join(lines)

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        names = ("name", "state", "alive", "reason", "left")
        facts = {name: getattr(self, name) for name in names}
        return {"sweep": facts.pop("name"), **facts, "folder": str(self.storage), "to_go_on": self.to_resume}


def find_sweep(base: Storage, name: str) -> SeenSweep | None:
    """The sweep of that name in a storage; None: there is none."""
    storage = base.child(name)
    if not storage.exists(_SWEEP):
        return None
    held, facts, state = None, None, None
    try:
        held = holder(storage) if storage.exists(LEASE) else None
        facts = storage.json(_STATE)
        state = "begun" if facts is None else str(facts["state"])
    except (InputError, TypeError, KeyError):
        state = "unreadable"
    facts = facts if isinstance(facts, dict) else {}
    alive = held is not None and held.seems_alive
    if state in ("running", "begun"):
        state = "running" if alive else "dead" if state == "running" else state
    left = facts.get("left") if isinstance(facts.get("left"), int) else None
    return SeenSweep(typed(base), name, storage, state, alive, held, facts.get("reason"), left)


def sweep_above(base: Storage, run: str) -> tuple[SeenSweep, bool] | None:
    """The sweep that a run is a trial of, or (True) a run of its confirmation; None: it is an ordinary run."""
    match = _WITHIN.match(run)
    sweep = None if match is None else find_sweep(base, match["sweep"])
    return None if match is None or sweep is None else (sweep, match["what"] == "confirm")


def typed(base: Storage) -> str:
    """A storage as it may be typed: relative to the working directory, or its URI."""
    return base.address if base.local is None else shown(base)


def resume_command(location: str, run: str) -> str:
    """What to type to resume a sweep in the storage `location`, as it was typed but for a password in it."""
    return f"python -m tune --resume {shlex.quote(run)}{storage_option(location)}"


def storage_option(location: str) -> str:
    """The option that names a storage, with a blank before it; nothing for `runs`, its default."""
    place = shlex.quote(typed_again(location))
    return "" if place == "runs" else f" --storage {place}"
