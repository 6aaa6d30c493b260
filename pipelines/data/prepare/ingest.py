"""Reads the JSON of a COCO data set as a stream into sorted rows on disk, ready to be joined by image."""

import json
import logging
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from objgan.errors import InputError, shown, unknown
from objgan.vocabulary import normalise
from pipelines.data.prepare.coco_records import (
    CAPTIONS,
    IMAGE_ROWS,
    IMAGES,
    OBJECTS,
    Record,
    Row,
    caption_row,
    image_row,
    is_caption,
    is_object,
    known_number,
    object_row,
)
from pipelines.data.prepare.external_sort import Clash, ExternalSort, drop_repeats, scan, take
from pipelines.data.prepare.json_stream import JsonFile, first_record, records
from pipelines.data.prepare.record_values import identity_or_none, text_id
from pipelines.data.prepare.source import CocoPart, CocoSource, Images, Sizes
from pipelines.data.shards.concerns import refuse_lost
from pipelines.data.shards.manifest import LONGEST_NAME, TEXT_IDS
from pipelines.data.shards.rejected import Reject, Unusable, write_rejects

UNREAD = "rejected-unread.jsonl"
logger = logging.getLogger(__name__)
_Parse = Callable[[Record, int], Row]


@dataclass(frozen=True)
class Ingested:
    """The content of the JSON, before any pixel is read. All records are in external sorts on disk.

    images:     those that can become rows
    classes:    names by label; label = place of the category among all, sorted by category id
    categories: category ids by label
    totals:     records in the input: "image", "annotation" and "caption"
    synonyms:   class -> words by which captions name it
    segmented:  objects with a segmentation, usable or not
    """

    images: Images
    classes: tuple[str, ...]
    categories: tuple[int, ...]
    totals: dict[str, int]
    synonyms: Mapping[str, Sequence[str]]
    segmented: int


def ingest(source: CocoSource, work: Path, sizes: Sizes | None = None) -> Ingested:
    """Read all JSON into `work`; records that cannot become part of a row go into its file `UNREAD`.

    A record that occurs identically in several parts of the data set counts once.

    sizes: of the image files, if known: files of different sizes are not the same image

    Raises:
        InputError: a file is missing, unreadable, not JSON, not COCO JSON, swapped with the other one, or empty; no
            image, no caption or no object is left; parts use one id for different records.
    """
    for part in source.parts:
        if first_record(part.instances, "instances", "images") is None:
            raise InputError(f'instances: {part.instances} is an empty data set: its list "images" has no entry')
        _check_swapped(part)
    work.mkdir(parents=True, exist_ok=True)
    with TextIds(work) as texts:
        return _ingest(source, work, sizes, texts)


def _ingest(source: CocoSource, work: Path, sizes: Sizes | None, texts: "TextIds") -> Ingested:
    classes, categories = read_all_classes([part.instances for part in source.parts], texts)
    foreign = sorted(source.synonyms.keys() - set(classes))
    if foreign:
        raise unknown("class", foreign[0], classes, f"--synonyms: {source.named('instances')}: ")
    reading = _Reading(source, work, sizes, texts, frozenset(categories))
    rejected = write_rejects(work / UNREAD, reading.all())
    if source.captions is not None and not reading.totals["caption"]:
        raise InputError(
            f"captions: {source.named('captions')} has no caption; to write captions from the objects, use "
            "--captions-from classes"
        )
    refuse_lost(reading.totals, rejected, work / UNREAD)
    if reading.repeats:
        logger.info(
            f"prepare: {reading.repeats} records occur identically in several parts of the data set; each is counted "
            "once"
        )
    return Ingested(reading.images, classes, categories, reading.totals, source.synonyms, reading.segmented)


