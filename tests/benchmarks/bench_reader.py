"""The training reader at the published sizes, 256 pixels and 10 objects, beside plainer ways to read the same rows."""

import io
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pycocotools.mask as coco_mask
import torch
from PIL import Image
from torch import Tensor

from objgan.batch import Batch
from objgan.config import build_config
from objgan.vocabulary import Vocabulary
from pipelines.data.loading.batch_plan import BatchPlan
from pipelines.data.loading.reader import ShardReader, read_parts
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.data.sample import make_sample
from pipelines.data.shards.format import (
    ROWS_PER_SHARD,
    SCHEMA,
    index_name,
    load_manifest,
    read_split,
    save_manifest,
    shard_name,
    write_shard,
)
from pipelines.data.shards.index import INDEX_SCHEMA, build_index
from pipelines.data.shards.manifest import SPLITS
from pipelines.data.shards.pixels import squash
from pipelines.workflow.run import sample_source
from tests.benchmarks.measure import Measurement, time_calls
from tests.benchmarks.open_reader import COLUMNS

SIZE, OBJECTS, BATCH, CLASSES = 256, 10, 16, 80
COCO = Path(__file__).resolve().parents[3] / "shared" / "coco"


def bench_samples(scratch: Path) -> Iterator[Measurement]:
    """Genuine COCO pictures where there are any, otherwise drawn ones."""
    base = _prepared(scratch)
    table = _with_ids(_crowded_rows(base), range(ROWS_PER_SHARD))
    folder = _folder(scratch / "rows", base, table, 1)
    reader = ShardReader(folder, "train", COLUMNS, build_config({}), max_words=12)
    order, steps = BatchPlan(BATCH, 0, 0, 1000), itertools.count()
    read = time_calls(
        f"{BATCH} samples of {SIZE} px, {OBJECTS} objects",
        lambda: read_parts(reader, order, next(steps)),
        BATCH,
        "samples",
        repeats=30,
    )
    batch = read_parts(reader, order, 0)[0].batch
    assert batch.layout.count.tolist() == [OBJECTS] * BATCH
    began = time.process_time()
    for _ in range(30):
        read_parts(reader, order, next(steps))
    core = (time.process_time() - began) / 30 / BATCH
    yield _told(read, f"{1e3 * core:.2f} ms of a core, {_bytes(batch) / BATCH / 1e6:.3f} MB to the device a sample")
    rows = table.to_pylist()
    chunks = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    for name, make in (("plain", _plain), ("dense class maps", _dense)):
        places = itertools.cycle(chunks)
        measured = time_calls(
            f"the same, {name}", lambda make=make, places=places: make(next(places)), BATCH, "samples"
        )
        size, longer = _bytes(make(chunks[0])) / BATCH / 1e6, measured.seconds / read.seconds
        yield _told(measured, f"{size:.3f} MB a sample, {longer:.1f} times as long")


def bench_opening(scratch: Path) -> Iterator[Measurement]:
    """From nothing to the first batch, in a process of its own; the rows are small, there are only many of them."""
    base = _prepared(scratch)
    picture = squash(Image.new("RGB", (8, 8), "teal"), SIZE)
    small = [{**row, "image": picture} for row in _crowded_rows(base)]
    told: list[dict[str, float]] = []
    for rows in (10_000, 100_000):
        shards = -(-rows // ROWS_PER_SHARD)
        folder = _folder(scratch / str(rows), base, _with_ids(small, range(ROWS_PER_SHARD)), shards)
        out = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.open_reader", str(folder)], check=True, capture_output=True
        )
        told.append(json.loads(out.stdout))
        first = told[-1]["first"]
        grown = {name: f"{(told[-1][name] - told[0][name]) / 1e6:+.1f}" for name in told[0]}
        yield Measurement(f"open {rows:,} rows, first batch", first, first, 1, rows, "rows", _growth(grown, len(told)))


def _growth(grown: dict[str, str], number: int) -> str:
    """MB more than the first folder took."""
    if number == 1:
        return ""
    return (
        f"own memory {grown['own']} MB over 10,000 rows, after 200 batches {grown['later_own']}; "
        f"mapped files {grown['mapped']}, {grown['later_mapped']}"
    )


def _told(measured: Measurement, note: str) -> Measurement:
    return replace(measured, note=note)


