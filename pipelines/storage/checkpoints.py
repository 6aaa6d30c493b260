"""The checkpoints of a run, in its storage: committed whole, pruned, and the newest valid one found again.

A checkpoint is durable, and is what a resumed run starts from, the moment `commit` returns; no registry stands beside.
"""

import contextlib
import dataclasses
import json
import logging
import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from objgan.checkpoint import STATE, Snapshot, read_state, write_snapshot
from objgan.errors import InputError
from pipelines.storage.retry import is_full, retry
from pipelines.storage.storage import Storage

logger = logging.getLogger(__name__)
PREFIX, BROKEN = "step_", "broken_"
FINISHED = "finished.json"
_NAME = re.compile(rf"{PREFIX}[0-9]{{1,12}}")
_NOTED = f"{BROKEN}{STATE}"
_PINS = "pins.json"
Fence = Callable[[], None]
Objective = tuple[str, Literal["max", "min"]]


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint after `step` steps."""
    return f"{PREFIX}{step:08d}"


class CheckpointStore:
    """Checkpoints `step_00000123` in a run's storage.

    Who changes anything here holds the run (`pipelines.storage.lease`).

    Args:
        storage: of the run
        keep: newest checkpoints to keep, beside the best
        objective: the measure that says which is best, and whether more of it is better ("max") or less ("min")
    """

    def __init__(self, storage: Storage, keep: int, objective: Objective) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep}: at least one checkpoint is kept")
        self.storage, self.keep, self.objective = storage, keep, objective
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def clean(self) -> None:
        """Remove what killed writers left: folders aside, and in an object store those without `state.json`."""
        for name in self.storage.names(hidden=True):
            if name.startswith(f".{PREFIX}") or (name.startswith(PREFIX) and self._is_headless(name)):
                logger.info(f"{self.storage}: removing {name}, whose writer was stopped before it was whole")
                self.storage.delete(name)

    def names(self) -> list[str]:
        """The checkpoints, oldest first; whether they are still valid is another matter."""
        names = [name for name in self.storage.names() if name.startswith(PREFIX) and name[len(PREFIX) :].isdecimal()]
        if self.storage.local is None:
            names = [name for name in names if self.storage.exists(f"{name}/{STATE}")]
        return sorted(names, key=_step)

    def commit(self, copy: Snapshot, measures: Mapping[str, float], fence: Fence | None = None) -> str:
        """Write a checkpoint and prune; its name. It can be resumed from when this returns.

        fence: called when all is written but nothing visible (in an object store before every file, `state.json` being
            the last); it raises if the run is another's by now, and then no checkpoint appears

        Raises:
            OSError: the disk is full (errno says so), or storage is away; the checkpoints before are as they were.
        """
        name = checkpoint_name(copy.step)
        copy = dataclasses.replace(copy, extra={**copy.extra, "measures": dict(measures)})
        try:
            if self.storage.local is not None:
                place = self.storage.local / name
                what = f"storage {self.storage}: cannot write {name}"
                retry(what, lambda: write_snapshot(place, copy, fence), self.storage.patience)
            else:
                with tempfile.TemporaryDirectory(prefix="objgan-") as aside:
                    write_snapshot(Path(aside) / name, copy)
                    self.storage.upload(Path(aside) / name, name, last=STATE, ready=fence)
        except OSError as error:
            if is_full(error):
                text = f"no space left for checkpoint {name} of {self.storage}: make room, or keep fewer checkpoints"
                raise OSError(error.errno, text) from error
            raise
        self.prune()
        return name

    def prune(self) -> None:
        """Keep the newest `keep`, the best and those that are pinned; remove the others."""
        names = self.names()
        kept = {*names[-self.keep :], *(self._ranked(names)[:1]), *self.pins()}
        for name in names:
            if name not in kept:
                # Without its mark first: a removal that is cut short must not look like damage.
                if self.storage.local is None:
                    self.storage.delete(f"{name}/{STATE}")
                self.storage.delete(name)

    def pin(self, *names: str) -> None:
        """Keep checkpoints from every pruning until others are pinned instead."""
        self.storage.write(_PINS, json.dumps(sorted(names)) + "\n")

    def pins(self) -> list[str]:
        """The checkpoints that are to stay."""
        found = self.storage.json(_PINS)
        return [str(name) for name in found] if isinstance(found, list) else []

    def newest(self, set_aside: bool = True) -> tuple[str, Path] | None:
        """The newest checkpoint whose every file is what was written, and its folder on this machine.

        A broken one is logged and skipped. With `set_aside` (for the one who holds the run) it is renamed to
        `broken_step_...`, in an object store its `state.json` is, so that no one meets it again and nothing is lost.
        """
        names = self.names()
        while names:
            name = names.pop()
            try:
                return name, self.fetch(name)
            except InputError as error:
                before = names[-1] if names else "none, there is no other"
                logger.info(f"checkpoint {name} is broken ({error}): taking {before}")
                if set_aside:
                    self._set_aside(name)
        return None

    def best(self) -> tuple[str, dict[str, float]] | None:
        """The checkpoint with the best objective, the latest of equals, and its measures; None where none has it.

        In a folder, broken ones are passed over; in an object store `fetch` finds them.
        """
        for name in self._ranked(self.names()):
            if self.storage.local is not None:
                try:
                    read_state(self.storage.local / name)
                except InputError as error:
                    logger.info(f"the best checkpoint {name} is broken ({error}): taking the next best")
                    continue
            return name, self.measures(name)
        return None

    def measures(self, name: str) -> dict[str, float]:
        """What a checkpoint measured; nothing if it is broken."""
        try:
            facts = self.storage.json(f"{name}/{STATE}")
        except InputError:
            return {}
        measures = facts.get("measures") if isinstance(facts, dict) else None
        found = measures.items() if isinstance(measures, dict) else ()
        return {name: float(value) for name, value in found if type(value) in (int, float)}

    def fetch(self, name: str) -> Path:
        """A checkpoint as a folder on this machine, checked; a copy lives as long as this store.

        Raises:
            InputError: it is missing or broken.
        """
        if self.storage.local is not None:
            read_state(self.storage.local / name)
            return self.storage.local / name
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="objgan-")
        folder = Path(self._scratch.name) / name
        try:
            read_state(self.storage.download(name, folder))
        except InputError:
            # Once more: it may have been hurt on its way.
            read_state(self.storage.download(name, folder))
        return folder

    def _ranked(self, names: list[str]) -> list[str]:
        """Those with a finite objective, the best first."""
        measure, direction = self.objective
        values = {name: self.measures(name).get(measure, math.nan) for name in names}
        finite = [name for name in names if math.isfinite(values[name])]
        sign = 1 if direction == "max" else -1
        # The latest of equals: a bounded measure that is at its limit early must not end what others still learn.
        return sorted(finite, key=lambda name: (sign * values[name], _step(name)), reverse=True)

    def _is_headless(self, name: str) -> bool:
        """Whether an object store holds a part of it that was never marked as whole."""
        there = self.storage.local is None and not self.storage.exists(f"{name}/{STATE}")
        return there and not self.storage.exists(f"{name}/{_NOTED}")

    def _set_aside(self, name: str) -> None:
        # Another worker may have done it already.
        with contextlib.suppress(FileNotFoundError):
            if self.storage.local is None:
                self.storage.rename(f"{name}/{STATE}", f"{name}/{_NOTED}")
            else:
                taken = self.storage.exists(f"{BROKEN}{name}")
                self.storage.rename(name, f"{BROKEN}{name}" + (f"_{time.time_ns()}" if taken else ""))


def finished_checkpoint(storage: Storage) -> tuple[str, int, dict[str, float]] | None:
    """Name, step and measures of the checkpoint that a finished run ended with; None: the run has not finished.

    Raises:
        InputError: `finished.json` is not what a run writes.
    """
    done = storage.json(FINISHED)
    if done is None:
        return None
    name = done.get("checkpoint") if isinstance(done, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(done.get("measures"), dict):
        raise InputError(f"{storage}/{FINISHED} does not name a checkpoint: delete it, and run the command again")
    return name, _step(name), done["measures"]


class CheckpointWriter:
    """Commits checkpoints in a thread of its own, one at a time, while training goes on.

    Call `wait` before taking the next snapshot: then there is never more than one copy of the state in memory. An error
    of the thread is raised, once, by the next `submit` or `wait`.
    """

    def __init__(self, store: CheckpointStore, fence: Fence | None = None) -> None:
        self.store, self.fence = store, fence
        self.last_seconds: float | None = None
        """What the latest finished commit took."""
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._pending: Future[None] | None = None

    def submit(self, copy: Snapshot, measures: Mapping[str, float], done: Callable[[str], None] | None = None) -> None:
        """Commit `copy` in the background, after the one before; `done(name)` is called there when it is durable.

        Raises:
            OSError, LeaseLost, ...: what the commit before ended with.
        """
        self.wait()
        self._pending = self._pool.submit(self._commit, copy, measures, done)

    def wait(self) -> None:
        """Until nothing is under way.

        Raises:
            OSError, LeaseLost, ...: what the commit ended with.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """`wait`, and end the thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def _commit(self, copy: Snapshot, measures: Mapping[str, float], done: Callable[[str], None] | None) -> None:
        began = time.perf_counter()
        name = self.store.commit(copy, measures, self.fence)
        self.last_seconds = time.perf_counter() - began
        if done is not None:
            done(name)


def _step(name: str) -> int:
    return int(name[len(PREFIX) :])
