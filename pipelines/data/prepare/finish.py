"""What is made of finished shards: vocabulary, statistics, indices, the list of rejects, and the manifest over all."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import objgan
import objgan.files
import objgan.vocabulary
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.sections import DataConfig
from objgan.vocabulary import SPECIAL, Vocabulary
from objgan.word_vectors import PipelineVectors
from pipelines.data.prepare import coverage, statistics
from pipelines.data.prepare.convert import WORK, read_receipt
from pipelines.data.prepare.ingest import UNREAD, Ingested
from pipelines.data.shards.concerns import contradictions
from pipelines.data.shards.format import (
    SCHEMA_VERSION,
    SPLITS,
    Shard,
    dataset_digest,
    index_name,
    read_shard,
    write_shard,
)
from pipelines.data.shards.index import INDEX_SCHEMA, build_index
from pipelines.data.shards.rejected import REJECTED, Reject, RejectCounts, read_rejects, write_rejects

_COUNTED = ["captions", "masks", "crowds", "colours", "scene"]


@dataclass(frozen=True)
class Result:
    """What all blocks came to. blocks: names of the planned shards, in order; shards: those that have rows.

    excluded: rejects of images that the last plan left out, because without them a split would have been empty
    """

    out: Path
    data: Ingested
    blocks: list[str]
    shards: list[Shard]
    excluded: list[Reject]

    def tables(self, split: str, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns of the split's shards, one after the other."""
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
            raise RuntimeError(f"the receipt of {name} went missing from {result.out / WORK}: run prepare again")
        yield from report.rejected


def finish(
    result: Result, config: DataConfig, rejected: RejectCounts, vectors: PipelineVectors | None = None
) -> dict[str, Any]:
    """Write vocabulary, statistics and indices; the manifest, which is for the caller to write.

    vectors: of the words; None: fitted on the captions

    Raises:
        InputError: no caption of the training split has a word.
        RuntimeError: what came in is not what is in shards and rejects together.
    """
    vocabulary, vector_facts = _vocabulary(result, config, vectors)
    if len(vocabulary) == len(SPECIAL):
        raise InputError(f"captions: no word occurs data.min_count={config.min_count} times in the training captions")
    domain = _domain(result, config, vocabulary)
    domain.save(result.out / "domain")
    files = {path.name: objgan.files.sha256(path) for path in sorted((result.out / "domain").glob("[!.]*"))}
    indices = [_write_index(result, split, domain) for split in SPLITS]
    counts = _counts(result)
    _check_accounts(result.data.totals, counts, rejected)
    path = result.out / REJECTED
    facts = {"file": REJECTED, "bytes": path.stat().st_size, "sha256": objgan.files.sha256(path)}
    return {
        "schema_version": SCHEMA_VERSION,
        "code_version": objgan.__version__,
        "digest": dataset_digest([*result.shards, *indices], files),
        "settings": config.model_dump(mode="json"),
        "columns": _columns(result, counts),
        "rows": {split: sum(shard.rows for shard in result.shards if shard.split == split) for split in SPLITS},
        "totals": result.data.totals,
        "counts": counts | {"words": len(domain.vocabulary)},
        "rejected": facts | rejected.facts(),
        "contradictions": contradictions(shard.contradictions for shard in result.shards),
        "classes": list(result.data.classes),
        "vectors": vector_facts,
        "coverage": _coverage(result, config, vocabulary),
        "domain": files,
        "shards": [asdict(shard) for shard in result.shards],
        "indices": [asdict(index) for index in indices],
    }


def _check_accounts(totals: Mapping[str, int], counts: Mapping[str, int], rejected: RejectCounts) -> None:
    for kind, name in (("image", "images"), ("caption", "captions"), ("annotation", "objects")):
        if totals[kind] != counts[name] + rejected.kinds[kind]:
            raise RuntimeError(
                f"prepare lost count of {kind}s: {totals[kind]} came in, {counts[name]} are in shards, "
                f"{rejected.kinds[kind]} rejected"
            )


class _Tokens(Iterable[list[str]]):
    """The words of every caption of the training split, read from the shards whenever somebody goes through them."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def __iter__(self) -> Iterator[list[str]]:
        for table in self._result.tables("train", ["tokens"]):
            yield from (text.split() for row in table["tokens"].to_pylist() for text in row)


def _vocabulary(
    result: Result, config: DataConfig, vectors: PipelineVectors | None
) -> tuple[Vocabulary, dict[str, Any]]:
    """Words and vectors of the training split alone, and what the manifest says of the vectors."""
    tokens = _Tokens(result)
    if vectors is None:
        fitted = objgan.vocabulary.build(tokens, config.min_count, config.vector_channels, config.language)
        return fitted, {"source": "captions", "sha256": None, "channels": config.vector_channels}
    words = objgan.vocabulary.known_words(tokens, config.min_count)
    values, coverage = vectors.fit(tokens, words)
    facts = {"source": "pipeline", "sha256": vectors.digest, "channels": vectors.channels}
    return Vocabulary(words, values, config.language), facts | asdict(coverage)


def _coverage(result: Result, config: DataConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """How many words of the held-out captions are known, and why, where they are few."""
    tables = (table for split in SPLITS if split != "train" for table in result.tables(split, ["tokens"]))
    found, why = coverage.held_out(tables, vocabulary), ""
    if found.little:
        training = chain.from_iterable(_Tokens(result))
        why = coverage.reason(found, training, config.language, config.min_count)
    return coverage.facts(found, why)


def _domain(result: Result, config: DataConfig, vocabulary: Vocabulary) -> Domain:
    """Words, vectors and statistics of the training split alone."""
    tables = result.tables("train", statistics.COLUMNS)
    classes = result.data.classes
    layouts = statistics.layout_statistics(tables, len(classes), config.max_objects)
    return Domain(vocabulary, classes, layouts, result.data.synonyms)


def _write_index(result: Result, split: str, domain: Domain) -> Shard:
    """What the reader must know of a split's rows before it opens their shards."""
    table = build_index(result.tables(split, ["image_id", "tokens", "masks", "crowds"]), domain.vocabulary)
    return write_shard(result.out, index_name(split), split, table, INDEX_SCHEMA)


def _columns(result: Result, counts: Mapping[str, int]) -> dict[str, bool]:
    """What a stage may ask for; attributes: whether any colour or scene is known."""
    first = next(result.tables("train", ["image"]))
    attributes = counts["colours"] + counts["scenes"] > 0
    pixels = first["image"].null_count < len(first)
    return {"image": pixels, "boxes": True, "masks": counts["masks"] > 0, "attributes": attributes}


def _counts(result: Result) -> dict[str, int]:
    """What all shards hold."""
    counts: Counter[str] = Counter()
    for table in (table for split in SPLITS for table in result.tables(split, _COUNTED)):
        masks, crowds, colours = (pc.list_flatten(table[name]) for name in ("masks", "crowds", "colours"))
        counts["images"] += len(table)
        counts["captions"] += len(pc.list_flatten(table["captions"]))
        counts["objects"] += len(masks)
        counts["masks"] += len(masks) - masks.null_count
        counts["crowds"] += int(np.count_nonzero(crowds))
        counts["colours"] += len(colours) - colours.null_count
        counts["scenes"] += len(table) - table["scene"].null_count
    return {name: counts[name] for name in ("images", "captions", "objects", "masks", "crowds", "colours", "scenes")}