class _Reading:
    """Reads one file after the other; `all` yields the rejects."""

    def __init__(
        self, source: CocoSource, work: Path, sizes: Sizes | None, texts: "TextIds", categories: frozenset[int]
    ) -> None:
        self._source, self._work, self._sizes, self._texts = source, work, sizes, texts
        self._categories = categories
        self.totals = {"image": 0, "annotation": 0, "caption": 0}
        self._origins = [part.origin() for part in source.parts]
        self.images = _Columns().images()
        self.repeats = 0
        """Records that occur identically in an earlier part."""
        self.segmented = 0
        self._shared: set[int] = set()

    def all(self) -> Iterator[Reject]:
        yield from self._images()
        yield from self._captions_only()
        yield from self._spill("caption", CAPTIONS, caption_row)
        yield from self._spill("annotation", OBJECTS, self._object_row)
        known = self.images.ids
        yield from self._keep()
        for kind in ("caption", "annotation"):
            yield from self._orphans(kind, known)

    def _images(self) -> Iterator[Reject]:
        """All images of the instances JSON, one for each id."""
        sorter, columns = ExternalSort(self._work, "image", IMAGE_ROWS), _Columns()
        for part, image, size in self._image_records():
            self.totals["image"] += 1
            try:
                row = image_row(image)
                self._texts.add("image", image["id"], row["image_id"])
                row |= {"part": part, "origin": row["origin"] or self._origins[part], "bytes": size}
                sorter.add(row | {"id": row["image_id"], "place": columns.add(row)})
            except Unusable as error:
                yield Reject("image", None, None, "read", error.reason, error.detail or shown(image))
        sorter.close()
        images = columns.images()
        order = np.argsort(images.ids, kind="stable")
        first, ordered = np.ones(len(order), bool), images.ids[order]
        first[1:] = ordered[1:] != ordered[:-1]
        self.images = images.of(order[first])
        if not first.all():
            leaders = order[first][np.cumsum(first) - 1]
            yield from self._repeated(images.ids, order[~first], leaders[~first])

    def _image_records(self) -> Iterator[tuple[int, Record, int]]:
        """(part, record, bytes of its file) of all parts' images."""
        for number, part in enumerate(self._source.parts):
            sizes = np.zeros(0, np.int64) if self._sizes is None else self._sizes[number].sizes
            for place, image in enumerate(records(part.instances, "instances", "images")):
                yield number, image, int(sizes[place]) if place < len(sizes) else -1

    def _repeated(self, ids: np.ndarray, places: np.ndarray, leaders: np.ndarray) -> Iterator[Reject]:
        """Images whose id an earlier one, the leader, has. ids: of the images at all places."""
        order = np.argsort(places)
        for start in range(0, len(order), _SOME):
            some = order[start : start + _SOME]
            rows = {row["place"]: row for row in take(self._work, "image", ids[places[some]])}
            for place, leader in zip(places[some].tolist(), leaders[some].tolist(), strict=True):
                row, before = rows[place], rows[leader]
                if row["part"] == before["part"]:
                    number, name = row["image_id"], row["file_name"]
                    yield Reject("image", number, number, "read", "an earlier image record has the same id", name)
                else:
                    self._check_same(before, row)
                    self.totals["image"] -= 1
                    self.repeats += 1
                    self._shared.add(row["image_id"])

    def _object_row(self, annotation: Record, place: int) -> Row:
        row = object_row(annotation, place)
        if row["category"] not in self._categories:
            raise Unusable("its category is not in the JSON", shown(annotation["category_id"]))
        return row

    def _check_same(self, before: Row, row: Row) -> None:
        """Refuse an image id that two parts use for different images."""
        parts = [self._source.parts[image["part"]] for image in (before, row)]
        names = [name for name in (*IMAGES.names, "bytes") if name != "part"]
        facts = [{name: image[name] for name in names} for image in (before, row)]
        for name in facts[0]:
            # The part of COCO may be known of only one of the records.
            known = name != "origin" or None not in (facts[0][name], facts[1][name])
            if known and facts[0][name] != facts[1][name]:
                image_id = self._texts.as_given("image", row["image_id"])
                raise InputError(
                    f"instances: {parts[0].instances} and {parts[1].instances} use image id {image_id} for "
                    f"different images ({name}: {facts[0][name]}, {facts[1][name]}): change the ids of one file"
                )

    def _each(self, file: str, key: str, optional: bool = False) -> Iterator[tuple[int, Record]]:
        """(part, record) of a list of all parts' `instances` or `captions`."""
        for number, part in enumerate(self._source.parts):
            path = getattr(part, file)
            for record in records(path, file, key, optional=optional) if path is not None else ():
                yield number, record

    def _annotations(self, file: str) -> Iterator[tuple[int, Record]]:
        """(part, record) of all parts' objects or captions."""
        for number, part in enumerate(self._source.parts):
            yield from ((number, record) for record in part.annotations(file))

    def _captions_only(self) -> Iterator[Reject]:
        """Images that only the captions JSON has: whether they show objects is unknown."""
        images = self._each("captions", "images", optional=True)
        numbers = (identity_or_none(image.get("id")) for _, image in images)
        unknown = [np.zeros(0, np.int64)]
        while some := list(islice(numbers, _SOME)):
            ids = np.array([number for number in some if number is not None], np.int64)
            unknown.append(ids[~_among(ids, self.images.ids)])
        for number in np.unique(np.concatenate(unknown)).tolist():
            self.totals["image"] += 1
            yield Reject("image", number, number, "join", "only in the captions JSON, not in the instances JSON")

    def _spill(self, kind: str, schema: pa.Schema, parse: _Parse) -> Iterator[Reject]:
        sorter, ends = ExternalSort(self._work, kind, schema), [0] * len(self._source.parts)
        for place, (part, annotation) in enumerate(self._annotations(_FILE[kind])):
            self.totals[kind] += 1
            ends[part] = place + 1
            try:
                row = parse(annotation, place)
                self._texts.add(kind, annotation.get("id"), row["id"])
                self.segmented += row.get("polygons") is not None or row.get("other") is not None
                sorter.add(row)
            except Unusable as error:
                own, image_id = (identity_or_none(annotation.get(name)) for name in ("id", "image_id"))
                yield Reject(kind, own, image_id, "read", error.reason, error.detail or shown(annotation))
        sorter.close()
        if len(ends) > 1:
            self._drop_repeats(kind, np.maximum.accumulate(ends))

    def _drop_repeats(self, kind: str, ends: np.ndarray) -> None:
        try:
            dropped = drop_repeats(self._work, kind, ends, self._shared)
        except Clash as clash:
            name = _FILE[kind]
            first, second = (getattr(self._source.parts[part], name) for part in clash.parts)
            number = self._texts.as_given(kind, clash.id)
            raise InputError(
                f"{name}: {first} and {second} use {kind} id {number} for different records: change the ids of one file"
            ) from None
        self.totals[kind] -= dropped
        self.repeats += dropped

    def _keep(self) -> Iterator[Reject]:
        """Reject the images that have no caption, or nothing to write one from, or belong to no split."""
        ids, needed = self.images.ids, "caption" if self._source.captions is not None else "object"
        captioned = np.zeros(len(ids), bool)
        for image_ids, _ in scan(self._work, "annotation" if needed == "object" else needed):
            captioned[np.searchsorted(ids, image_ids[_among(image_ids, ids)])] = True
        split = self._source.split
        accepted = split.accepts(self.images)
        for index in np.flatnonzero(~(captioned & accepted)).tolist():
            number = int(ids[index])
            if captioned[index]:
                yield Reject("image", number, number, "split", "in no split", f"--split {split.kind}")
            else:
                yield Reject("image", number, number, "join", f"without {'an' if needed == 'object' else 'a'} {needed}")
        self.images = self.images.of(captioned & accepted)

    def _orphans(self, kind: str, known: np.ndarray) -> Iterator[Reject]:
        """Objects or captions whose image is not kept."""
        kept = self.images.ids
        for image_ids, numbers in scan(self._work, kind):
            lost = ~_among(image_ids, kept)
            has_image = _among(image_ids, known)
            for index in np.flatnonzero(lost).tolist():
                reason = "its image was rejected" if has_image[index] else "its image is not in the instances JSON"
                yield Reject(kind, known_number(numbers[index]), int(image_ids[index]), "join", reason)


