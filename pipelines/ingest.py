"""The JSON of a COCO data set, read as a stream, to rows aside on the disk that are ready to be joined by image."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from objgan.errors import InputError
from pipelines.coco import CocoSource
from pipelines.coco_records import (
    CAPTIONS,
    IMAGES,
    OBJECTS,
    Record,
    Row,
    caption_row,
    image_row,
    known_number,
    object_row,
)
from pipelines.json_stream import first_record, records
from pipelines.record_values import Unusable, shown, whole_or_none
from pipelines.rejects import Reject, write_rejects
from pipelines.spill import Spill, scan

UNREAD = "rejected-unread.jsonl"
_Parse = Callable[[Record, int], Row]


@dataclass(frozen=True)
class Ingested:
    """What the JSON says, before any pixel is read. Objects and captions lie in spills beside it.

    images:     table of schema `IMAGES`, sorted by id: those that can become rows
    classes:    names by label; label = place of the category among all, sorted by category id
    categories: category ids by label
    totals:     what there was: "image", "annotation" and "caption"
    synonyms:   class -> words by which captions name it
    """

    images: pa.Table
    classes: tuple[str, ...]
    categories: tuple[int, ...]
    totals: dict[str, int]
    synonyms: Mapping[str, Sequence[str]]


def ingest(source: CocoSource, work: Path) -> Ingested:
    """Read all JSON into `work`, and what of it cannot become part of any row into `work`'s file `UNREAD`.

    Raises:
        InputError: a file is missing, unreadable, not JSON, not COCO JSON, swapped with the other one, or empty; no
            image has a caption or belongs to a split.
    """
    if first_record(source.instances, "instances", "images") is None:
        raise InputError(f'instances: {source.instances} is an empty data set: its list "images" has no entry')
    _check_swapped(source)
    classes, categories = read_classes(source.instances)
    strange = sorted(source.synonyms.keys() - set(classes))
    if strange:
        raise InputError(
            f"--synonyms: {source.instances} has no category {strange[0]!r}; there are {', '.join(classes):.200}"
        )
    work.mkdir(parents=True, exist_ok=True)
    reading = _Reading(source, work)
    write_rejects(work / UNREAD, reading.all())
    return Ingested(reading.images, classes, categories, reading.totals, source.synonyms)


class _Reading:
    """Reads one file after the other; `all` yields what is rejected on the way."""

    def __init__(self, source: CocoSource, work: Path) -> None:
        self._source, self._work = source, work
        self.totals = {"image": 0, "annotation": 0, "caption": 0}
        self.images = IMAGES.empty_table()

    def all(self) -> Iterator[Reject]:
        yield from self._images()
        yield from self._strangers()
        for kind, path, schema, parse in (
            ("caption", self._source.captions, CAPTIONS, caption_row),
            ("annotation", self._source.instances, OBJECTS, object_row),
        ):
            yield from self._spill(kind, path, schema, parse)
        known = self.images["image_id"].to_numpy()
        yield from self._keep()
        for kind in ("caption", "annotation"):
            yield from self._orphans(kind, known)

    def _images(self) -> Iterator[Reject]:
        """All images of the instances JSON, those with an id seen before apart."""
        path, batches, rows = self._source.instances, [], []
        for image in records(path, "instances", "images"):
            self.totals["image"] += 1
            try:
                rows.append(image_row(image))
            except Unusable as error:
                yield Reject("image", None, None, "read", error.reason, error.detail or shown(image))
            if len(rows) == 4096:
                batches.append(pa.RecordBatch.from_pylist(rows, schema=IMAGES))
                rows = []
        batches.append(pa.RecordBatch.from_pylist(rows, schema=IMAGES))
        table = pa.Table.from_batches(batches)
        ids = table["image_id"].to_numpy()
        order = np.argsort(ids, kind="stable")
        first = np.ones(len(ids), bool)
        first[1:] = ids[order][1:] != ids[order][:-1]
        self.images = table.take(pa.array(order[first])).combine_chunks()
        for index in np.sort(order[~first]).tolist():
            number, name = int(ids[index]), table["file_name"][index].as_py()
            yield Reject("image", number, number, "read", "an image record with this id came before", name)

    def _strangers(self) -> Iterator[Reject]:
        """Images that only the captions know: whether they show any object is not known."""
        known = self.images["image_id"].to_numpy()
        images = records(self._source.captions, "captions", "images", optional=True)
        found = (whole_or_none(image.get("id")) for image in images)
        ids = np.unique(np.array([one for one in found if one is not None], np.int64))
        for number in np.setdiff1d(ids, known, assume_unique=True).tolist():
            self.totals["image"] += 1
            yield Reject("image", number, number, "join", "in the captions JSON alone, the instances JSON lacks it")

    def _spill(self, kind: str, path: Path, schema: pa.Schema, parse: _Parse) -> Iterator[Reject]:
        spill = Spill(self._work, kind, schema)
        for place, annotation in enumerate(records(path, _WHAT[kind], "annotations")):
            self.totals[kind] += 1
            try:
                spill.add(parse(annotation, place))
            except Unusable as error:
                own, image_id = (whole_or_none(annotation.get(name)) for name in ("id", "image_id"))
                yield Reject(kind, own, image_id, "read", error.reason, error.detail or shown(annotation))
        spill.close()

    def _keep(self) -> Iterator[Reject]:
        """Leave the images that have a caption and belong to a split."""
        ids = self.images["image_id"].to_numpy()
        told = np.zeros(len(ids), bool)
        for image_ids, _ in scan(self._work, "caption"):
            told[np.searchsorted(ids, image_ids[_among(image_ids, ids)])] = True
        source, total = self._source, len(ids)
        if not told.any():
            raise InputError(
                f"captions: none of the {total} images of {source.instances} has a caption in {source.captions}"
            )
        origins = self.images["origin"].to_pylist()
        accepted = np.array([source.split.accepts(*one) for one in zip(ids.tolist(), origins, strict=True)])
        if not (told & accepted).any():
            raise InputError(
                f"--split: none of the {int(told.sum())} images with a caption belongs to any split; check it"
            )
        for index in np.flatnonzero(~(told & accepted)).tolist():
            number = int(ids[index])
            stage, reason = ("split", "in no split") if told[index] else ("join", "without a caption")
            yield Reject("image", number, number, stage, reason)
        self.images = self.images.filter(pa.array(told & accepted)).combine_chunks()

    def _orphans(self, kind: str, known: np.ndarray) -> Iterator[Reject]:
        """What belongs to no image that is kept."""
        kept = self.images["image_id"].to_numpy()
        for image_ids, numbers in scan(self._work, kind):
            lost = ~_among(image_ids, kept)
            there = _among(image_ids, known)
            for index in np.flatnonzero(lost).tolist():
                reason = "its image was rejected" if there[index] else "of an image that the instances JSON lacks"
                yield Reject(kind, known_number(numbers[index]), int(image_ids[index]), "join", reason)


_WHAT = {"annotation": "instances", "caption": "captions"}


def read_classes(path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names and category ids by label.

    Raises:
        InputError: no categories, one without an id or a name, or an id or a name twice.
    """
    names: dict[int, str] = {}
    for category in records(path, "instances", "categories"):
        category_id, name = whole_or_none(category.get("id")), category.get("name")
        if category_id is None or not isinstance(name, str) or not name.strip():
            raise InputError(
                f"instances: {path} has a category without a whole-number id and a name: {shown(category)}"
            )
        if category_id in names or name.strip() in names.values():
            what = f"id {category_id}" if category_id in names else f"name {name.strip()!r}"
            raise InputError(f"instances: {path} has category {what} twice; leave one out")
        names[category_id] = name.strip()
    if not names:
        raise InputError(f'instances: {path} is not COCO instances JSON: it has no list "categories"')
    ids = tuple(sorted(names))
    return tuple(names[number] for number in ids), ids


