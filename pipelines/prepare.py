"""COCO -> Arrow shards, with Ray Data; then vocabulary, word vectors and layout statistics of the training split.

A block of input is the planned rows of one shard, and the worker that converts it writes the shard: no picture
passes through the object store, and what a shard holds does not depend on how many workers there are.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

import objgan
import objgan.files
import objgan.vocabulary
from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.sections import DataConfig
from objgan.vocabulary import Vocabulary
from pipelines.coco import CocoData, CocoSource, read_coco
from pipelines.index import INDEX_SCHEMA, build_index
from pipelines.rows import convert
from pipelines.shards import (
    MANIFEST,
    ROWS_PER_SHARD,
    SCHEMA_VERSION,
    SPLITS,
    Shard,
    dataset_digest,
    index_name,
    load_manifest,
    read_shard,
    read_split,
    save_manifest,
    shard_name,
    summary,
    write_shard,
)
from pipelines.splits import split_images
from pipelines.statistics import layout_statistics

Log = Callable[[str], None]
Runner = Callable[[list[pa.Table], dict[str, Any]], Iterator[str]]
"""Calls `write_block(block, **arguments)` for every block and yields the reports in the blocks' order."""


@dataclass
class _Outcome:
    """What became of the records: shards, images that could not be used, counts of parts left out."""

    shards: list[Shard]
    rejected: list[dict[str, Any]]
    dropped: Counter[str]


def run_on_ray(blocks: list[pa.Table], arguments: dict[str, Any]) -> Iterator[str]:
    """One Ray Data task a block. Ray must be running."""
    context = ray.data.DataContext.get_current()
    before = context.execution_options.preserve_order, context.enable_progress_bars
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    try:
        # from_arrow makes a block of each table: the blocks are the shards, whatever number Ray would choose.
        rows = ray.data.from_arrow(blocks).map_batches(
            write_block, batch_size=None, batch_format="pyarrow", fn_kwargs=arguments
        )
        yield from (row["report"] for row in rows.iter_rows())
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars = before


def run_here(blocks: list[pa.Table], arguments: dict[str, Any]) -> Iterator[str]:
    """One block after the other in this process: the same shards without Ray."""
    return (write_block(block, **arguments)["report"][0].as_py() for block in blocks)


def prepare(
    source: CocoSource, out: Path, config: Config, log: Log = print, run: Runner = run_on_ray
) -> dict[str, Any]:
    """Turn COCO files into shards in `out`. Returns the manifest, which is written last.

    The same inputs and settings give the same bytes. A folder that was finished with them is left as it is.

    Raises:
        InputError: wrong input (see `read_coco`), no usable image, or `out` was prepared from other inputs or settings.
    """
    digests = source.digests()
    if (out / MANIFEST).exists():
        manifest = load_manifest(out)
        _check_same(manifest, digests, config.data, out)
        log(f"prepare: {out} is finished, with these inputs and settings; nothing to do")
        return manifest
    data = read_coco(source.images, source.instances, source.captions)
    log(f"prepare: {len(data.records)} images with captions, {len(data.classes)} classes")
    out.mkdir(parents=True, exist_ok=True)
    outcome = _convert_all(data, out, config.data, run, log)
    _remove_leftovers(out, {shard.name for shard in outcome.shards})
    domain = _domain(data, outcome.shards, out, config.data)
    domain.save(out / "domain")
    indices = [_write_index(split, outcome.shards, domain.vocabulary, out) for split in SPLITS]
    manifest = _manifest(data, outcome, indices, domain, out, config.data) | {"source": digests}
    save_manifest(out, manifest)
    log(summary(manifest))
    return manifest


def _check_same(manifest: Mapping[str, Any], digests: Mapping[str, str], config: DataConfig, out: Path) -> None:
    settings = config.model_dump(mode="json")
    before = manifest["settings"]
    changed = [
        f"data.{k}: {before.get(k)} -> {settings.get(k)}" for k in before | settings if before.get(k) != settings.get(k)
    ]
    changed += [f"other {k}" for k in manifest["source"] | digests if manifest["source"].get(k) != digests.get(k)]
    if changed:
        raise InputError(f"prepare: {out} was prepared differently ({'; '.join(changed)}); give another --out")


def _convert_all(data: CocoData, out: Path, config: DataConfig, run: Runner, log: Log) -> _Outcome:
    """All shards. Where rejected images leave a split empty, the rest is divided again without them."""
    images = None if data.images is None else str(data.images.resolve())
    arguments = {"images": images, "out": str(out.resolve()), "size": config.image_size}
    rejected: dict[int, dict[str, Any]] = {}
    while True:
        usable = [image_id for image_id in data.records["image_id"].to_pylist() if image_id not in rejected]
        if not usable:
            first = next(iter(rejected.values()))
            raise InputError(
                f"prepare: none of the {len(rejected)} images can be used "
                f"(the first: {first['file_name'] or first['image_id']}, {first['reason']})"
            )
        blocks = _blocks(data.records, split_images(usable, config))
        outcome = _collect(run(blocks, arguments), len(blocks), log)
        rejected |= {image["image_id"]: image for image in outcome.rejected}
        if {shard.split for shard in outcome.shards} == set(SPLITS):
            outcome.rejected = [rejected[image_id] for image_id in sorted(rejected)]
            return outcome


