"""`verify`: reads every file of prepared data again and reports every fault, not only the first."""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from objgan.cores import available_cores
from pipelines.command_line import counted
from pipelines.data.shards.format import Shard
from pipelines.data.shards.progress import ShardProgress
from pipelines.data.shards.remote import read_manifest
from pipelines.data.verify.manifest_checks import (
    domain_faults,
    extra_files,
    joint_faults,
    own_faults,
    rejected_faults,
    text_id_faults,
)
from pipelines.data.verify.shard_checks import CheckReport, CheckTask, Fault, RowRules, check_file
from pipelines.storage.storage import Storage

logger = logging.getLogger(__name__)
_SPAWN = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang


@dataclass
class Verified:
    """Result of `verify`. more: faults that are counted, but not listed."""

    where: str
    files: int = 0
    rows: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    more: int = 0

    def summary(self) -> str:
        """The result in one line."""
        read = f"{self.rows} rows in {counted(self.files, 'shard')}, {self.bytes / 1e6:.1f} MB"
        if not self.faults:
            return f"intact: {read}; all checksums, counts, rows, images and masks are correct"
        names = sorted({fault.file for fault in self.faults})
        shown = ", ".join([*names[:8], *(["..."] if len(names) > 8 else [])])
        faults = counted(len(self.faults) + self.more, "fault")
        return f"damaged: {faults} in {counted(len(names), 'file')} ({shown}); read: {read}"


def verify(location: str | Path, processes: int | None = None) -> Verified:
    """Read all files in the manifest of `location` (a folder or a URI), in several processes; log every fault.

    processes: None: one per core that this process may use

    Raises:
        InputError: there are no prepared data, or they have another version.
        StorageAway: storage does not answer.
    """
    storage = Storage(location)
    manifest = read_manifest(storage)
    result, reports = Verified(str(storage)), dict[str, CheckReport]()

    def report_faults(faults: Iterable[Fault]) -> None:
        for fault in faults:
            result.faults.append(fault)
            logger.info(fault)

    for report in _reports(storage, manifest, processes or available_cores()):
        reports[report.shard.name] = report
        report_faults(report.faults)
        if report.more:
            result.more += report.more
            logger.info("%s: and %s more", report.shard.name, report.more)
    report_faults(
        chain(
            extra_files(storage, manifest),
            domain_faults(storage, manifest),
            rejected_faults(storage, manifest),
            text_id_faults(storage, manifest),
            own_faults(manifest),
            joint_faults(manifest, reports),
        )
    )
    shards = [reports[facts["name"]] for facts in manifest["shards"]]
    result.files, result.bytes = sum(shard.bytes > 0 for shard in shards), sum(shard.bytes for shard in shards)
    result.rows = sum(shard.counts["images"] for shard in shards)
    return result


def _reports(storage: Storage, manifest: Mapping[str, Any], processes: int) -> Iterator[CheckReport]:
    """One report per shard and per index."""
    size, classes = int(manifest["settings"]["image_size"]), len(manifest["classes"])
    pixels = bool(manifest["columns"]["image"])
    shards = [Shard(**facts) for facts in manifest["shards"]]
    tasks = [CheckTask(storage, shard, RowRules(shard.split, size, classes, pixels)) for shard in shards]
    tasks += [CheckTask(storage, Shard(**facts), None) for facts in manifest["indices"]]
    listed = {shard.name for shard in shards}
    with ShardProgress(len(shards), sum(shard.rows for shard in shards), "verify") as progress:
        for report in _read_all(tasks, processes):
            yield report
            if report.shard.name in listed:
                progress.add(report.shard.rows, kept=False)


def _read_all(tasks: list[CheckTask], processes: int) -> Iterator[CheckReport]:
    """Every file's report, in order; a file that kills the process that reads it gets a fault."""
    left = dict(enumerate(tasks))
    while left:
        try:
            yield from _pooled(left, min(processes, len(left)))
        except BrokenProcessPool:
            # The culprit is among the files that were being read, the first of those left: each gets its own process.
            for number in list(left)[:processes]:
                yield _alone(left.pop(number))


def _pooled(left: dict[int, CheckTask], processes: int) -> Iterator[CheckReport]:
    """Reports on the tasks of `left`; a finished task is removed from it."""
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
    """In each process: ignore interrupts, which the parent handles; exit when the parent closes the pipe or dies."""
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
        report.add_fault("the process that read it died: out of memory, or damaged data crashed the decoder")
        return report
