"""Last step of `prepare`: vocabulary, statistics, indices, rejected items, manifest."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import objgan
import objgan.files
import objgan.vocabulary
from objgan.domain import Domain, LayoutStatistics
from objgan.errors import InputError
from objgan.geometry import overlap, xywh_to_cxywr
from objgan.sections import DataConfig
from objgan.stated_captions import stated_words
from objgan.vocabulary import SPECIAL, Vocabulary
from pipelines.data.prepare import coverage
from pipelines.data.prepare.convert import WORK, read_receipt
from pipelines.data.prepare.ingest import UNREAD, Ingested
from pipelines.data.prepare.vector_sources import GivenVectors
from pipelines.data.shards.concerns import contradictions
from pipelines.data.shards.format import (
    COUNTED,
    SCHEMA_VERSION,
    Shard,
    count_rows,
    dataset_digest,
    index_name,
    read_shard,
    write_shard,
)
from pipelines.data.shards.index import INDEX_SCHEMA, build_index
from pipelines.data.shards.manifest import ACCOUNTS, COUNTS, REJECTED, SPLITS, TEXT_IDS
from pipelines.data.shards.rejected import Reject, RejectCounts, read_rejects, write_rejects

_OVERLAP_BINS = 101
NO_OBJECTS = ((0.5, 0.5, 0.5, 1.0), (1.0, 1.0, 1.0, 1.0))
SMALLEST_STD = 1e-3
COLUMNS = ["labels", "boxes", "crowds"]


@dataclass(frozen=True)
class Result:
    """Result of all blocks. blocks: names of the planned shards, in order; shards: those that have rows.

    excluded: rejects of images that the last plan left out, because a split had only unusable images
    written: the captions were written from the objects; those in shards count as the input
    """

    out: Path
    data: Ingested
    blocks: list[str]
    shards: list[Shard]
    excluded: list[Reject]
    written: bool = False

    def tables(self, split: str, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns of the split's shards, shard by shard."""
        return (read_shard(self.out / shard.name, columns) for shard in self.shards if shard.split == split)


def list_rejects(result: Result) -> RejectCounts:
    """Write the file of all rejects: of the JSON, of images left out of the plan, of every shard."""
    return write_rejects(result.out / REJECTED, _all_rejects(result))


def _all_rejects(result: Result) -> Iterator[Reject]:
    yield from read_rejects(result.out / WORK / UNREAD)
    yield from result.excluded
    for name in result.blocks:
        report = read_receipt(result.out, name)
        if report is None:
            raise RuntimeError(f"the receipt of {name} is missing in {result.out / WORK}: run prepare again")
        yield from report.rejected


def finish(
    result: Result, config: DataConfig, rejected: RejectCounts, vectors: GivenVectors | None = None
) -> dict[str, Any]:
    """Write vocabulary, statistics and indices. Returns the manifest, which the caller writes.

    vectors: of the words; None: fitted on the captions

    Raises:
        InputError: no caption of the training split has a word.
        RuntimeError: the input is not the sum of shards and rejects.
    """
    vocabulary, vector_facts = _vocabulary(result, config, vectors)
    domain = _domain(result, config, vocabulary)
    domain.save(result.out / "domain")
    files = {path.name: objgan.files.sha256(path) for path in sorted((result.out / "domain").glob("[!.]*"))}
    indices = [_write_index(result, split, domain) for split in SPLITS]
    total = sum((count_rows(table) for split in SPLITS for table in result.tables(split, COUNTED)), Counter[str]())
    counts = {name: total[name] for name in COUNTS}
    totals = result.data.totals | ({"caption": counts["captions"]} if result.written else {})
    _check_accounts(totals, counts, rejected)
    path = result.out / REJECTED
    facts = {"file": REJECTED, "bytes": path.stat().st_size, "sha256": objgan.files.sha256(path)}
    return {
        "schema_version": SCHEMA_VERSION,
        "code_version": objgan.__version__,
        "digest": dataset_digest([*result.shards, *indices], files),
        "settings": config.model_dump(mode="json"),
        "columns": _columns(result, counts),
        "rows": {split: sum(shard.rows for shard in result.shards if shard.split == split) for split in SPLITS},
        "totals": totals,
        "counts": counts | {"words": len(domain.vocabulary)},
        "rejected": facts | rejected.facts(),
        "text_ids": _list_text_ids(result.out),
        "contradictions": contradictions(shard.contradictions for shard in result.shards),
        "classes": list(result.data.classes),
        "vectors": vector_facts,
        "coverage": _coverage(result, config, vocabulary),
        "domain": files,
        "shards": [asdict(shard) for shard in result.shards],
        "indices": [asdict(index) for index in indices],
    }


