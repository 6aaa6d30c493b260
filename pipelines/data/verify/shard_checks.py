"""Checks of one file of prepared data: its bytes, its schema, every row."""

import hashlib
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from objgan.run_lengths import BadMask, read_runs
from pipelines.data.shards.format import SCHEMA, SCHEMA_VERSION, Shard, count_rows
from pipelines.data.shards.index import INDEX_SCHEMA
from pipelines.data.shards.manifest import MANIFEST
from pipelines.data.shards.remote import read_bytes, read_table
from pipelines.redaction import in_a_line
from pipelines.storage.retry import StorageAway
from pipelines.storage.storage import Storage

_OBJECT_LISTS = ("annotation_ids", "areas", "crowds", "masks", "colours")
_NEVER_NULL = ("image_id", "split", "captions", "tokens", "labels", "boxes", *_OBJECT_LISTS)
SLACK = 1e-5
"""Boxes are float32 fractions: rounding may put the far side of a box at the border slightly outside."""

MOST_LISTED = 50
"""Faults listed per file; further ones are only counted."""


@dataclass(frozen=True)
class RowRules:
    """The facts of the manifest that every row must agree with.

    size:    side of the stored images and masks, pixels
    classes: number of classes; labels are below it
    pixels:  whether every row has an image
    """

    split: str
    size: int
    classes: int
    pixels: bool


def row_faults(table: pa.Table, rules: RowRules) -> Iterator[tuple[int, str]]:
    """(row, fault) of a table of the shards' schema; a row may have several faults."""
    for at in range(len(table)):
        # Rows are many times larger as Python objects: convert one at a time.
        row = table.slice(at, 1).to_pylist()[0]
        missing = [name for name in _NEVER_NULL if row[name] is None]
        if missing:
            yield at, f"null in {', '.join(missing)}"
            continue
        yield from ((at, f"image {row['image_id']}: {text}") for text in _faults(row, rules))


def _faults(row: Mapping[str, Any], rules: RowRules) -> Iterator[str]:
    if row["split"] != rules.split:
        yield f"split {row['split']!r} in a shard of split {rules.split}"
    if min(row["width"] or 0, row["height"] or 0) < 1:
        yield f"the original has {row['width']} x {row['height']} pixels"
    if len(row["captions"]) != len(row["tokens"]):
        yield f"{len(row['captions'])} captions, {len(row['tokens'])} lists of words"
    if any(text is None for text in (*row["captions"], *row["tokens"])):
        yield "a caption is null"
    yield from _object_faults(row, rules)
    yield from _picture_faults(row["image"], rules)
    for number, counts in enumerate(row["masks"]):
        try:
            if counts is not None:
                read_runs(counts, rules.size, rules.size)
        except BadMask as error:
            yield f"mask {number} of {rules.size} x {rules.size} pixels does not decode: {error}"


def _object_faults(row: Mapping[str, Any], rules: RowRules) -> Iterator[str]:
    objects = len(row["labels"])
    lengths = {"boxes": 4 * objects, **dict.fromkeys(_OBJECT_LISTS, objects)}
    wrong = [f"{len(row[name])} {name}" for name, length in lengths.items() if len(row[name]) != length]
    if wrong:
        yield f"{objects} labels, but {', '.join(wrong)}"
        return
    for number, (label, area, crowd) in enumerate(zip(row["labels"], row["areas"], row["crowds"], strict=True)):
        if label is None or not 0 <= label < rules.classes:
            yield f"object {number}: label {label}, but there are {rules.classes} classes"
        if area is None or not 0 <= area <= 1 + SLACK:  # also NaN
            yield f"object {number}: its area is {area} of the image"
        if crowd is None:
            yield f"object {number}: its crowd flag is null"
        if fault := _box_fault(row["boxes"][4 * number : 4 * number + 4]):
            yield f"object {number}: {fault}"


def _box_fault(box: list[float | None]) -> str | None:
    shown = ", ".join("null" if side is None else f"{side:g}" for side in box)
    sides = [side for side in box if side is not None and math.isfinite(side)]
    if len(sides) < 4:
        return f"box ({shown}) is not of four finite numbers"
    x, y, w, h = sides
    if w <= 0 or h <= 0:
        return f"box ({shown}) is empty"
    if min(x, y) < 0 or max(x + w, y + h) > 1 + SLACK:
        return f"box ({shown}) reaches outside the image"
    return None


