"""One file of prepared data, read again as a process of `verify` does it: its bytes, its schema, every row."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.data.shards.format import MANIFEST, SCHEMA, SCHEMA_VERSION, Shard
from pipelines.data.shards.index import INDEX_SCHEMA
from pipelines.data.shards.remote import read_bytes, read_table
from pipelines.data.verify.row_checks import RowRules, row_faults
from pipelines.storage.retry import StorageAway
from pipelines.storage.storage import Storage

MOST_TOLD = 50
"""Faults of one file that are told; of the others, how many there are."""


@dataclass(frozen=True)
class Fault:
    """What is wrong, in which file; in which row, from 0, if it is one row's."""

    file: str
    text: str
    row: int | None = None

    def __str__(self) -> str:
        return f"{self.file}{'' if self.row is None else f', row {self.row}'}: {self.text}"


@dataclass(frozen=True)
class Task:
    """One file to read; rules: of its rows, None of an index."""

    storage: Storage
    shard: Shard
    rules: RowRules | None


@dataclass
class Report:
    """What came of one file; image_ids: of its rows, in order, None where they cannot be read; more: faults untold."""

    shard: Shard
    bytes: int = 0
    image_ids: np.ndarray | None = None
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    more: int = 0

    def blame(self, text: str, row: int | None = None) -> None:
        """Note a fault of this file."""
        if len(self.faults) < MOST_TOLD:
            self.faults.append(Fault(self.shard.name, text, row))
        else:
            self.more += 1


def check_file(task: Task) -> Report:
    """Read one file, all of it. Its faults are told, never raised.

    Raises:
        StorageAway: storage did not answer, which is not the file's fault.
        InputError: access to a remote storage was denied.
    """
    report = Report(task.shard)
    try:
        data = read_bytes(task.storage, task.shard.name)
    except StorageAway:
        raise
    except (OSError, pa.ArrowException) as error:
        report.blame(cannot(error))
        return report
    report.bytes = data.size
    told = wrong_bytes(data, task.shard.bytes, task.shard.sha256)
    if told is not None:
        report.blame(told)
    try:
        table = read_table(task.shard.name, data)
        # A broken offset would lead whoever reads the rows out of the file.
        table.validate(full=True)
        _check_table(table, task, report)
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: names that are no text
        report.blame(f"its content cannot be read ({_in_a_line(error)})")
    return report


def wrong_bytes(data: pa.Buffer | bytes, size: int | None, digest: str) -> str | None:
    """What is wrong with a file's bytes; None: they are those that the manifest vouches for."""
    length = len(memoryview(data))
    if size is not None and length != size:
        return f"cut short: {length} bytes instead of {size}" if length < size else f"{length} bytes instead of {size}"
    if hashlib.sha256(data).hexdigest() != digest:
        return f"its sha256 is not the one in {MANIFEST}: some byte changed"
    return None


def cannot(error: BaseException) -> str:
    """Why a file could not be read, for people."""
    return "missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({_in_a_line(error)})"


def _in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _check_table(table: pa.Table, task: Task, report: Report) -> None:
    """Schema and number of rows, then every row."""
    expected = INDEX_SCHEMA if task.rules is None else SCHEMA
    version = (table.schema.metadata or {}).get(b"objgan.schema_version", b"none").decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        report.blame(f"schema version {version} instead of {SCHEMA_VERSION}")
    if not table.schema.equals(expected):
        report.blame(_other_columns(table.schema, expected))
        return
    if len(table) != task.shard.rows:
        report.blame(f"{len(table)} rows, the manifest says {task.shard.rows}")
    ids = table["image_id"]
    report.image_ids = None if ids.null_count else ids.to_numpy().copy()
    if task.rules is None:
        return
    report.counts = _counts(table)
    for row, text in row_faults(table, task.rules):
        report.blame(text, row)


def _other_columns(found: pa.Schema, expected: pa.Schema) -> str:
    for column in expected:
        if column.name not in found.names:
            return f"column {column.name} is missing"
        if found.field(column.name).type != column.type:
            return f"column {column.name} is {found.field(column.name).type} instead of {column.type}"
    return f"not the schema of version {SCHEMA_VERSION}: its columns are {', '.join(found.names)}"


def _counts(table: pa.Table) -> Counter[str]:
    """What the manifest counts, by its names."""
    masks, crowds, colours = (pc.list_flatten(table[name]) for name in ("masks", "crowds", "colours"))
    return Counter(
        images=len(table),
        captions=len(pc.list_flatten(table["captions"])),
        objects=len(masks),
        masks=len(masks) - masks.null_count,
        crowds=pc.sum(crowds).as_py() or 0,
        colours=len(colours) - colours.null_count,
        scenes=len(table) - table["scene"].null_count,
    )