def _list_text_ids(out: Path) -> dict[str, Any] | None:
    """Move the list of ids that were texts into the folder; None: no id was."""
    path = (out / WORK / TEXT_IDS).replace(out / TEXT_IDS)
    if not path.stat().st_size:
        path.unlink()
        return None
    with path.open("rb") as file:
        rows = sum(1 for _ in file)
    return {"file": TEXT_IDS, "bytes": path.stat().st_size, "sha256": objgan.files.sha256(path), "rows": rows}


def _check_accounts(totals: Mapping[str, int], counts: Mapping[str, int], rejected: RejectCounts) -> None:
    for kind, name in ACCOUNTS:
        if totals[kind] != counts[name] + rejected.kinds[kind]:
            raise RuntimeError(
                f"prepare: the counts of {kind}s differ: {totals[kind]} in the input, {counts[name]} in shards, "
                f"{rejected.kinds[kind]} rejected"
            )


class _Tokens(Iterable[list[str]]):
    """The words of every caption of the training split, read from the shards at each iteration."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def __iter__(self) -> Iterator[list[str]]:
        for table in self._result.tables("train", ["tokens"]):
            yield from (text.split() for row in table["tokens"].to_pylist() for text in row)


def _vocabulary(result: Result, config: DataConfig, vectors: GivenVectors | None) -> tuple[Vocabulary, dict[str, Any]]:
    """Words and vectors of the training split alone, and what the manifest says of the vectors.

    Beside the captions' words, those of captions that are made from layouts.
    """
    tokens = _Tokens(result)
    known = objgan.vocabulary.known_words(tokens, config.min_count)
    if len(known) == len(SPECIAL):
        raise InputError(f"captions: no word occurs data.min_count={config.min_count} times in the training captions")
    more = stated_words(result.data.classes, result.data.synonyms) if config.language == "en" else []
    words = objgan.vocabulary.extended(known, more)
    if vectors is None:
        values = np.zeros((len(words), config.vector_channels), np.float32)
        values[: len(known)] = objgan.vocabulary.fit_vectors(tokens, known, config.vector_channels)
        facts: dict[str, Any] = {"source": "captions", "sha256": None, "channels": config.vector_channels}
    else:
        values, found = vectors.fit(tokens, words)
        facts = {"source": vectors.source, "sha256": vectors.digest, "channels": vectors.channels} | asdict(found)
    return Vocabulary(words, values, config.language), facts


def _coverage(result: Result, config: DataConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """How many words of the held-out captions are known, and why, where they are few."""
    tables = (table for split in SPLITS if split != "train" for table in result.tables(split, ["tokens"]))
    held_out, why = coverage.held_out(tables, vocabulary), ""
    if held_out.little:
        training = chain.from_iterable(_Tokens(result))
        why = coverage.reason(held_out, training, config.language, config.min_count)
    return coverage.facts(held_out, why)


def _domain(result: Result, config: DataConfig, vocabulary: Vocabulary) -> Domain:
    """Words, vectors and statistics of the training split alone."""
    tables = result.tables("train", COLUMNS)
    classes = result.data.classes
    layouts = layout_statistics(tables, len(classes), config.max_objects)
    return Domain(vocabulary, classes, layouts, result.data.synonyms)


def _write_index(result: Result, split: str, domain: Domain) -> Shard:
    """What the reader must know of a split's rows before it opens their shards."""
    table = build_index(result.tables(split, ["image_id", "tokens", "masks", "crowds"]), domain.vocabulary)
    return write_shard(result.out, index_name(split), split, table, INDEX_SCHEMA)


