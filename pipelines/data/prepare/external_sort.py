"""Rows on disk, sorted by image: a join whose memory does not grow with the number of rows.

Rows are sorted in runs. To get those of a few images, the small batches that contain them are read from every run.
Nothing is memory-mapped, so no page of the files stays in memory.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from objgan.files import write_atomically

Row = dict[str, Any]
_PENDING_ROWS, _RUN_BYTES, _BATCH_ROWS = 1024, 32 << 20, 512
_NESTED = pa.list_(pa.list_(pa.float64()))
_ORDER = [("image_id", "ascending"), ("id", "ascending"), ("place", "ascending")]


class ExternalSort:
    """Writes rows, which have an `image_id`, an `id` and a `place` in the input, as sorted runs `NAME-0.arrow`, ..."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        self._folder, self._name, self._schema = folder, name, schema
        self._rows: list[Row] = []
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._runs: list[dict[str, Any]] = []

    def add(self, row: Row) -> None:
        """Add a row."""
        self._rows.append(row)
        if len(self._rows) >= _PENDING_ROWS:
            self._pack()

    def close(self) -> None:
        """Write the remaining rows and the list of runs."""
        self._pack()
        self._write_run()
        write_atomically(self._folder / f"{self._name}.json", json.dumps(self._runs))

    def _pack(self) -> None:
        if self._rows:
            batch = pa.RecordBatch.from_pylist(self._rows, schema=self._schema)
            self._rows = []
            self._batches.append(batch)
            self._bytes += batch.nbytes
            if self._bytes >= _RUN_BYTES:
                self._write_run()

    def _write_run(self) -> None:
        if not self._batches:
            return
        table = pa.Table.from_batches(self._batches)
        self._batches, self._bytes = [], 0  # so that at most two copies are in memory at once
        table = table.sort_by(_ORDER)
        table = table.combine_chunks()
        self._runs.append(_save_run(self._folder, f"{self._name}-{len(self._runs)}.arrow", table))


def _save_run(folder: Path, name: str, table: pa.Table) -> dict[str, Any]:
    with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=_BATCH_ROWS)
    ids = table["image_id"].to_numpy()
    firsts = ids[::_BATCH_ROWS]
    lasts = ids[np.minimum(np.arange(len(firsts)) * _BATCH_ROWS + _BATCH_ROWS, len(ids)) - 1]
    return {"file": name, "firsts": firsts.tolist(), "lasts": lasts.tolist()}


def take(folder: Path, name: str, image_ids: Sequence[int]) -> list[Row]:
    """The rows of these images, sorted by image, id and place; lists of lists of numbers are lists of arrays."""
    wanted = np.sort(np.asarray(image_ids, np.int64))
    batches = []
    path = folder / f"{name}.json"
    facts = path.stat()
    for file_name, firsts, lasts in _places(path, facts.st_ino, facts.st_mtime_ns):
        # Batches with a wanted id between their first and their last one.
        relevant = np.searchsorted(wanted, firsts, "left") < np.searchsorted(wanted, lasts, "right")
        if not relevant.any():
            continue
        with pa.OSFile(str(folder / file_name), "rb") as file, pa.ipc.open_file(file) as reader:
            for number in np.flatnonzero(relevant):
                batch = reader.get_batch(int(number))
                kept = np.isin(batch["image_id"].to_numpy(), wanted)
                if kept.any():
                    batches.append(batch.filter(pa.array(kept)))
    return _rows(pa.Table.from_batches(batches).sort_by(_ORDER).combine_chunks()) if batches else []


