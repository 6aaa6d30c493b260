"""`prepare`: COCO to Arrow shards, vocabulary and statistics; resumes after it was killed.

The JSON is read as a stream into sorted runs on disk (`pipelines.data.prepare.ingest`,
`pipelines.data.prepare.external_sort`); the plan assigns images to shards; workers join, convert and write
(`pipelines.data.prepare.convert`); the manifest comes last (`pipelines.data.prepare.finalize`).
"""

import logging
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from objgan.config import Config
from objgan.errors import InputError
from objgan.files import write_atomically
from objgan.languages import check_language
from objgan.sections import DataConfig
from pipelines.data.prepare.card import card, check_card
from pipelines.data.prepare.convert import (
    WORK,
    ConversionReport,
    Runner,
    block_of,
    images_in,
    read_receipt,
    read_report,
    receipt_path,
    run_on_ray,
    write_receipt,
)
from pipelines.data.prepare.finalize import Result, finish, list_rejects
from pipelines.data.prepare.ingest import UNREAD, Ingested, check_folder, ingest
from pipelines.data.prepare.json_stream import header
from pipelines.data.prepare.source import CocoSource, Sizes
from pipelines.data.prepare.vector_sources import FITTED, GivenVectors, given_vectors
from pipelines.data.shards.concerns import refuse_lost, why
from pipelines.data.shards.format import ROWS_PER_SHARD, Shard, load_manifest, save_manifest, shard_name, summary
from pipelines.data.shards.manifest import CARD, FORMATS, MANIFEST, REJECTED, SPLITS
from pipelines.data.shards.progress import ShardProgress
from pipelines.data.shards.rejected import Reject, RejectCounts, read_rejects
from pipelines.runs.status import FILE as STATUS
from pipelines.runs.status import JobStatus
from pipelines.storage.lease import LEASE

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Options of `prepare` that are not settings of the data.

    format: of the shards, "arrow" or "parquet"
    strict: refuse if anything is rejected
    retry:  convert rejected images again
    vectors: a name of `vector_sources.SOURCES`, or the folder of a spaCy pipeline
    job_status: receives the progress
    all_stages: refuse a data set without images, or without any segmentation where masks are needed
    """

    format: str = "arrow"
    strict: bool = False
    retry: bool = False
    vectors: str = FITTED
    job_status: JobStatus | None = None
    all_stages: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"--format: {self.format!r} is none of {', '.join(FORMATS)}")


DEFAULTS = Options()
_NAMED = {"captions": FITTED, "pipeline": "DIR, its pipeline"}
"""`--vectors` by the source of vectors in the manifest, if they differ."""
_JSON_FILES = ("instances", "captions")


def prepare(
    source: CocoSource, out: Path, config: Config, run: Runner = run_on_ray, options: Options = DEFAULTS
) -> dict[str, Any]:
    """Turn COCO files into shards in `out`. Returns the manifest, which is written last.

    The same inputs and settings give the same bytes, also after interruptions. A folder that is finished with them is
    left as it is; an unfinished one is completed.

    Raises:
        InputError: wrong input (see `ingest`), no usable image, object or caption is left, `out` was prepared from
            other inputs or settings, or a record was rejected and `options.strict` forbids it.
    """
    check_language(config.data.language)
    _check_source(source, config, options)
    sizes = source.sizes()
    facts, vectors = _facts(source, sizes, config, options)
    manifest = _finished(out, facts, options)
    if manifest is not None and not options.retry:
        clean(out, manifest)
        return manifest
    if manifest is not None:
        reopen(out, manifest)
    elif options.retry:
        forget_rejects(out)
    out.mkdir(parents=True, exist_ok=True)
    data = _read(source, sizes, out / WORK, config, options)
    result = _Work(source, out, config.data, facts, run, options.job_status).convert(data)
    rejected = list_rejects(result)
    refuse_lost(data.totals, rejected, out / REJECTED)
    if options.strict:
        _refuse(rejected)
    logger.info("prepare: vocabulary, statistics and indices")
    manifest = {**finish(result, config.data, rejected, vectors), **facts.for_manifest()}
    remove_leftovers(out, {shard.name for shard in result.shards})
    write_atomically(out / CARD, card(manifest, [header(part.instances, "instances") for part in source.parts]))
    save_manifest(out, manifest)
    clean(out, manifest)
    _warn_of_val2014(source, result)
    logger.info(summary(manifest))
    return manifest


def check(source: CocoSource, out: Path, config: Config, options: Options = DEFAULTS) -> None:
    """Check what `prepare` checks before it reads pixels. Writes nothing that stays.

    Raises:
        InputError: as `prepare`.
    """
    _check_source(source, config, options)
    sizes = source.sizes()
    facts, _ = _facts(source, sizes, config, options)
    if _finished(out, facts, options) is not None and not options.retry:
        return
    with tempfile.TemporaryDirectory(prefix="objgan-") as scratch:
        data = _read(source, sizes, Path(scratch), config, options)
    source.split.divide(data.images, config.data)


def _check_source(source: CocoSource, config: Config, options: Options) -> None:
    if options.all_stages and source.images is None:
        raise InputError("--images: the stage images needs pixels: give the folder or URI of the images")
    if source.captions is None and config.data.language != "en":
        raise InputError(f"--captions-from: captions are written in English, data.language is {config.data.language}")


def _finished(out: Path, facts: "_Facts", options: Options) -> dict[str, Any] | None:
    """The manifest of a finished folder; without `retry`, nothing is left to do. None: the folder is not finished.

    Raises:
        InputError: `out` was prepared from other inputs or settings, it has rejects that `strict` forbids, or a
            README.md that the card would replace.
    """
    if options.retry or not (out / MANIFEST).exists():
        check_card(out / CARD)
    if not (out / MANIFEST).exists():
        return None
    manifest = load_manifest(out)
    facts.check(manifest, out, options)
    if not options.retry:
        if options.strict and (rows := manifest["rejected"]["rows"]):
            raise InputError(f"--strict: {rows} rejected, listed in {manifest['rejected']['file']}")
        logger.info(f"prepare: {out} is already prepared with these inputs and settings; nothing to do")
    return manifest


def _facts(source: CocoSource, sizes: Sizes, config: Config, options: Options) -> tuple["_Facts", GivenVectors | None]:
    """The facts that the result depends on, and the given word vectors."""
    vectors = given_vectors(options.vectors)
    settings, digest = config.data.model_dump(mode="json"), None if vectors is None else vectors.digest
    return _Facts(source.digests(sizes), settings, source.split.kind, options.format, digest), vectors


def _read(source: CocoSource, sizes: Sizes, work: Path, config: Config, options: Options) -> Ingested:
    """Read the JSON into the folder `work`."""
    logger.info("prepare: reading the JSON")
    data = ingest(source, work, sizes)
    check_folder(source, data, work)
    which = "captions" if source.captions is not None else "objects"
    logger.info(f"prepare: {len(data.images)} images with {which}, {len(data.classes)} classes")
    if options.strict:
        _refuse(RejectCounts(read_rejects(work / UNREAD)))
    if options.all_stages and config.data.shapes == "masks" and not data.segmented:
        raise InputError(
            f"instances: {source.named('instances')} has no segmentation, and the stages shapes and images need masks: "
            "add --set data.shapes=ellipse (or box) to draw a shape in each box instead"
        )
    return data


@dataclass(frozen=True)
class _Facts:
    """The facts that the result depends on, except the code."""

    source: dict[str, str]
    settings: dict[str, Any]
    split: str
    format: str
    vectors: str | None
    """sha256 of given word vectors, None of fitted ones."""

    def for_manifest(self) -> dict[str, Any]:
        """The facts as the manifest has them, without settings and vectors."""
        return {"source": self.source, "split": self.split, "format": self.format}

    def check(self, manifest: Mapping[str, Any], out: Path, options: Options) -> None:
        """Refuse a folder that was prepared from other facts; images may differ if rejected ones are retried."""
        before, now = manifest["settings"], self.settings
        changed = [
            f"data.{key}: {before.get(key)} -> {now.get(key)}"
            for key in before | now
            if before.get(key) != now.get(key)
        ]
        for name in ("split", "format"):
            if manifest[name] != getattr(self, name):
                changed.append(f"--{name}: {manifest[name]} -> {getattr(self, name)}")
        sources = [k for k in manifest["source"] | self.source if manifest["source"].get(k) != self.source.get(k)]
        if "images" in self.source and options.retry:
            sources = [name for name in sources if name != "images"]
        changed += [f"other {name}" for name in sources]
        if manifest["vectors"]["sha256"] != self.vectors:
            changed.append("other --vectors")
        if changed:
            hint = ""
            if changed == ["other images"] and manifest["rejected"]["kinds"]["image"]:
                hint = ", or use --retry-rejected to retry the rejected images"
            if changed == ["other --vectors"]:
                made = manifest["vectors"]["source"]
                hint = f", or use --vectors {_NAMED.get(made, made)}"
            raise InputError(
                f"prepare: {out} was prepared differently ({'; '.join(changed)}); give another --out{hint}"
            )


@dataclass(frozen=True)
class _Work:
    """The conversion of all images to shards."""

    source: CocoSource
    out: Path
    config: DataConfig
    facts: _Facts
    run: Runner
    job_status: JobStatus | None = None

    def convert(self, data: Ingested) -> Result:
        """Convert all shards. If rejected images leave a split empty, the other images are divided again."""
        excluded: dict[int, list[Reject]] = {}
        while True:
            lost_ids = np.fromiter(excluded, np.int64, len(excluded))
            usable = data.images.of(~np.isin(data.images.ids, lost_ids)) if excluded else data.images
            self._check_enough(len(usable), data, excluded)
            planned = self._plan(self.source.split.divide(usable, self.config))
            names = [block["shard"][0].as_py() for block in planned]
            shards, lost = self._collect(planned, data)
            if {shard.split for shard in shards} == set(SPLITS):
                rejects = [reject for image_id in sorted(excluded) for reject in excluded[image_id]]
                return Result(self.out, data, names, shards, rejects, self.source.captions is None)
            excluded |= self._rejects_of(names, lost)

    def _check_enough(self, usable: int, data: Ingested, excluded: Mapping[int, list[Reject]]) -> None:
        """Refuse fewer images than there are splits; the message has the reasons of the rejected images."""
        if usable >= len(SPLITS):
            return
        unread = self.out / WORK / UNREAD
        lost = RejectCounts(chain(read_rejects(unread), *excluded.values()))
        reason = f": {why(lost, 'image')}; see {unread}" if lost.kinds["image"] else ""
        raise InputError(
            f"prepare: {usable} of {data.totals['image']} images can be used, and training, validation and test need "
            f"one each{reason}"
        )

    def _plan(self, splits: Mapping[str, np.ndarray]) -> list[pa.Table]:
        """The blocks, in order, each with the images of one shard."""
        return [
            block_of(image_ids[start : start + ROWS_PER_SHARD], split, shard_name(split, number, self.facts.format))
            for split, image_ids in splits.items()
            for number, start in enumerate(range(0, len(image_ids), ROWS_PER_SHARD))
        ]

    def _written(self) -> dict[str, int] | None:
        """Sizes of the captions that are written, if the data have none."""
        if self.source.captions is not None:
            return None
        return {"objects": self.config.max_objects, "longest": self.config.max_words}

    def _collect(self, planned: list[pa.Table], data: Ingested) -> tuple[list[Shard], list[int]]:
        """The shards, and the ids of unusable images."""
        places = [part.images for part in self.source.parts if part.images is not None]
        arguments = {
            "images": [str(place.resolve() if isinstance(place, Path) else place) for place in places] or None,
            "out": str(self.out.resolve()),
            "size": self.config.image_size,
            "categories": list(data.categories),
            "classes": list(data.classes),
            "language": self.config.language,
            "shapes": self.config.shapes,
            "written": self._written(),
            "json_files": {role: self.facts.source[role] for role in _JSON_FILES if role in self.facts.source},
            "run": secrets.token_hex(8),
        }
        shards, lost = [], []
        with ShardProgress(len(planned), len(data.images)) as progress:
            for done, (block, text) in enumerate(zip(planned, self.run(planned, arguments), strict=True), 1):
                report = read_report(text)
                progress.add(images_in(block), kept=report.kept)
                self._report(done, len(planned), report, images_in(block))
                shards += [] if report.shard is None else [report.shard]
                images = (reject.image_id for reject in report.rejected if reject.kind == "image")
                lost += [image_id for image_id in images if image_id is not None]
        return shards, lost

    def _report(self, done: int, total: int, report: ConversionReport, images: int) -> None:
        if self.job_status is None:
            return
        self.job_status.progress(done, total, 0 if report.kept else images)
        if not report.kept:
            self.job_status.rejected(len(report.rejected))

    def _rejects_of(self, names: list[str], lost: list[int]) -> dict[int, list[Reject]]:
        """Rejects of the images that the next plan leaves out; they belong to no shard."""
        rejects: dict[int, list[Reject]] = {image_id: [] for image_id in lost}
        for report in (read_receipt(self.out, name) for name in names):
            for reject in report.rejected if report else ():
                if reject.image_id in rejects:
                    rejects[reject.image_id].append(replace(reject, shard=None))
        return rejects


def _refuse(rejected: RejectCounts) -> None:
    if rejected.first is not None:
        raise InputError(
            f"--strict: {len(rejected)} rejected, the first: {rejected.first.name()}; fix it, or run without --strict"
        )


def _warn_of_val2014(source: CocoSource, result: Result) -> None:
    """Most images that published results of 2014 are measured on are among COCO 2017's training images."""
    images, listed = result.data.images, np.fromiter(source.val2014, np.int64, len(source.val2014))
    of_2014 = np.union1d(images.ids[images.come_from("val2014")], listed)
    trained = sum(
        int(np.isin(table["image_id"].to_numpy(), of_2014).sum()) for table in result.tables("train", ["image_id"])
    )
    if trained:
        logger.warning(
            f"{trained} images of COCO 2014's validation set are in the training split (--split "
            f"{source.split.kind}): do not compare with published figures, or use --split coco or a list of ids",
            extra={"prefix": "prepare: "},
        )


