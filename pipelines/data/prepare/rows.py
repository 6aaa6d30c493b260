"""One COCO image with all that is known of it -> one row of a shard. What Ray's workers run, and tests call."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from objgan.run_lengths import BadMask
from objgan.vocabulary import tokenize
from pipelines.data.prepare.coco_records import known_number
from pipelines.data.shards.format import SCHEMA
from pipelines.data.shards.image_files import Unreadable
from pipelines.data.shards.masks import share_outside, squash_segmentation
from pipelines.data.shards.pixels import read_image, squash
from pipelines.data.shards.rejected import Reject

Row = dict[str, Any]
ASPECT_TOLERANCE = 0.02
_TINY, _BORDER = 2.0, 1.0
"""Pixels of the original: sides of a box that hardly covers one; how far a box may reach over the border."""
_OVERSIZED, _OUTSIDE = 1.2, 0.2
"""Area by that of the box; share of a mask outside its box."""


@dataclass
class Record:
    """An image of schema `coco_records.IMAGES`, its objects of `OBJECTS` and its captions of `CAPTIONS`, in order."""

    image: Row
    objects: list[Row] = field(default_factory=list)
    captions: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Conversion:
    """How records become rows.

    split:  that all of them belong to
    fetch:  the bytes of an image's file, by its record (see `image_files.read_bytes`); None: no pixels
    size:   side of the stored picture and masks
    labels: category id -> label
    language: of the captions (see `objgan.languages`)
    """

    split: str
    fetch: Callable[[Row], bytes] | None
    size: int
    labels: dict[int, int]
    language: str = "en"


@dataclass
class Converted:
    """Rows that came out, and what did not, in the order of the records; and what in the rows disagrees."""

    rows: list[Row] = field(default_factory=list)
    rejected: list[Reject] = field(default_factory=list)
    contradictions: Counter[str] = field(default_factory=Counter)
    """By the names `manifest.CONTRADICTIONS`."""

    def table(self) -> pa.Table:
        """The rows as a table of the shards' schema."""
        return pa.Table.from_pylist(self.rows, schema=SCHEMA)


def convert(records: Iterable[Record], how: Conversion) -> Converted:
    """Records -> rows of schema `shards.SCHEMA`; every image, object and caption is in a row or rejected."""
    result = Converted()
    for record in records:
        lost: list[Reject] = []
        try:
            result.rows.append(_row(record, how, lost, result.contradictions))
        except Unreadable as error:
            lost = lost_image(record, error)
        result.rejected += lost
    return result


def lost_image(record: Record, error: Unreadable) -> list[Reject]:
    """An image that cannot be used takes its objects and captions with it."""
    image_id = record.image["image_id"]
    parts = [("annotation", one) for one in record.objects] + [("caption", one) for one in record.captions]
    lost = (Reject(kind, known_number(one["id"]), image_id, "pixels", "its image was rejected") for kind, one in parts)
    return [Reject("image", image_id, image_id, "pixels", error.reason, error.detail), *lost]


def _row(record: Record, how: Conversion, lost: list[Reject], contradictions: Counter[str]) -> Row:
    image, width, height = _picture(record.image, how)
    captions = [caption["text"] for caption in record.captions]
    row = {
        "image_id": record.image["image_id"],
        "file_name": record.image["file_name"],
        "width": width,
        "height": height,
        "split": how.split,
        "image": image,
        "captions": captions,
        "tokens": [" ".join(tokenize(caption, how.language)) for caption in captions],
        "scene": record.image["scene"],
    }
    kept = _kept(record.objects, (width, height), how, lost)
    masks = [_mask(one, box, (width, height), how.size, lost) for one, box in kept]
    for (one, box), mask in zip(kept, masks, strict=True):
        contradictions.update(_contradictions(one, (width, height), None if mask is None else (mask, box, how.size)))
    return row | {
        "annotation_ids": [one["id"] for one, _ in kept],
        "labels": [how.labels[one["category"]] for one, _ in kept],
        "boxes": [side for _, box in kept for side in box],
        "areas": [_area(one["area"], (width, height), box) for one, box in kept],
        "crowds": [one["crowd"] for one, _ in kept],
        "masks": masks,
        "colours": [one["colour"] for one, _ in kept],
    }


