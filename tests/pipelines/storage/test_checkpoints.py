"""Checkpoints in storage: pruned, found again, and whole whatever happens to their writer."""

import contextlib
import errno
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from objgan.checkpoint import Snapshot, read_state
from objgan.domain import Domain
from objgan.errors import InputError
from pipelines.recipes import resolve
from pipelines.storage.checkpoints import CheckpointStore, CheckpointWriter, checkpoint_name
from pipelines.storage.lease import Lease, LeaseLost, fence
from pipelines.storage.storage import Storage

# A process that commits without end, killed at a moment that differs from round to round; all imports are made once.
_KILLED = """
import os, pathlib, random, signal, sys, time
import torch
from pipelines.storage.checkpoints import CheckpointStore
from pipelines.recipes import resolve
from pipelines.storage.storage import Storage
from objgan.checkpoint import Snapshot
from objgan.domain import Domain
place, domain, rounds = pathlib.Path(sys.argv[1]), Domain.load(pathlib.Path(sys.argv[2])), int(sys.argv[3])
random.seed(3)


def commit(store, step):
    tensors = {"networks/a.safetensors": {"a": torch.full((3_000_000,), float(step))}}
    store.commit(Snapshot("shapes", step, resolve("tiny", None, ()), domain, tensors), {"m": -step})


# Moments are told in commits: a busy machine takes longer over one.
torch.set_num_threads(1)
began = time.monotonic()
commit(CheckpointStore(Storage(place.with_name("other")), 2, ("m", "max")), 1)
unit = time.monotonic() - began
for number in range(rounds):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            store = CheckpointStore(Storage(place), 2, ("m", "max"))
            store.clean()
            found = store.newest()
            step = int(found[0][5:]) if found else 0
            os.write(writing, f"found {step}\\n".encode())
            while True:
                step += 1
                commit(store, step)
                os.write(writing, f"committed {step}\\n".encode())
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as lines:
        print(number, lines.readline().strip(), flush=True)
        time.sleep(random.uniform(0.5, 4.0) * unit)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for line in lines:
            print(number, line.strip(), flush=True)
"""


@pytest.fixture(scope="session")
def domain(model_folder: Path) -> Domain:
    return Domain.load(model_folder / "domain")


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(request.getfixturevalue("s3") if request.param == "s3" else tmp_path / "run")


def _snapshot(domain: Domain, step: int, size: int = 1000) -> Snapshot:
    tensors = {"networks/a.safetensors": {"a": torch.full((size,), float(step))}}
    return Snapshot("shapes", step, resolve("tiny", None, ()), domain, tensors, {"position": step * 10})


def _store(storage: Storage, keep: int = 2) -> CheckpointStore:
    return CheckpointStore(storage, keep, ("iou", "max"))


def _flip(storage: Storage, name: str) -> None:
    data = bytearray(storage.read(name))
    data[-3] ^= 1
    storage.write(name, bytes(data))


def test_the_newest_and_the_best_are_kept_and_found(storage: Storage, domain: Domain) -> None:
    store = _store(storage)
    assert store.newest() is store.best() is None
    for step, iou in enumerate([0.1, 0.7, float("nan"), 0.7, 0.3, 0.2], start=1):
        assert store.commit(_snapshot(domain, step), {"iou": iou, "other": 1.0}) == checkpoint_name(step)
        assert store.newest()[0] == checkpoint_name(step)  # type: ignore[index]
    assert store.names() == ["step_00000004", "step_00000005", "step_00000006"], "the latest of the best"
    assert store.best() == ("step_00000004", {"iou": 0.7, "other": 1.0})
    name, folder = _store(storage).newest() or ("", Path())
    facts = read_state(folder) if storage.local else read_state(store.fetch(name))
    assert (facts["step"], facts["position"], facts["measures"]["iou"]) == (6, 60, 0.2)
    assert CheckpointStore(storage, 1, ("iou", "min")).best() == ("step_00000006", {"iou": 0.2, "other": 1.0})


@pytest.mark.parametrize("fault", ["flipped", "missing", "state.json"])
def test_a_broken_one_is_passed_over_told_and_set_aside(
    storage: Storage, domain: Domain, fault: str, logs: list[str]
) -> None:
    store = _store(storage)
    for step in (1, 2):
        store.commit(_snapshot(domain, step), {"iou": 0.5})
    file = "step_00000002/" + ("state.json" if fault == "state.json" else "networks/a.safetensors")
    storage.delete(file) if fault == "missing" else _flip(storage, file)
    assert store.newest(set_aside=False)[0] == "step_00000001"  # type: ignore[index]
    assert store.names() == ["step_00000001", "step_00000002"]
    assert store.newest()[0] == "step_00000001"  # type: ignore[index]
    assert "checkpoint step_00000002 is broken (checkpoint: " in logs[0]
    assert logs[0].endswith("taking step_00000001")
    assert store.names() == ["step_00000001"]
    store.clean()
    kept = "broken_step_00000002" if storage.local else "step_00000002"
    assert storage.exists(f"{kept}/config.json"), "nothing is lost"
    store.commit(_snapshot(domain, 2), {"iou": 0.6})
    assert store.newest()[0] == "step_00000002"  # type: ignore[index]