def _blocks(records: pa.Table, splits: Mapping[str, list[int]]) -> list[pa.Table]:
    """Tables of at most `ROWS_PER_SHARD` records, in order, with the split and the name of the shard they become."""
    place = {image_id: row for row, image_id in enumerate(records["image_id"].to_pylist())}
    blocks = []
    for split, image_ids in splits.items():
        for number, start in enumerate(range(0, len(image_ids), ROWS_PER_SHARD)):
            part = records.take([place[image_id] for image_id in image_ids[start : start + ROWS_PER_SHARD]])
            part = part.append_column("split", pa.array([split] * len(part)))
            blocks.append(part.append_column("shard", pa.array([shard_name(split, number)] * len(part))))
    return blocks


def write_block(block: pa.Table, images: str | None, out: str, size: int) -> pa.Table:
    """In a worker: convert a block's records, write their shard, report as one row of JSON."""
    split, name = block["split"][0].as_py(), block["shard"][0].as_py()
    converted = convert(block.to_pylist(), split, None if images is None else Path(images), size)
    shard = write_shard(Path(out), name, split, converted.table()) if converted.rows else None
    report = {
        "shard": None if shard is None else asdict(shard),
        "rejected": converted.rejected,
        "dropped": converted.dropped,
    }
    return pa.table({"report": [json.dumps(report)]})


def _collect(reports: Iterator[str], total: int, log: Log) -> _Outcome:
    outcome = _Outcome([], [], Counter())
    for number, text in enumerate(reports, 1):
        report = json.loads(text)
        if report["shard"] is not None:
            outcome.shards.append(Shard(**report["shard"]))
        outcome.rejected += report["rejected"]
        outcome.dropped.update(report["dropped"])
        if number == total or number % -(-total // 10) == 0:
            log(f"prepare: {number}/{total} shards")
    return outcome


def _remove_leftovers(out: Path, kept: set[str]) -> None:
    """Shards of an earlier, unfinished try with other inputs, and what a killed writer left half done."""
    for split in SPLITS:
        for path in [*out.glob(f"{split}-*.arrow"), *out.glob(f".{split}-*.arrow.*")]:
            if path.name not in kept:
                path.unlink()


def _domain(data: CocoData, shards: list[Shard], out: Path, config: DataConfig) -> Domain:
    """Words, vectors and statistics of the training split alone."""
    tables = [read_shard(out / shard.name) for shard in shards if shard.split == "train"]
    tokens = [text.split() for table in tables for row in table["tokens"].to_pylist() for text in row]
    vocabulary = objgan.vocabulary.build(tokens, config.min_count, config.vector_channels)
    return Domain(vocabulary, data.classes, layout_statistics(tables, len(data.classes), config.max_objects))


def _write_index(split: str, shards: list[Shard], vocabulary: Vocabulary, out: Path) -> Shard:
    """What the reader must know of a split's rows before it opens their shards."""
    tables = (read_shard(out / shard.name) for shard in shards if shard.split == split)
    return write_shard(out, index_name(split), split, build_index(tables, vocabulary), INDEX_SCHEMA)


def _manifest(
    data: CocoData, outcome: _Outcome, indices: list[Shard], domain: Domain, out: Path, config: DataConfig
) -> dict[str, Any]:
    files = {path.name: objgan.files.sha256(path) for path in sorted((out / "domain").iterdir())}
    rows = Counter({shard.split: 0 for shard in outcome.shards})
    for shard in outcome.shards:
        rows[shard.split] += shard.rows
    shards = [asdict(shard) for shard in outcome.shards]
    counts = _counts(out, {"shards": shards}) | {"words": len(domain.vocabulary)}
    dropped = Counter(data.dropped) + outcome.dropped
    return {
        "schema_version": SCHEMA_VERSION,
        "code_version": objgan.__version__,
        "digest": dataset_digest([*outcome.shards, *indices], files),
        "settings": config.model_dump(mode="json"),
        "columns": _columns(data, counts),
        "rows": {split: rows[split] for split in SPLITS},
        "counts": counts,
        "dropped": dict(sorted(dropped.items())),
        "rejected": outcome.rejected,
        "classes": list(data.classes),
        "domain": files,
        "shards": shards,
        "indices": [asdict(index) for index in indices],
    }


def _columns(data: CocoData, counts: Mapping[str, int]) -> dict[str, bool]:
    """What a stage may ask for; attributes: whether any colour or scene is known."""
    attributes = counts["colours"] + counts["scenes"] > 0
    return {"image": data.images is not None, "boxes": True, "masks": counts["masks"] > 0, "attributes": attributes}


def _counts(out: Path, manifest: Mapping[str, Any]) -> dict[str, int]:
    """What all shards hold."""
    counts: Counter[str] = Counter()
    for table in (table for split in SPLITS for table in read_split(out, manifest, split)):
        masks, crowds, colours = (pc.list_flatten(table[name]) for name in ("masks", "crowds", "colours"))
        counts["images"] += len(table)
        counts["captions"] += len(pc.list_flatten(table["captions"]))
        counts["objects"] += len(masks)
        counts["masks"] += len(masks) - masks.null_count
        counts["crowds"] += int(np.count_nonzero(crowds))
        counts["colours"] += len(colours) - colours.null_count
        counts["scenes"] += len(table) - table["scene"].null_count
    return {name: counts[name] for name in ("images", "captions", "objects", "masks", "crowds", "colours", "scenes")}