def _picture(record: Row, how: Conversion) -> tuple[bytes | None, int, int]:
    """The squashed picture, and the width and height that the record's boxes refer to."""
    width, height = record["width"], record["height"]
    if how.fetch is None:
        if width is None:
            raise Unreadable("the record has no width and height, and there are no pixels to take them from")
        return None, width, height
    data = how.fetch(record)
    try:
        picture = read_image(data, None if width is None else (width, height), how.size)
    except Unreadable as error:
        raise Unreadable(error.reason, f"{record['file_name']}{f': {error.detail}' if error.detail else ''}") from None
    if width is None:
        return squash(picture.image, how.size), picture.width, picture.height
    if abs(picture.width * height / (picture.height * width) - 1) > ASPECT_TOLERANCE:
        told = f"{record['file_name']}: {picture.width} x {picture.height}, the record has {width} x {height}"
        raise Unreadable("the aspect ratio differs from the record's", told)
    return squash(picture.image, how.size), width, height


def _kept(
    objects: list[Row], sides: tuple[int, int], how: Conversion, lost: list[Reject]
) -> list[tuple[Row, list[float]]]:
    """The objects that can be used, with their boxes (xywh, fractions), largest box first, ties by annotation id."""
    found = []
    for index, one in enumerate(objects):
        box = _box(one["box"], *sides)
        if one["category"] not in how.labels:
            lost.append(_reject("annotation", one, "its category is not in the JSON", str(one["category"])))
        elif box is None:
            lost.append(_reject("annotation", one, "its box is empty or outside the image", str(one["box"])))
        else:
            # Rounded, so that boxes of one size are ties wherever they lie.
            found.append((-round(box[2] * box[3], 9), one["id"], index, box))
    found.sort()
    return [(objects[index], box) for *_, index, box in found]


def _contradictions(one: Row, sides: tuple[int, int], mask: tuple[str, list[float], int] | None) -> Iterator[str]:
    """What an object counts as, by the names `manifest.CONTRADICTIONS`.

    mask: what `share_outside` takes; None without one
    """
    x, y, w, h = one["box"]
    yield "boxes"
    if max(w, h) < _TINY:
        yield "tiny"
    if min(x, y) < -_BORDER or x + w > sides[0] + _BORDER or y + h > sides[1] + _BORDER:
        yield "cut"
    if one["area"] is not None:
        yield "areas"
        if one["area"] > _OVERSIZED * w * h:
            yield "oversized"
    if mask is not None:
        yield "masks"
        if share_outside(*mask) > _OUTSIDE:
            yield "outside"


def _reject(kind: str, one: Row, reason: str, detail: str) -> Reject:
    return Reject(kind, known_number(one["id"]), one["image_id"], "objects", reason, detail)


_ZERO = 2.0**-150
"""A side of a box that is not larger is 0 in single precision, as shards hold it."""


def _box(box: list[float], width: int, height: int) -> list[float] | None:
    """xywh in pixels -> xywh fractions, cut at the border; None where nothing is left."""
    x, y, w, h = box
    left, right = (min(max(edge / width, 0.0), 1.0) for edge in (x, x + w))
    top, bottom = (min(max(edge / height, 0.0), 1.0) for edge in (y, y + h))
    w, h = right - left, bottom - top
    return [left, top, w, h] if min(w, h) > _ZERO else None


def _area(area: float | None, sides: tuple[int, int], box: list[float]) -> float:
    """Fraction of the picture: the segment's area where the record knows it, the box's otherwise."""
    return box[2] * box[3] if area is None else min(area / (sides[0] * sides[1]), 1.0)


def _mask(one: Row, box: list[float], sides: tuple[int, int], size: int, lost: list[Reject]) -> str | None:
    segmentation = one["polygons"]
    if segmentation is None and one["other"] is not None:
        segmentation = json.loads(one["other"])
    if segmentation is None:
        return None
    if one.get("flaw") is not None:
        lost.append(_reject("mask", one, f"{one['flaw']}; the object is kept without a mask", segmentation))
        return None
    try:
        return squash_segmentation(segmentation, *sides, box, size)
    except BadMask as error:
        lost.append(_reject("mask", one, f"{error.reason}; the object is kept without a mask", error.detail))
        return None