_FILE = {"annotation": "instances", "caption": "captions"}
_SOME = 4096


class _Columns:
    """Collects the columns of `Images`."""

    def __init__(self) -> None:
        self._ids, self._parts, self._found, self._origins = array("q"), array("h"), array("b"), array("h")
        self._names: dict[str, int] = {}

    def add(self, row: Row) -> int:
        """Add an image of schema `IMAGE_ROWS`; returns its place."""
        origin = row["origin"]
        self._origins.append(-1 if origin is None else self._names.setdefault(origin, len(self._names)))
        self._ids.append(row["image_id"])
        self._parts.append(row["part"])
        self._found.append(row["bytes"] >= 0)
        return len(self._ids) - 1

    def images(self) -> Images:
        """The images, in the order in which they were added."""
        found = np.frombuffer(self._found, bool)
        ids, parts, origins = (
            np.frombuffer(column, column.typecode) for column in (self._ids, self._parts, self._origins)
        )
        return Images(ids, parts, found, origins, tuple(self._names))


class TextIds:
    """Writes a line for each id that is text and the number in its place: `{"kind": ..., "text": ..., "id": ...}`.

    kind: "category", "image", "caption" or "annotation"
    """

    def __init__(self, work: Path) -> None:
        self._path = work / TEXT_IDS

    def __enter__(self) -> Self:
        self._file = self._path.open("w", encoding="utf-8", errors="backslashreplace")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, kind: str, value: object, number: int) -> None:
        """Write the line of an id, if it is text."""
        if type(value) is str and (text := text_id(value)) is not None:
            self._file.write(json.dumps({"kind": kind, "text": text, "id": number}, ensure_ascii=False) + "\n")

    def as_given(self, kind: str, number: int) -> str:
        """An id as the JSON has it, for messages."""
        self._file.flush()
        with self._path.open(encoding="utf-8") as lines:
            same = (line for line in map(json.loads, lines) if (line["kind"], line["id"]) == (kind, number))
            return next((shown(line["text"]) for line in same), str(number))