def _prepared(scratch: Path) -> Path:
    """COCO or drawn pictures, prepared at 256 pixels."""
    if COCO.is_dir():
        annotations = COCO / "annotations"
        source = CocoSource(COCO / "images", annotations / "instances.json", annotations / "captions.json")
    else:
        make_sample(scratch / "coco", 100, 0)
        source = sample_source(scratch / "coco")
    prepare(source, scratch / "base", build_config({}), run_here)
    return scratch / "base"


def _crowded_rows(base: Path) -> list[dict]:
    """Rows with at least 10 objects that are no crowds; where there are none, the objects of all rows over and over."""
    manifest = load_manifest(base)
    rows = [row for split in SPLITS for table in read_split(base, manifest, split) for row in table.to_pylist()]
    rows = [row for row in rows if row["labels"] and not any(row["crowds"]) and None not in row["masks"]]
    return [row for row in rows if len(row["labels"]) >= OBJECTS] or [_repeated(row) for row in rows]


def _repeated(row: dict) -> dict:
    times = -(-OBJECTS // len(row["labels"]))
    lists = ("annotation_ids", "labels", "boxes", "areas", "crowds", "masks", "colours")
    return {**row, **{name: row[name] * times for name in lists}}


def _with_ids(rows: list[dict], ids: range) -> pa.Table:
    """As many rows as ids, over and over the same."""
    return pa.Table.from_pylist([{**rows[n % len(rows)], "image_id": n} for n in ids], schema=SCHEMA)


def _folder(out: Path, base: Path, table: pa.Table, shards: int) -> Path:
    """Prepared data whose training split is `shards` copies of one shard under other names."""
    shutil.copytree(base / "domain", out / "domain")
    first = write_shard(out, shard_name("train", 0), "train", table)
    names = [shard_name("train", number) for number in range(shards)]
    for name in names[1:]:
        shutil.copyfile(out / first.name, out / name)
    one = build_index([table], Vocabulary.load(out / "domain"))
    index = write_shard(out, index_name("train"), "train", _many(one, shards), INDEX_SCHEMA)
    manifest = load_manifest(base)
    manifest["shards"] = [asdict(replace(first, name=name)) for name in names]
    manifest["indices"] = [asdict(index)]
    save_manifest(out, manifest)
    return out


def _many(index: pa.Table, copies: int) -> pa.Table:
    whole = pa.concat_tables([index] * copies).combine_chunks()
    return whole.set_column(0, INDEX_SCHEMA.field("image_id"), pa.array(np.arange(len(whole))))


def _plain(rows: list[dict]) -> dict[str, Tensor]:
    """Pillow, pycocotools an object, numpy's mean: what one would write first."""
    images, masks = [], []
    for row in rows:
        images.append(np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")).transpose(2, 0, 1).copy())
        cells = [_mask(text).reshape(64, 4, 64, 4).mean((1, 3)) for text in row["masks"][:OBJECTS]]
        masks.append(np.round(255 * np.stack(cells)).astype(np.uint8))
    return {"images": torch.from_numpy(np.stack(images)), "masks": torch.from_numpy(np.stack(masks))}


def _dense(rows: list[dict]) -> dict[str, Tensor]:
    """As the published code passes layouts on: a float map a class, at each of the three scales, and float pictures."""
    made: dict[str, Tensor] = {}
    images = [np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in rows]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    maps = torch.zeros(len(rows), CLASSES, SIZE, SIZE)
    for number, row in enumerate(rows):
        for label, text in zip(row["labels"][:OBJECTS], row["masks"][:OBJECTS], strict=True):
            maps[number, label] = torch.maximum(maps[number, label], torch.from_numpy(_mask(text)).float())
    for side in (64, 128, SIZE):
        made[f"pixels{side}"] = torch.nn.functional.interpolate(pixels, size=(side, side), mode="area")
        made[f"maps{side}"] = torch.nn.functional.interpolate(maps, size=(side, side), mode="area")
    return made


def _mask(text: str) -> np.ndarray:
    return coco_mask.decode({"size": [SIZE, SIZE], "counts": text.encode()})


def _bytes(batch: Batch | dict[str, Tensor]) -> int:
    """Bytes of all tensors."""
    if isinstance(batch, dict):
        return sum(tensor.nbytes for tensor in batch.values())
    layout = batch.layout
    tensors = [batch.image_ids, batch.words, batch.word_count, batch.images]
    return sum(t.nbytes for t in [*tensors, layout.labels, layout.boxes, layout.count, layout.masks] if t is not None)