def _picture_faults(data: bytes | None, rules: RowRules) -> Iterator[str]:
    if data is None or not rules.pixels:
        if rules.pixels:
            yield "no image"
        elif data is not None:
            yield "an image, but the manifest says that there are none"
        return
    try:
        # Only Pillow, because `pipelines.data.shards.pixels` imports torch, in each process.
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            width, height = picture.size
            if (width, height) == (rules.size, rules.size):
                picture.load()
    except Exception as error:  # Pillow raises a dozen types on broken bytes; none may hide the other faults
        text = " ".join(str(error).split()).partition(" <")[0]
        yield f"the image does not decode ({text})"
        return
    if (width, height) != (rules.size, rules.size):
        yield f"the image has {width} x {height} pixels instead of {rules.size} x {rules.size}"


@dataclass(frozen=True)
class Fault:
    """A fault of a file, or of one of its rows (from 0)."""

    file: str
    text: str
    row: int | None = None

    def __str__(self) -> str:
        return f"{self.file}{'' if self.row is None else f', row {self.row}'}: {self.text}"


@dataclass(frozen=True)
class CheckTask:
    """One file to read. rules: for its rows; None for an index."""

    storage: Storage
    shard: Shard
    rules: RowRules | None


@dataclass
class CheckReport:
    """Result of one file. image_ids: of its rows, in order, None if unreadable; more: faults not listed."""

    shard: Shard
    bytes: int = 0
    image_ids: np.ndarray | None = None
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    more: int = 0

    def add_fault(self, text: str, row: int | None = None) -> None:
        """Add a fault of this file."""
        if len(self.faults) < MOST_LISTED:
            self.faults.append(Fault(self.shard.name, text, row))
        else:
            self.more += 1


def check_file(task: CheckTask) -> CheckReport:
    """Read a whole file. Its faults are reported, never raised.

    Raises:
        StorageAway: storage did not answer, which is not the file's fault.
        InputError: access to a remote storage was denied.
    """
    report = CheckReport(task.shard)
    try:
        data = read_bytes(task.storage, task.shard.name)
    except StorageAway:
        raise
    except (OSError, pa.ArrowException) as error:
        report.add_fault(cannot(error))
        return report
    report.bytes = data.size
    if fault := wrong_bytes(data, task.shard.bytes, task.shard.sha256):
        report.add_fault(fault)
    try:
        table = read_table(task.shard.name, data)
        # A broken offset would make readers of the rows leave the file.
        table.validate(full=True)
        _check_table(table, task, report)
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: column names that are not text
        report.add_fault(f"its content cannot be read ({in_a_line(error)})")
    return report


def wrong_bytes(data: pa.Buffer | bytes, size: int | None, digest: str) -> str | None:
    """The fault of a file's bytes; None: they are those of the manifest."""
    length = len(memoryview(data))
    if size is not None and length != size:
        return f"cut short: {length} bytes instead of {size}" if length < size else f"{length} bytes instead of {size}"
    if hashlib.sha256(data).hexdigest() != digest:
        return f"its sha256 differs from the one in {MANIFEST}: its content changed"
    return None


def cannot(error: BaseException) -> str:
    """Why a file could not be read, for a message."""
    return "missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({in_a_line(error)})"


def _check_table(table: pa.Table, task: CheckTask, report: CheckReport) -> None:
    """Schema and number of rows, then every row."""
    expected = INDEX_SCHEMA if task.rules is None else SCHEMA
    version = (table.schema.metadata or {}).get(b"objgan.schema_version", b"none").decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        report.add_fault(f"schema version {version} instead of {SCHEMA_VERSION}")
    if not table.schema.equals(expected):
        report.add_fault(_other_columns(table.schema, expected))
        return
    if len(table) != task.shard.rows:
        report.add_fault(f"{len(table)} rows, the manifest says {task.shard.rows}")
    ids = table["image_id"]
    report.image_ids = None if ids.null_count else ids.to_numpy().copy()
    if task.rules is None:
        return
    report.counts = count_rows(table)
    for row, text in row_faults(table, task.rules):
        report.add_fault(text, row)


def _other_columns(schema: pa.Schema, expected: pa.Schema) -> str:
    for column in expected:
        if column.name not in schema.names:
            return f"column {column.name} is missing"
        if schema.field(column.name).type != column.type:
            return f"column {column.name} is {schema.field(column.name).type} instead of {column.type}"
    return f"not the schema of version {SCHEMA_VERSION}: its columns are {', '.join(schema.names)}"