def _columns(result: Result, counts: Mapping[str, int]) -> dict[str, bool]:
    """The columns that stages may ask for; attributes: whether any colour or scene is known."""
    first = next(result.tables("train", ["image"]))
    attributes = counts["colours"] + counts["scenes"] > 0
    pixels = first["image"].null_count < len(first)
    return {"image": pixels, "boxes": True, "masks": counts["masks"] > 0, "attributes": attributes}


def layout_statistics(tables: Iterable[pa.Table], classes: int, max_objects: int) -> LayoutStatistics:
    """Statistics of shards: of each image, its `max_objects` largest objects that are not crowds.

    `tables` need the columns `COLUMNS`, and are read once.
    """
    boxes, counts = [np.zeros((0, 4), np.float32)], [np.zeros((0, classes), np.uint16)]
    overlaps = np.zeros((2, _OVERLAP_BINS), np.int64)
    for table in tables:
        layouts = list(_layouts(table, max_objects))
        overlaps += sum(_overlaps(*layout) for layout in layouts)
        boxes.append(np.concatenate([boxes[0], *(sides for _, sides in layouts)]))
        # An image has at most max_objects: two bytes suffice for each of the images x classes values.
        rows = [np.bincount(labels, minlength=classes) for labels, _ in layouts]
        counts.append(np.array(rows, np.uint16).reshape(-1, classes))
    each = np.concatenate(counts)
    mean, std = _moments(np.concatenate(boxes))
    objects = np.bincount(each.sum(1, dtype=np.int64), minlength=max_objects + 1)
    return LayoutStatistics(
        mean=mean,
        std=std,
        class_counts=tuple(int(n) for n in each.sum(0, dtype=np.int64)),
        object_counts=tuple(int(n) for n in objects),
        class_caps=tuple(_cap(column[column > 0]) for column in each.T),
        images=len(each),
        overlaps=(_most_overlap(overlaps[0]), _most_overlap(overlaps[1])),
    )


def _overlaps(labels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """How many pairs of an image overlap by how much, int64 [2, bins]: of one class, of different classes."""
    one, other = np.triu_indices(len(labels), 1)
    shares = overlap(torch.from_numpy(boxes[one]), torch.from_numpy(boxes[other])).numpy()
    bins = np.ceil(shares * (_OVERLAP_BINS - 1)).astype(np.int64)
    same = labels[one] == labels[other]
    return np.stack([np.bincount(bins[kind], minlength=_OVERLAP_BINS) for kind in (same, ~same)])


def _most_overlap(pairs: np.ndarray) -> float:
    """The 95th percentile, from pairs by overlap; 1 without any."""
    if not pairs.sum():
        return 1.0
    return float(np.searchsorted(pairs.cumsum(), 0.95 * pairs.sum()) / (_OVERLAP_BINS - 1))


def _layouts(table: pa.Table, max_objects: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each row: labels int64 [r] and boxes float32 [r, 4], xywh fractions."""
    columns = (table[name].to_pylist() for name in COLUMNS)
    for labels, boxes, crowds in zip(*columns, strict=True):
        kept = [index for index, crowd in enumerate(crowds) if not crowd][:max_objects]
        sides = np.array(boxes, np.float32).reshape(-1, 4)
        yield np.array(labels, np.int64)[kept], sides[kept]


Moments = tuple[tuple[float, float, float, float], tuple[float, float, float, float]]


def _moments(boxes: np.ndarray) -> Moments:
    """Mean and standard deviation of (centre x, centre y, width, height / width) over xywh [N, 4], 6 decimals."""
    if not len(boxes):
        return NO_OBJECTS
    coordinates = xywh_to_cxywr(torch.from_numpy(boxes.astype(np.float64))).numpy()
    mean, std = coordinates.mean(0), np.maximum(coordinates.std(0), SMALLEST_STD)
    a, b, c, d = (round(float(value), 6) for value in mean)
    e, f, g, h = (round(float(value), 6) for value in std)
    return (a, b, c, d), (e, f, g, h)


def _cap(counts: np.ndarray) -> int:
    """The 99th percentile of a class's count in the images that have it, at least 2."""
    return max(2, int(np.ceil(np.percentile(counts, 99)))) if len(counts) else 2
