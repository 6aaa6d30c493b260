"""Reads prepared data once, from a folder or a URI, and counts them."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from objgan.errors import InputError
from pipelines.data.report.counts import Sample, SplitCounts, Survey, add_shard
from pipelines.data.shards.format import SCHEMA, Shard, shards_of
from pipelines.data.shards.manifest import SPLITS
from pipelines.data.shards.progress import ShardProgress
from pipelines.data.shards.remote import read_bytes, read_manifest, read_table
from pipelines.redaction import in_a_line
from pipelines.storage.retry import StorageAway
from pipelines.storage.storage import Storage


def survey(location: Path | str, samples: int, seed: int = 0, splits: Sequence[str] = SPLITS) -> Survey:
    """Count all rows of some splits, and keep `samples` of them, drawn by `seed`; log the progress.

    One shard is read at a time. Shards of a folder are memory-mapped, so pictures that are not shown are not read.

    Raises:
        InputError: there are no prepared data, or a file cannot be read.
    """
    storage = Storage(location)
    result = _empty(storage, splits)
    shards = [shard for split in splits for shard in shards_of(result.manifest, split)]
    rows = sum(shard.rows for shard in shards)
    start = 0
    drawn = np.sort(np.random.default_rng(seed).choice(rows, min(samples, rows), replace=False))
    with ShardProgress(len(shards), rows, "inspect") as progress:
        for shard in shards:
            try:
                table = _read(storage, shard)
                add_shard(table, result, result.splits[shard.split])
                chosen = drawn[(drawn >= start) & (drawn < start + len(table))] - start
                result.samples += [_sample(table.slice(row, 1).to_pylist()[0]) for row in chosen.tolist()]
            except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
                if isinstance(error, StorageAway):
                    raise
                text = f"data: cannot read {storage}/{shard.name} ({in_a_line(error)}): see verify {storage}"
                raise InputError(text) from None
            start += len(table)
            progress.add(len(table), kept=False)
    return result


def _empty(storage: Storage, splits: Sequence[str]) -> Survey:
    manifest = read_manifest(storage)
    words = storage.json("domain/vocabulary.json")
    try:
        known = tuple(str(word) for word in words["words"])
    except (TypeError, KeyError):
        raise InputError(
            f"data: {storage}/domain/vocabulary.json is missing or damaged: see verify {storage}"
        ) from None
    return Survey(str(storage), manifest, known, {split: SplitCounts() for split in splits})


def _read(storage: Storage, shard: Shard) -> pa.Table:
    table = read_table(shard.name, read_bytes(storage, shard.name))
    if not table.schema.equals(SCHEMA):
        raise ValueError("its columns are not those of a shard")
    if len(table) != shard.rows:
        raise ValueError(f"{len(table)} rows instead of {shard.rows}")
    return table


def _sample(row: Mapping[str, Any]) -> Sample:
    boxes = np.array(row["boxes"], np.float64).reshape(-1, 4)
    names = ("image_id", "width", "height", "split", "image", "captions", "labels", "crowds", "masks")
    return Sample(PurePosixPath(row["file_name"] or "").name, boxes=boxes, **{name: row[name] for name in names})
