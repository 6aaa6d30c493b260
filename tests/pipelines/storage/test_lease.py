"""Leases between genuine processes: killed, stopped, and started at the same moment.

Where only time decides, the lease has a clock of the test's own, and nobody waits.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from objgan.errors import InputError
from pipelines.storage import lease as lease_module
from pipelines.storage.lease import BEATS, LEASE, Lease, LeaseInfo, LeaseLost, fence, holder
from pipelines.storage.storage import Storage

_HOLD = """
import sys
from pipelines.storage.lease import Lease, LeaseLost
from pipelines.storage.storage import Storage
with Lease.acquire(Storage(sys.argv[1]), ttl=float(sys.argv[2]), who="a test") as lease:
    print("held", flush=True)
    for line in sys.stdin:
        try:
            lease.check()
            print("mine", flush=True)
        except LeaseLost as error:
            print(f"lost {lease.lost.is_set()} {error}", flush=True)
"""
# One process imports, its children race: they start at the same instant, and hold what they got for a while.
_RACE = """
import os, sys, time
from objgan.errors import InputError
from pipelines.storage.lease import Lease
from pipelines.storage.storage import Storage
place, rounds, racers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(rounds):
    start, children = time.time() + 0.1, []
    folder = place.replace("NUMBER", str(number))
    for _ in range(racers):
        child = os.fork()
        if not child:
            storage = Storage(folder)
            storage.names()
            time.sleep(max(0, start - time.time()))
            try:
                with Lease.acquire(storage):
                    time.sleep(0.4 if storage.local else 2.5)
                    os._exit(7)
            except InputError:
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    print(codes, flush=True)
"""


@contextlib.contextmanager
def _holder(place: str, repository: Path, ttl: float = 30.0) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, place, str(ttl)],
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


def _ask(process: subprocess.Popen) -> str:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline()


class Clock:
    """Stands in for the module `time`: to sleep is to move it, and what was planned happens on the way."""

    strftime, localtime = staticmethod(time.strftime), staticmethod(time.localtime)

    def __init__(self) -> None:
        self._epoch, self._now = time.time(), 0.0
        self._plans: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self._epoch + self._now

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        end = self._now + seconds
        while self._plans and self._plans[0][0] <= end:
            self._now, act = self._plans.pop(0)
            act()
        self._now = end

    def plan(self, *plans: tuple[float, Callable[[], object]]) -> None:
        """Do these things so many seconds from now, instead of what was planned before."""
        self._plans = [(self._now + seconds, act) for seconds, act in plans]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all leases of this process."""
    made = Clock()
    monkeypatch.setattr(lease_module, "time", made)
    return made


def _foreign(storage: Storage, age: float, ttl: float = 1.0) -> LeaseInfo:
    """A lease of another machine, its last sign of life `age` seconds ago."""
    info = dataclasses.replace(
        LeaseInfo.of_this_process("f" * 16, ttl, "another"), host="far", machine="boot/ns", beat=7
    )
    storage.write(LEASE, json.dumps(info.fixed()))
    _sign(storage, info, age)
    return info


def _sign(storage: Storage, info: LeaseInfo, age: float = 0.0, beat: int = 7) -> None:
    now = lease_module.time.time()
    storage.write(f"{BEATS}/{info.token}.json", json.dumps({"beat": beat, "time": now - age}))


