"""Rows aside on the disk, sorted by image: a join in memory that does not grow with the number of rows.

Rows are sorted a run at a time. Who wants those of a few images reads, of every run, the small batches that hold them:
nothing is mapped, so no page of the files stays in anybody's memory.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from objgan.files import write_atomically

Row = dict[str, Any]
_PENDING_ROWS, _RUN_BYTES, _BATCH_ROWS = 1024, 32 << 20, 512
_NESTED = pa.list_(pa.list_(pa.float64()))
_ORDER = [("image_id", "ascending"), ("id", "ascending"), ("place", "ascending")]


class Spill:
    """Writes rows, which have an `image_id`, an `id` and a `place` in the input, as sorted runs `NAME-0.arrow`, ..."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        self._folder, self._name, self._schema = folder, name, schema
        self._rows: list[Row] = []
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._runs: list[dict[str, Any]] = []

    def add(self, row: Row) -> None:
        """Take one row."""
        self._rows.append(row)
        if len(self._rows) >= _PENDING_ROWS:
            self._pack()

    def close(self) -> None:
        """Write what is left, and the list of runs."""
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
        table = pa.Table.from_batches(self._batches).sort_by(_ORDER).combine_chunks()
        self._batches, self._bytes = [], 0
        name = f"{self._name}-{len(self._runs)}.arrow"
        with pa.OSFile(str(self._folder / name), "wb") as file, pa.ipc.new_file(file, self._schema) as writer:
            writer.write_table(table, max_chunksize=_BATCH_ROWS)
        ids = table["image_id"].to_numpy()
        firsts = ids[::_BATCH_ROWS]
        lasts = ids[np.minimum(np.arange(len(firsts)) * _BATCH_ROWS + _BATCH_ROWS, len(ids)) - 1]
        self._runs.append({"file": name, "firsts": firsts.tolist(), "lasts": lasts.tolist()})


def take(folder: Path, name: str, image_ids: Sequence[int]) -> list[Row]:
    """The rows of these images, sorted by image, id and place; lists of lists of numbers are lists of arrays."""
    wanted = np.sort(np.asarray(image_ids, np.int64))
    found = []
    for run in json.loads((folder / f"{name}.json").read_text()):
        firsts, lasts = np.array(run["firsts"], np.int64), np.array(run["lasts"], np.int64)
        # A batch is of interest where a wanted id lies between its first and its last one.
        there = np.searchsorted(wanted, firsts, "left") < np.searchsorted(wanted, lasts, "right")
        if not there.any():
            continue
        with pa.OSFile(str(folder / run["file"]), "rb") as file, pa.ipc.open_file(file) as reader:
            for number in np.flatnonzero(there):
                batch = reader.get_batch(int(number))
                kept = np.isin(batch["image_id"].to_numpy(), wanted)
                if kept.any():
                    found.append(batch.filter(pa.array(kept)))
    return _rows(pa.Table.from_batches(found).sort_by(_ORDER).combine_chunks()) if found else []


def _rows(table: pa.Table) -> list[Row]:
    """As `to_pylist`, but a picture's thousand coordinates become no Python numbers."""
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
    options = pa.ipc.IpcReadOptions(included_fields=[0, 1])
    for run in json.loads((folder / f"{name}.json").read_text()):
        with pa.OSFile(str(folder / run["file"]), "rb") as file, pa.ipc.open_file(file, options=options) as reader:
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                yield batch["image_id"].to_numpy(), batch["id"].to_numpy()