def test_where_all_are_broken_there_is_none(tmp_path: Path, domain: Domain, logs: list[str]) -> None:
    store = _store(Storage(tmp_path))
    store.commit(_snapshot(domain, 1), {})
    (tmp_path / "step_00000001" / "state.json").unlink()
    assert store.newest() is None
    assert logs[0].endswith("taking none, there is no other")


def test_what_a_killed_writer_left_is_removed(storage: Storage, domain: Domain, logs: list[str]) -> None:
    store = _store(storage)
    store.commit(_snapshot(domain, 1), {"iou": 0.5})
    left = ".step_00000002.abc" if storage.local else "step_00000002"
    storage.write(f"{left}/networks/a.safetensors", b"half")
    assert store.names() == ["step_00000001"]
    store.clean()
    assert not storage.exists(left)
    assert len(logs) == 1 and "its writer" not in logs[0] and left in logs[0]
    assert store.newest()[0] == "step_00000001"  # type: ignore[index]


def test_one_who_lost_the_run_commits_nothing(storage: Storage, domain: Domain) -> None:
    store = _store(storage)
    with Lease.acquire(storage) as lease:
        store.commit(_snapshot(domain, 1), {"iou": 0.5}, lambda: fence(storage, lease.token))
        with pytest.raises(LeaseLost, match="taken over"):
            store.commit(_snapshot(domain, 2), {"iou": 0.5}, lambda: fence(storage, "another"))
    assert store.names() == ["step_00000001"]
    assert not [name for name in storage.names(hidden=True) if name.startswith(".step")]


def test_a_full_disk_is_told_and_the_last_checkpoint_stands(small_disk: Path, domain: Domain) -> None:
    store = _store(Storage(small_disk / "run"))
    store.commit(_snapshot(domain, 1), {"iou": 0.5})
    with pytest.raises(OSError, match=r"no space left for checkpoint step_00000002 .*: make room") as caught:
        store.commit(_snapshot(domain, 2, size=1 << 20), {"iou": 0.6})
    assert caught.value.errno == errno.ENOSPC
    assert store.storage.names(hidden=True) == ["step_00000001"]
    assert store.newest()[0] == "step_00000001"  # type: ignore[index]
    store.commit(_snapshot(domain, 2), {"iou": 0.6})
    assert store.newest()[0] == "step_00000002"  # type: ignore[index]


def test_a_writer_killed_at_any_moment_leaves_whole_checkpoints(
    tmp_path: Path, model_folder: Path, repository: Path
) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "run"), str(model_folder / "domain"), "10"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    lines, committed = [line.split() for line in done.stdout.splitlines()], 0
    for _, what, step in lines:
        if what == "found":
            assert int(step) >= committed, "what was committed is found"
            # It may have been killed between the commit and its line.
            assert int(step) <= committed + 1
        committed = max(committed, int(step))
    assert committed >= 5, done.stdout
    for name in Storage(tmp_path / "run").names():
        read_state(tmp_path / "run" / name)
    store = _store(Storage(tmp_path / "run"))
    store.clean()
    assert all(name.startswith("step_") for name in store.storage.names(hidden=True))


def test_training_goes_on_while_one_checkpoint_is_written(tmp_path: Path, domain: Domain) -> None:
    gate, done = threading.Event(), []
    writer = CheckpointWriter(_store(Storage(tmp_path)), fence=lambda: gate.wait(10) and None)
    with contextlib.closing(writer):
        writer.submit(_snapshot(domain, 1), {"iou": 0.1}, done.append)
        assert not done and writer.last_seconds is None
        threading.Timer(0.3, gate.set).start()
        began = time.monotonic()
        writer.submit(_snapshot(domain, 2), {"iou": 0.2}, done.append)
        assert time.monotonic() - began > 0.2, "the second waits for the first"
        assert done[0] == "step_00000001" and (writer.last_seconds or 0) > 0.2
        writer.wait()
        assert done == ["step_00000001", "step_00000002"]
        writer.wait()


def test_a_fault_of_the_thread_is_raised_once_at_the_next_call(small_disk: Path, domain: Domain) -> None:
    writer = CheckpointWriter(_store(Storage(small_disk / "run")))
    writer.submit(_snapshot(domain, 1, size=1 << 20), {})
    with pytest.raises(OSError, match="no space left") as caught:
        writer.submit(_snapshot(domain, 2), {})
    assert caught.value.errno == errno.ENOSPC
    writer.submit(_snapshot(domain, 3), {})
    writer.close()
    assert _store(Storage(small_disk / "run")).names() == ["step_00000003"]


def test_none_kept_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        _store(Storage(tmp_path), keep=0)


def test_measures_of_a_broken_state_are_nothing(tmp_path: Path, domain: Domain) -> None:
    store = _store(Storage(tmp_path))
    store.commit(_snapshot(domain, 1), {"iou": 0.5})
    (tmp_path / "step_00000001" / "state.json").write_text("{")
    assert store.measures("step_00000001") == {}
    with pytest.raises(InputError):
        store.fetch("step_00000001")
    (tmp_path / "step_00000001" / "state.json").write_text(json.dumps([1]))
    assert store.measures("step_00000001") == {}