def test_a_run_is_held_and_given_back(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    assert holder(storage) is None
    with Lease.acquire(storage, ttl=0.5, who="the test") as lease:
        there = holder(storage)
        assert there is not None
        assert (there.pid, there.command, there.token) == (os.getpid(), "the test", lease.token)
        assert there.seems_alive and not there.is_gone
        lease.check()
        fence(storage, lease.token)
        with pytest.raises(InputError, match=rf"held by process {os.getpid()} on .* \(the test\): wait for it"):
            Lease.acquire(storage)
        time.sleep(0.35)
        later = holder(storage)
        assert later is not None and later.beat > there.beat and later.time > there.time
    assert holder(storage) is None
    assert storage.names(hidden=True) == [], "nothing is left behind"
    with pytest.raises(RuntimeError, match="on purpose"), Lease.acquire(storage):
        raise RuntimeError("on purpose")
    assert holder(storage) is None


def test_a_bucket_is_held_alike(s3: str) -> None:
    storage = Storage(s3)
    with Lease.acquire(storage) as lease:
        fence(storage, lease.token)
        with pytest.raises(InputError, match="held by process"):
            Lease.acquire(storage)
        with pytest.raises(LeaseLost, match="taken over by"):
            fence(storage, "another")
    assert storage.names(hidden=True) in ([], [BEATS])


def test_a_second_process_is_refused_and_a_killed_one_is_followed_at_once(
    tmp_path: Path, repository: Path, logs: list[str]
) -> None:
    storage = Storage(tmp_path)
    with _holder(str(tmp_path), repository) as process:
        with pytest.raises(InputError, match=f"held by process {process.pid} on .* since .*a test.*: wait for it"):
            Lease.acquire(storage)
        process.send_signal(signal.SIGKILL)
        process.wait()
        there = holder(storage)
        assert there is not None and there.is_gone and not there.seems_alive
        began = time.monotonic()
        with Lease.acquire(storage):
            assert time.monotonic() - began < 1
    assert f"over from process {process.pid}" in logs[0]


def test_a_later_process_of_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    ours = LeaseInfo.of_this_process("f" * 16, 30.0)
    before = dataclasses.replace(ours, process_started=ours.process_started - 1)
    storage.write(LEASE, json.dumps(before.fixed()))
    with Lease.acquire(storage):
        pass


def test_a_driver_can_queue(tmp_path: Path, repository: Path) -> None:
    with _holder(str(tmp_path), repository) as process:
        with pytest.raises(InputError, match="held by"):
            Lease.acquire(Storage(tmp_path), wait=0.3)
        assert process.stdin is not None
        process.stdin.close()
        with Lease.acquire(Storage(tmp_path), wait=20):
            pass


_TURNS = """
import os, pathlib, sys
from pipelines.storage.lease import Lease
from pipelines.storage.storage import Storage
folder = pathlib.Path(sys.argv[1])
for _ in range(3):
    with Lease.acquire(Storage(folder / "held"), wait=60):
        os.mkdir(folder / "inside")
        os.rmdir(folder / "inside")
"""


def test_those_that_take_turns_leave_nothing(tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "-c", _TURNS, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert Storage(tmp_path / "held").names(hidden=True) == []


def test_a_lock_that_a_holder_removed_keeps_nobody_out_and_lets_nobody_in(tmp_path: Path) -> None:
    storage, lock = Storage(tmp_path), tmp_path / BEATS / "lock"
    lock.parent.mkdir()
    with ThreadPoolExecutor() as pool, lock.open("a") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        waiting = pool.submit(Lease.acquire, storage)
        time.sleep(0.3)
        shutil.rmtree(lock.parent)
        lock.parent.mkdir()
        with lock.open("a") as new:
            fcntl.flock(new, fcntl.LOCK_EX)
            old.close()
            time.sleep(0.5)
            assert holder(storage) is None and not waiting.done(), "it waits for the new lock, not for the removed one"
        waiting.result(timeout=60).release()
    assert storage.names(hidden=True) == []


def test_what_dead_holders_left_is_removed(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    dead = dataclasses.replace(LeaseInfo.of_this_process("f" * 16, 30.0), process_started=1)
    storage.write(LEASE, json.dumps(dead.fixed()))
    for name in (f"{dead.token}.json", f".{dead.token}.json.half", "aside"):
        storage.write(f"{BEATS}/{name}", "{}")
    with Lease.acquire(storage):
        pass
    assert storage.names(hidden=True) == []


def test_a_sleeper_is_taken_over_after_its_time_and_fenced_off_when_it_wakes(tmp_path: Path, repository: Path) -> None:
    storage = Storage(tmp_path)
    with _holder(str(tmp_path), repository, ttl=1.0) as process:
        assert _ask(process) == "mine\n"
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(InputError):
            Lease.acquire(storage)
        with Lease.acquire(storage, wait=20) as lease:
            process.send_signal(signal.SIGCONT)
            assert "taken over by process" in _ask(process)
            time.sleep(0.5)
            assert _ask(process).startswith("lost True"), "the heartbeat has seen it as well"
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)
            lease.check()
            assert not lease.lost.is_set()


def test_a_sleeper_that_nobody_followed_goes_on(tmp_path: Path, repository: Path) -> None:
    with _holder(str(tmp_path), repository, ttl=0.5) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(1)
        process.send_signal(signal.SIGCONT)
        assert _ask(process) == "mine\n"


def test_a_holder_elsewhere_is_followed_only_after_its_time(tmp_path: Path, clock: Clock) -> None:
    storage = Storage(tmp_path)
    info = _foreign(storage, age=0, ttl=2.0)
    clock.plan((0.6, lambda: _sign(storage, info, beat=8)))
    with pytest.raises(InputError, match=r"on far .*: wait for it to end"):
        Lease.acquire(storage)
    assert 0.6 <= clock.monotonic() < 2
    # A machine that died a moment ago says nothing more.
    began = clock.monotonic()
    with Lease.acquire(storage):
        assert 2 <= clock.monotonic() - began < 6


@pytest.mark.parametrize("age", [3600, -3600])
def test_a_holder_whose_clock_is_wrong_is_watched_by_ours(tmp_path: Path, clock: Clock, age: float) -> None:
    """Signs of life that look an hour old, or of an hour ahead, but go on: it lives. If they do not, it is dead."""
    storage = Storage(tmp_path)
    info = _foreign(storage, age, ttl=2.0)
    clock.plan(*((0.2 * n, partial(_sign, storage, info, age, beat=8 + n)) for n in range(1, 33)))
    clock.sleep(0.3)
    with pytest.raises(InputError, match="held by"):
        Lease.acquire(storage)
    clock.plan()
    began = clock.monotonic()
    with Lease.acquire(storage):
        assert clock.monotonic() - began >= (0.6 if age > 0 else 2.0)


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_at_the_same_moment_one_wins(tmp_path: Path, repository: Path, dead: bool) -> None:
    """Ten times three processes, on a free run and on one whose holder is dead."""
    for number in range(10):
        storage = Storage(tmp_path / str(number))
        if dead:
            gone = dataclasses.replace(LeaseInfo.of_this_process("f" * 16, 30.0), process_started=1)
            storage.write(LEASE, json.dumps(gone.fixed()))
    done = subprocess.run(
        [sys.executable, "-c", _RACE, str(tmp_path / "NUMBER"), "10", "3"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[0, 0, 7]"] * 10, done.stderr


def test_in_a_bucket_one_wins(s3: str, repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RACE, s3.replace("/one", "/NUMBER"), "2", "2"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[0, 7]"] * 2, done.stderr


def test_a_lease_that_is_deleted_is_lost(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with Lease.acquire(storage, ttl=0.5) as lease:
        storage.delete(LEASE)
        with pytest.raises(LeaseLost, match="no longer held"):
            lease.check()
        assert lease.lost.wait(1)


def test_a_heartbeat_outlives_storage_that_is_away(tmp_path: Path, logs: list[str]) -> None:
    """The folder of the signs of life is a file for a while: nothing can be written there."""
    with Lease.acquire(Storage(tmp_path), ttl=1.0) as lease:
        (tmp_path / BEATS).rename(tmp_path / "away")
        (tmp_path / BEATS).write_text("")
        time.sleep(0.6)
        (tmp_path / BEATS).unlink()
        (tmp_path / "away").rename(tmp_path / BEATS)
        time.sleep(0.5)
        there = holder(Storage(tmp_path))
        assert there is not None and there.age < 0.5
        assert not lease.lost.is_set()
        lease.check()
    assert len(logs) == 1 and "no sign of life could be given" in logs[0]


def test_what_is_no_lease_is_one_line(tmp_path: Path) -> None:
    (tmp_path / LEASE).write_text('{"hello": 1}')
    with pytest.raises(InputError, match="is not a lease: delete it"):
        Lease.acquire(Storage(tmp_path))


def test_a_holder_says_what_was_typed_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["/x/pipelines/__main__.py", "train", "boxes", "--storage", "s3://id:hush@bucket/runs"]
    )
    command = LeaseInfo.of_this_process("token", 1.0, None).command
    assert command.startswith("python -m pipelines train boxes --storage")
    assert "hush" not in command