def read_all_classes(paths: Sequence[JsonFile], texts: TextIds) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names and category ids by label, of several files that may have categories in common.

    Raises:
        InputError: as `read_classes`, or two files use an id or a name for different categories.
    """
    names: dict[int, str] = {}
    for path in paths:
        for name, number in zip(*read_classes(path, texts), strict=True):
            if names.get(number, name) != name:
                raise InputError(
                    f"instances: {path} calls category {texts.as_given('category', number)} {name!r}, {paths[0]} "
                    f"{names[number]!r}: parts of a data set must have the same categories"
                )
            names[number] = name
    if len(set(names.values())) < len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise InputError(f"instances: {', '.join(map(str, paths))} give the category {twice!r} different ids")
    ids = tuple(sorted(names))
    return tuple(names[number] for number in ids), ids


def read_classes(path: JsonFile, texts: TextIds) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names and category ids by label.

    Raises:
        InputError: no categories, one without an id or a name, or an id or a name twice.
    """
    names: dict[int, str] = {}
    for category in records(path, "instances", "categories"):
        category_id, name = identity_or_none(category.get("id")), category.get("name")
        name = normalise(name) if isinstance(name, str) else ""
        if category_id is None or not name:
            raise InputError(f"instances: {path} has a category without an id and a name: {shown(category)}")
        if len(name) > LONGEST_NAME:
            raise InputError(f"instances: {path} has a category of {len(name):,} characters, {shown(name)}: shorten it")
        if category_id in names or name in names.values():
            repeated = f"id {shown(category['id'])}" if category_id in names else f"name {name!r}"
            raise InputError(f"instances: {path} has category {repeated} twice; remove one")
        texts.add("category", category["id"], category_id)
        names[category_id] = name
    if not names:
        raise InputError(f'instances: {path} is not COCO instances JSON: it has no list "categories"')
    ids = tuple(sorted(names))
    return tuple(names[number] for number in ids), ids


def _check_swapped(source: CocoPart) -> None:
    if source.captions is None:
        return
    if source.in_one_file:
        _check_one_file(source)
        return
    boxes = first_record(source.instances, "instances", "annotations") or {}
    texts = first_record(source.captions, "captions", "annotations") or {}
    if is_caption(boxes) and is_object(texts):
        raise InputError(
            f"instances and captions are swapped: {source.instances} holds captions, {source.captions} holds instances"
        )
    if is_caption(boxes):
        raise _wrong_file(source, "instances", "captions")
    if is_object(texts) and not is_caption(texts):
        raise _wrong_file(source, "captions", "instances")


def _check_one_file(source: CocoPart) -> None:
    """Refuse a single file without captions or without objects; reads until it has seen both."""
    objects = captions = False
    for record in records(source.instances, "instances", "annotations"):
        objects, captions = objects or is_object(record), captions or is_caption(record)
        if objects and captions:
            return
    captions = captions or next(source.annotations("captions"), None) is not None
    if objects and not captions:
        raise _wrong_file(source, "captions", "instances")
    if captions and not objects:
        raise _wrong_file(source, "instances", "captions")


def _wrong_file(source: CocoPart, role: str, other: str) -> InputError:
    return InputError(f"{role}: {getattr(source, role)} holds {other}, not {role}; give the {role} JSON")


def check_folder(source: CocoSource, data: Ingested, work: Path) -> None:
    """Refuse a wrong image folder. work: where `data` were read into.

    Raises:
        InputError: a part has none of its images.
    """
    for number, part in enumerate(source.parts):
        members = data.images.parts == number
        if part.images is not None and members.any() and not data.images.found[members].any():
            first = data.images.ids[members.argmax()]
            name = next(row["file_name"] for row in take(work, "image", [first]))
            raise InputError(
                f"images: none of the {np.count_nonzero(members)} images of {part.instances} is in {part.where()} "
                f"(the first: {name or 'unnamed'})"
            )


def _among(wanted: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """bool [n]: which of `wanted` are in the sorted `ids`, which may be many more."""
    if not len(ids):
        return np.zeros(len(wanted), bool)
    present: np.ndarray = ids[np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)] == wanted
    return present
