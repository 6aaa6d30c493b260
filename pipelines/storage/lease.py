"""A lease for one driver at a time, in the run's own storage, renewed by heartbeats.

`lease.json` says who holds the run and changes only when the holder does. Signs of life go to `.lease/TOKEN.json`, so
that a holder that wakes late never writes over its successor's lease.

Of two that come at the same moment exactly one wins. In a folder, a lock of the kernel and an exclusive link see to
it. An object store has neither: each writes its token, waits `SETTLE` seconds and reads again, and the last to write
has won. This is exact while a read and a put together take less than that. Were they slower, the earlier winner
learns at its next sign of life or at its next `fence` that it has lost; which is also what happens to a holder that
slept. Between a fence and the write it protects there is a moment that no such scheme can close: what is written
behind a fence should therefore be whole in itself and replace nothing of another's, as checkpoints are.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import logging
import os
import secrets
import shlex
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from objgan.errors import InputError
from pipelines.redaction import typed_again
from pipelines.storage.file_lock import is_at
from pipelines.storage.storage import Storage

logger = logging.getLogger(__name__)
LEASE = "lease.json"
BEATS = ".lease"

TTL = 30.0
SETTLE = 1.0
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}


@dataclass(frozen=True)
class LeaseInfo:
    """A lease as it stands in storage, with its holder's last sign of life. Times are in seconds since 1970.

    machine:          one boot of one machine, and the process namespace in it; pids mean something only within
    process_started:  clock ticks after the boot, which distinguish a process from a later one of the same pid
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
        """Whether it is a process of another machine (or of another container), known only by its heartbeats."""
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


class LeaseLost(RuntimeError):
    """Another driver holds the run now; this process must not write to it any more."""


def fence(storage: Storage, token: str) -> None:
    """See that the run is still held under `token`; for workers, who have nothing but these two.

    Raises:
        LeaseLost: another holds it, or nobody.
    """
    facts = storage.json(LEASE)
    if isinstance(facts, dict) and facts.get("token") == token:
        return
    there = holder(storage)
    if there is None:
        raise LeaseLost(f"the run in {storage} is no longer held by anyone ({LEASE} is gone): stopping")
    raise LeaseLost(f"the run in {storage} was taken over by {there}: stopping")


def check_free(storage: Storage) -> None:
    """See that no living driver seems to hold the run, without taking it.

    Raises:
        InputError: one does.
    """
    there = holder(storage)
    if there is not None and there.seems_alive:
        raise _held_by(storage, there)


def _held_by(storage: Storage, there: LeaseInfo) -> InputError:
    return InputError(f"the run in {storage} is held by {there}: wait for it to end (--wait SECONDS), or stop it")


class Lease:
    """A held run; get one from `acquire`. Leaving the `with` block, well or not, gives the run free."""

    def __init__(self, storage: Storage, info: LeaseInfo) -> None:
        self.storage, self.info, self.token = storage, info, info.token
        self.lost = threading.Event()
        """Set as soon as the heartbeat sees that another holds the run."""
        self._hasty = storage.patient(info.interval)
        self._reason: LeaseLost | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="lease", daemon=True)

    @classmethod
    def acquire(cls, storage: Storage, ttl: float = TTL, who: str | None = None, wait: float | None = None) -> Self:
        """Take the run, also from a holder that is dead.

        Dead is a holder of this machine whose process is gone, at once; one whose last sign of life is older than its
        `ttl` and that gives none for an interval and a half now; or one that was seen to give none for `ttl`. One of
        another machine is watched until it gives a sign of life, or is dead.

        Args:
            storage: of the run
            ttl: seconds without a sign of life after which others may take it
            who: what holds it, for those who are refused (default: the command line)
            wait: seconds to queue for it instead of being refused at once

        Raises:
            InputError: a living driver holds the run.
        """
        info = LeaseInfo.of_this_process(secrets.token_hex(8), ttl, who)
        watch = _Watch(storage, wait)
        while True:
            there = holder(storage)
            if there is None or watch.is_dead(there):
                if _claim(storage, info, there):
                    if there is not None:
                        logger.info(f"took the run in {storage} over from {there}, which is dead")
                        storage.delete(f"{BEATS}/{there.token}.json")
                    lease = cls(storage, info)
                    lease._thread.start()
                    return lease
            else:
                watch.pause(there)

    def check(self) -> None:
        """See that the run is still ours.

        Raises:
            LeaseLost: it is not.
        """
        if self._reason is not None:
            raise self._reason
        if time.time() - self.info.time > self.info.ttl:
            # We may have slept, and another may be about to judge us dead: show life before looking.
            self._beat(self.storage)
        self._look(self.storage)

    def release(self) -> None:
        """Give the run free; quiet if it is lost. Where storage is away the lease runs out by itself."""
        self._end.set()
        self._thread.join(timeout=2 * self.info.interval)
        try:
            with _guard(self._hasty, self.info.interval) as guarded:
                self._hasty.delete(f"{BEATS}/{self.token}.json")
                with contextlib.suppress(LeaseLost):
                    fence(self._hasty, self.token)
                    if guarded and self.storage.local is not None:
                        # Nobody claims a run that has a lease: what else is there was left by dead holders.
                        shutil.rmtree(self.storage.local / BEATS, ignore_errors=True)
                    self._hasty.delete(LEASE)
        except (OSError, InputError) as error:
            logger.info(f"the lease in {self.storage} could not be given back ({error}): it runs out by itself")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _keep_up(self) -> None:
        away = False
        while not self._end.wait(self.info.interval):
            try:
                self._beat(self._hasty)
                self._look(self._hasty)
                away = False
            except LeaseLost:
                return
            except (OSError, InputError) as error:
                # Nobody loses a run because storage is away: whose it is, storage says when it is back.
                if not away:
                    logger.info(f"no sign of life could be given ({error}): trying again")
                away = True

    def _beat(self, storage: Storage) -> None:
        info = dataclasses.replace(self.info, beat=self.info.beat + 1, time=time.time())
        storage.write(f"{BEATS}/{self.token}.json", json.dumps({"beat": info.beat, "time": info.time}) + "\n")
        self.info = info

    def _look(self, storage: Storage) -> None:
        try:
            fence(storage, self.token)
        except LeaseLost as error:
            self._reason = error
            self.lost.set()
            raise


