"""`verify`: every file of prepared data is read again, and every fault is told, not only the first."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from objgan.cores import available_cores
from pipelines.data.shards.format import Shard
from pipelines.data.shards.progress import ShardProgress
from pipelines.data.shards.remote import read_manifest
from pipelines.data.verify.manifest_checks import domain_faults, extra_files, joint_faults, own_faults, rejected_faults
from pipelines.data.verify.shard_checks import CheckReport, CheckTask, Fault, RowRules, check_file
from pipelines.storage.storage import Storage

Log = Callable[[str], None]
_SPAWN = multiprocessing.get_context("spawn")  # a forked copy of a process that runs threads may hang


@dataclass
class Verified:
    """What was read, and what is wrong with it; more: faults that are counted and not told."""

    where: str
    files: int = 0
    rows: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    more: int = 0

    def summary(self) -> str:
        """One line."""
        read = f"{self.rows} rows in {_many(self.files, 'shard')}, {self.bytes / 1e6:.1f} MB"
        if not self.faults:
            return f"intact: {read}; all checksums, counts, rows, images and masks are correct"
        names = sorted({fault.file for fault in self.faults})
        shown = ", ".join([*names[:8], *(["..."] if len(names) > 8 else [])])
        faults = _many(len(self.faults) + self.more, "fault")
        return f"damaged: {faults} in {_many(len(names), 'file')} ({shown}); read: {read}"


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def verify(location: str | Path, log: Log, processes: int | None = None) -> Verified:
    """Read all that the manifest of `location` (a folder or a URI) names, in several processes; log every fault.

    processes: None: one for each core that this process may use

    Raises:
        InputError: no prepared data, or data of another version: there is nothing to compare with.
        StorageAway: storage does not answer.
    """
    storage = Storage(location, log=log)
    manifest = read_manifest(storage)
    found, reports = Verified(str(storage)), dict[str, CheckReport]()

    def tell(faults: Iterable[Fault]) -> None:
        for fault in faults:
            found.faults.append(fault)
            log(str(fault))

    for report in _reports(storage, manifest, log, processes or available_cores()):
        reports[report.shard.name] = report
        tell(report.faults)
        if report.more:
            found.more += report.more
            log(f"{report.shard.name}: and {report.more} more")
    tell(
        chain(
            extra_files(storage, manifest),
            domain_faults(storage, manifest),
            rejected_faults(storage, manifest),
            own_faults(manifest),
            joint_faults(manifest, reports),
        )
    )
    shards = [reports[facts["name"]] for facts in manifest["shards"]]
    found.files, found.bytes = sum(one.bytes > 0 for one in shards), sum(one.bytes for one in shards)
    found.rows = sum(one.counts["images"] for one in shards)
    return found


def _reports(storage: Storage, manifest: Mapping[str, Any], log: Log, processes: int) -> Iterator[CheckReport]:
    """One a shard and one an index."""
    size, classes = int(manifest["settings"]["image_size"]), len(manifest["classes"])
    pixels = bool(manifest["columns"]["image"])
    shards = [Shard(**facts) for facts in manifest["shards"]]
    tasks = [CheckTask(storage, one, RowRules(one.split, size, classes, pixels)) for one in shards]
    tasks += [CheckTask(storage, Shard(**facts), None) for facts in manifest["indices"]]
    listed = {shard.name for shard in shards}
    with ShardProgress(len(shards), sum(shard.rows for shard in shards), log, "verify") as progress:
        for report in _read_all(tasks, processes):
            yield report
            if report.shard.name in listed:
                progress.add(report.shard.rows, kept=False)


def _read_all(tasks: list[CheckTask], processes: int) -> Iterator[CheckReport]:
    """Every file's report, in order; a file that kills the process that reads it is told as such."""
    left = dict(enumerate(tasks))
    while left:
        try:
            yield from _pooled(left, min(processes, len(left)))
        except BrokenProcessPool:
            # It was one of those that were being read, the first that are left: they get a process each.
            for number in list(left)[:processes]:
                yield _alone(left.pop(number))


def _pooled(left: dict[int, CheckTask], processes: int) -> Iterator[CheckReport]:
    """Reports on the tasks of `left`, each of which is taken out of it when it is done."""
    alive, ours = _SPAWN.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, _SPAWN, _begin, (alive,))
    futures = {number: pool.submit(check_file, task) for number, task in left.items()}
    try:
        for number in list(futures):
            report = futures[number].result()
            del futures[number], left[number]
            yield report
    except BrokenProcessPool:
        for number, future in futures.items():
            if future.done() and future.exception() is None:
                del left[number]
                yield future.result()
        raise
    finally:
        ours.close()
        pool.shutdown(cancel_futures=True)


def _begin(alive: Connection) -> None:
    """In each process: interruptions are for its starter; when that one closes the pipe, or dies, it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            alive.recv_bytes()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _alone(task: CheckTask) -> CheckReport:
    try:
        return next(_pooled({0: task}, 1))
    except BrokenProcessPool:
        report = CheckReport(task.shard)
        report.blame("the process that read it died: out of memory, or damaged data crashed the decoder")
        return report
