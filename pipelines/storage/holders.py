"""Who holds a run, written down so that others, on this machine or another, can judge whether it still lives."""

import os
import shlex
import socket
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from objgan.errors import InputError
from pipelines.redaction import typed_again
from pipelines.storage.storage import Storage

LEASE = "lease.json"
BEATS = ".lease"


@dataclass(frozen=True)
class LeaseInfo:
    """A lease as it stands in storage, with its holder's last sign of life. Times are in seconds since 1970.

    machine:          one boot of one machine, and the process namespace in it; pids mean something only within
    process_started:  clock ticks after the boot, which tells a process from a later one of the same pid
    beat, time:       count and time (by the holder's clock) of the last sign of life
    ttl:              seconds without a sign of life after which others may take the run
    """

    token: str
    host: str
    machine: str
    pid: int
    process_started: int
    command: str
    started: float
    ttl: float
    beat: int = 0
    time: float = 0.0

    @classmethod
    def of_this_process(cls, token: str, ttl: float, who: str | None = None) -> Self:
        """This process as a holder; `who` says what it does (default: its command line, without secrets)."""
        command = who or typed()
        pid, now = os.getpid(), time.time()
        return cls(token, socket.gethostname(), _machine(), pid, _started(pid) or 0, command, now, ttl, time=now)

    @property
    def is_gone(self) -> bool:
        """Whether the holder was a process of this machine that has ended."""
        return bool(self.machine) and self.machine == _machine() and _started(self.pid) != self.process_started

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is a process of another machine (or of another container), of which only its signs tell."""
        return self.machine != _machine()

    @property
    def age(self) -> float:
        """Seconds since the last sign of life, if its clock and ours agree."""
        return time.time() - self.time

    @property
    def seems_alive(self) -> bool:
        """What can be said without watching it: not gone, and with a sign of life not older than `ttl`."""
        return not self.is_gone and self.age <= self.ttl

    @property
    def interval(self) -> float:
        """Seconds between signs of life."""
        return self.ttl / 5

    def __str__(self) -> str:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        return f"process {self.pid} on {self.host} since {began} ({self.command})"

    def fixed(self) -> dict[str, Any]:
        """What stands in `lease.json`: all but the signs of life, which have a file of their own."""
        return {name: value for name, value in asdict(self).items() if name not in ("beat", "time")}


def holder(storage: Storage) -> LeaseInfo | None:
    """Who holds the run in `storage`, dead or alive; None where nobody does.

    Raises:
        InputError: `lease.json` is not a lease.
    """
    facts = storage.json(LEASE)
    if facts is None:
        return None
    known = {f.name for f in fields(LeaseInfo)}
    try:
        beat = storage.json(f"{BEATS}/{facts['token']}.json") or {"beat": 0, "time": facts["started"]}
        return LeaseInfo(**{name: value for name, value in (facts | beat).items() if name in known})
    except (TypeError, KeyError):
        raise InputError(f"{storage}/{LEASE} is not a lease: delete it if no run is under way") from None


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process of this machine started, in clock ticks after the boot; None if there is none or it has ended."""
    try:
        # The name, in brackets, may hold anything; the fields after it are state, parent, ... (proc(5)).
        fields_after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields_after[0] in "ZX" else int(fields_after[19])


def typed() -> str:
    """The command line to type again: without passwords, but with the endpoint and region that a URI names."""
    program, *words = sys.argv
    path = Path(program)
    start = ["python", "-m", path.parent.name] if path.name == "__main__.py" else [program]
    return shlex.join([*start, *map(typed_again, words)])