@lru_cache(8)
def _places(path: Path, *version: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Each run's file, and int64 [n]: the first and last image of each batch. version: of the list, to read it once."""
    runs = json.loads(path.read_text())
    return [(run["file"], np.array(run["firsts"], np.int64), np.array(run["lasts"], np.int64)) for run in runs]


def _rows(table: pa.Table) -> list[Row]:
    """As `to_pylist`, but coordinates, a thousand per image, do not become Python numbers."""
    nested = [field.name for field in table.schema if field.type == _NESTED]
    rows: list[Row] = table.drop_columns(nested).to_pylist()
    for name in nested:
        for row, value in zip(rows, _arrays(table[name].combine_chunks()), strict=True):
            row[name] = value
    return rows


def _arrays(column: pa.ListArray) -> Iterator[list[np.ndarray] | None]:
    """A row's lists of numbers, views of the column; null is NaN."""
    inner = column.values
    values, ends = inner.values.to_numpy(zero_copy_only=False), inner.offsets.to_numpy()
    bounds = zip(column.offsets.to_numpy()[:-1], column.offsets.to_numpy()[1:], strict=True)
    for valid, (start, end) in zip(column.is_valid().to_pylist(), bounds, strict=True):
        yield [values[ends[part] : ends[part + 1]] for part in range(start, end)] if valid else None


def scan(folder: Path, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """image_id int64 [n] and id int64 [n] of all rows, a batch at a time."""
    for batch in _batches(folder, name, [0, 1]):
        yield batch["image_id"].to_numpy(), batch["id"].to_numpy()


class Clash(ValueError):
    """Two parts of the input use one id for different rows."""

    def __init__(self, number: int, parts: tuple[int, int]) -> None:
        super().__init__(f"id {number}")
        self.id, self.parts = number, parts


def drop_repeats(folder: Path, name: str, ends: np.ndarray, images: Collection[int]) -> int:
    """Remove rows that occur identically in an earlier part of the input. Returns their number.

    ends:   int64 [parts], the place after the last row of each part
    images: ids of images in several parts: their rows without an id may also be repeats

    Raises:
        Clash: two parts use one id for different rows.
    """
    shared, images = _shared_ids(folder, name, ends), np.sort(np.fromiter(images, np.int64, len(images)))
    if not len(shared) and not len(images):
        return 0
    earlier: dict[tuple[int, int], dict[bytes, int]] = {}
    dropped = []
    rows = sorted(_digests(folder, name, shared, images), key=lambda row: row[1])
    for key, place, digest in rows:
        part = int(np.searchsorted(ends, place, side="right"))
        known = earlier.setdefault(key, {})
        if known.get(digest, part) < part:
            dropped.append(place)
        elif key[0] != -1 and any(other < part for other in known.values()):
            raise Clash(key[0], (min(known.values()), part))
        else:
            known.setdefault(digest, part)
    _remove(folder, name, np.array(dropped, np.int64))
    return len(dropped)


def _shared_ids(folder: Path, name: str, ends: np.ndarray) -> np.ndarray:
    """int64, sorted: ids of rows of more than one part."""
    batches = [(batch["id"].to_numpy(), batch["place"].to_numpy()) for batch in _batches(folder, name, [1, 2])]
    if not batches:
        return np.empty(0, np.int64)
    ids, places = (np.concatenate(columns) for columns in zip(*batches, strict=True))
    order = np.argsort(ids, kind="stable")
    ids, parts = ids[order], np.searchsorted(ends, places[order], side="right")
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    several = np.minimum.reduceat(parts, starts) < np.maximum.reduceat(parts, starts)
    shared: np.ndarray = ids[starts][several & (ids[starts] != -1)]
    return shared


def _digests(
    folder: Path, name: str, shared: np.ndarray, images: np.ndarray
) -> Iterator[tuple[tuple[int, int], int, bytes]]:
    """(id, image if it has none), place and a digest of the rest, of rows that may be in several parts."""
    for batch in _batches(folder, name):
        ids = batch["id"].to_numpy()
        wanted = np.isin(ids, shared) | ((ids == -1) & np.isin(batch["image_id"].to_numpy(), images))
        for row in batch.filter(pa.array(wanted)).to_pylist() if wanted.any() else ():
            place, key = row.pop("place"), (row["id"], row["image_id"] if row["id"] == -1 else 0)
            yield key, place, hashlib.blake2b(repr(row).encode(), digest_size=16).digest()


def _remove(folder: Path, name: str, places: np.ndarray) -> None:
    """Rewrite the runs without the rows of these places."""
    runs = []
    for run in json.loads((folder / f"{name}.json").read_text()):
        with pa.OSFile(str(folder / run["file"]), "rb") as file, pa.ipc.open_file(file) as reader:
            table = reader.read_all()
        kept = table.filter(pa.array(~np.isin(table["place"].to_numpy(), places))).combine_chunks()
        if len(kept) < len(table):
            run = _save_run(folder, run["file"], kept)
        if len(kept):
            runs.append(run)
    write_atomically(folder / f"{name}.json", json.dumps(runs))


def _batches(folder: Path, name: str, columns: list[int] | None = None) -> Iterator[pa.RecordBatch]:
    """All rows, or some columns of them, a batch at a time."""
    options = pa.ipc.IpcReadOptions(included_fields=columns)
    for run in json.loads((folder / f"{name}.json").read_text()):
        with pa.OSFile(str(folder / run["file"]), "rb") as file, pa.ipc.open_file(file, options=options) as reader:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)