def _check_swapped(source: CocoSource) -> None:
    boxes = first_record(source.instances, "instances", "annotations") or {}
    texts = first_record(source.captions, "captions", "annotations") or {}
    is_instances = [bool({"category_id", "bbox"} & one.keys()) for one in (boxes, texts)]
    if "caption" in boxes and is_instances[1]:
        raise InputError(
            f"instances and captions are swapped: {source.instances} holds captions, {source.captions} holds instances"
        )
    if "caption" in boxes:
        raise InputError(f"instances: {source.instances} holds captions, not instances; give the instances JSON")
    if is_instances[1] and "caption" not in texts:
        raise InputError(f"captions: {source.captions} holds instances, not captions; give the captions JSON")


def check_folder(source: CocoSource, sizes: Mapping[str, int], names: pa.ChunkedArray) -> None:
    """See that the image folder is the right one.

    Raises:
        InputError: none of the images is there.
    """
    if source.images is not None and not any(name in sizes for name in names.to_pylist()):
        first = names[0].as_py() or "unnamed"
        raise InputError(
            f"images: none of the {len(names)} images of {source.instances} is in {source.where()} (the first: {first})"
        )


def _among(wanted: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """bool [n]: which are in the sorted `ids`, of which there may be very many more than are wanted."""
    if not len(ids):
        return np.zeros(len(wanted), bool)
    found: np.ndarray = ids[np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)] == wanted
    return found