def reopen(out: Path, manifest: Mapping[str, Any]) -> None:
    """Turn a finished folder into an unfinished one, without the shards that have a rejected image."""
    rejects: dict[str, list[Reject]] = {}
    for reject in read_rejects(out / manifest["rejected"]["file"]):
        if reject.shard is not None:
            rejects.setdefault(reject.shard, []).append(reject)
    for shard in (Shard(**facts) for facts in manifest["shards"]):
        lost = rejects.get(shard.name, [])
        if any(reject.kind == "image" for reject in lost):
            receipt_path(out, shard.name).unlink(missing_ok=True)
        else:
            write_receipt(out, shard.name, ConversionReport(shard, shard.inputs, tuple(lost)))
    (out / MANIFEST).unlink()
    logger.info(f"prepare: retrying the {manifest['rejected']['kinds']['image']} rejected images")


def forget_rejects(out: Path) -> None:
    """Delete the receipts of an unfinished folder's shards with a rejected image: they are converted again."""
    for path in (out / WORK / "receipts").glob("*.json"):
        report = read_receipt(out, path.name.removesuffix(".json"))
        if report is None or any(reject.kind == "image" for reject in report.rejected):
            path.unlink()


def remove_leftovers(out: Path, kept: set[str]) -> None:
    """Remove shards of an earlier, unfinished attempt with other inputs, and files that a killed writer left."""
    for split in SPLITS:
        for ending in FORMATS:
            for path in out.glob(f"{split}-[0-9]*.{ending}"):
                if path.name not in kept:
                    path.unlink()
    names = [*SPLITS, "_index-", *(f"{name}." for name in (MANIFEST, REJECTED, CARD, LEASE, STATUS))]
    halves = [path for name in names for path in out.glob(f".{name}*")] + list((out / "domain").glob(".*"))
    for path in halves:
        path.unlink(missing_ok=True)


def clean(out: Path, manifest: Mapping[str, Any]) -> None:
    """Remove everything that a finished folder does not need."""
    remove_leftovers(out, {shard["name"] for shard in manifest["shards"]})
    shutil.rmtree(out / WORK, ignore_errors=True)