class _Watch:
    """How long a holder has been seen to give no sign of life, by our clock alone."""

    def __init__(self, storage: Storage, wait: float | None) -> None:
        self._storage, self._wait, self._began = storage, wait, time.monotonic()
        self._sign: tuple[str, int] | None = None
        self._changes, self._since, self._told = 0, 0.0, False

    def is_dead(self, there: LeaseInfo) -> bool:
        """Whether that holder may be taken for dead by now; to be asked again and again."""
        now, sign = time.monotonic(), (there.token, there.beat)
        if sign != self._sign:
            self._changes += self._sign is not None
            self._sign, self._since = sign, now
        return there.is_gone or now - self._since >= self._silence(there)

    def pause(self, there: LeaseInfo) -> None:
        """Wait a little before the next look.

        Raises:
            InputError: there is nothing to wait for, or no more time.
        """
        # A driver whose machine died a moment ago looks like one that lives, and a job that starts anew elsewhere must
        # not be refused for good on its account; clocks may differ, too. Only watching decides.
        unclear = self._changes == 0 and (there.is_elsewhere or not 0 <= there.age <= there.ttl)
        queue = self._wait is not None and time.monotonic() - self._began < self._wait
        if not unclear and not queue:
            raise _held_by(self._storage, there)
        if not self._told:
            doing = "watching it" if unclear else "waiting for it"
            logger.info(f"the run in {self._storage} is held by {there}: {doing}")
            self._told = True
        time.sleep(min(0.5, there.interval / 4))

    def _silence(self, there: LeaseInfo) -> float:
        stale = there.age > there.ttl and self._changes == 0
        return 1.5 * there.interval if stale else there.ttl


def _claim(storage: Storage, info: LeaseInfo, dead: LeaseInfo | None) -> bool:
    """Write our lease in place of `dead` (None: where there is none); whether it is ours now."""
    text = json.dumps(info.fixed(), indent=1) + "\n"
    with _guard(storage, info.ttl) as guarded:
        storage.write(f"{BEATS}/{info.token}.json", json.dumps({"beat": 0, "time": time.time()}) + "\n")
        now = holder(storage)
        same = now is dead if now is None or dead is None else (now.token, now.beat) == (dead.token, dead.beat)
        won = same and (_create(storage, text) if dead is None else _replace(storage, text))
    if won and not (guarded and (dead is None or dead.is_gone)):
        time.sleep(SETTLE)
        there = holder(storage)
        won = there is not None and there.token == info.token
    if not won:
        storage.delete(f"{BEATS}/{info.token}.json")
    return won


def _replace(storage: Storage, text: str) -> bool:
    storage.write(LEASE, text)
    return True


def _create(storage: Storage, text: str) -> bool:
    """Write `lease.json` unless there is one; exact in a folder."""
    if storage.local is None:
        return _replace(storage, text)
    aside = f"{BEATS}/{secrets.token_hex(8)}"
    storage.write(aside, text)
    try:
        os.link(storage.local / aside, storage.local / LEASE)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _replace(storage, text)
    finally:
        storage.delete(aside)
    return True


@contextlib.contextmanager
def _guard(storage: Storage, patience: float) -> Iterator[bool]:
    """Keep other processes of this machine out; whether that worked (not in an object store, nor on some mounts)."""
    if storage.local is None:
        yield False
        return
    path = storage.local / BEATS / "lock"
    while True:
        with _lock_file(path) as file:
            guarded = _locked(file.fileno(), patience)
            if not guarded or is_at(path, file):
                yield guarded
                return


def _lock_file(path: Path) -> IO[str]:
    """The open lock file. A holder that gives the run free may remove its folder at any moment: then it is made anew.

    Raises:
        InputError: no folder can be made there.
    """
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("a")
    raise InputError(f"cannot write to {path.parent}: choose another folder")


def _locked(descriptor: int, patience: float, clock: Callable[[], float] = time.monotonic) -> bool:
    """Try for a while: a process that sleeps while it holds the lock must not hold up all others for ever."""
    deadline = clock() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock() > deadline:
                return False
            time.sleep(0.02)
        except OSError:
            return False
        else:
            return True
