"""Converts one COCO image with its objects and captions into one row of a shard. Runs in Ray's workers."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from objgan.run_lengths import BadMask
from objgan.stated_captions import StatedCaptions
from objgan.vocabulary import tokenize
from pipelines.data.prepare.coco_records import known_number
from pipelines.data.shards.format import SCHEMA
from pipelines.data.shards.image_files import Unreadable
from pipelines.data.shards.masks import share_outside, squash_segmentation, stand_in
from pipelines.data.shards.pixels import read_image, squash
from pipelines.data.shards.rejected import Reject

Row = dict[str, Any]
ASPECT_TOLERANCE = 0.02
WRITTEN = 5
"""Captions that are written for an image; COCO has as many."""
_TINY, _BORDER = 2.0, 1.0
"""Pixels of the original: a box with smaller sides is tiny; how far a box may extend beyond the border."""
_OVERSIZED, _OUTSIDE = 1.2, 0.2
"""Area divided by the area of the box; share of a mask outside its box."""


@dataclass
class Record:
    """An image of schema `coco_records.IMAGES`, its objects of `OBJECTS` and its captions of `CAPTIONS`, in order."""

    image: Row
    objects: list[Row] = field(default_factory=list)
    captions: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Conversion:
    """How records become rows.

    split:  of all records
    fetch:  the bytes of an image's file, by its record (see `image_files.read_bytes`); None: no pixels
    size:   side of the stored picture and masks
    labels: category id -> label
    language: of the captions (see `objgan.languages`)
    shapes: "masks", or what stands in for them (see `masks.stand_in`)
    writer: of captions from the objects; None: the records have captions
    """

    split: str
    fetch: Callable[[Row], bytes] | None
    size: int
    labels: dict[int, int]
    language: str = "en"
    shapes: str = "masks"
    writer: "CaptionWriter | None" = None


@dataclass(frozen=True)
class CaptionWriter:
    """Writes the captions of images that have none, from their largest objects; the same for every call.

    objects: of an image that captions are about, the largest ones, without crowds
    """

    captions: StatedCaptions
    objects: int

    def write(self, image_id: int, labels: list[int], boxes: list[list[float]], crowds: list[bool]) -> list[str]:
        """Up to `WRITTEN` different captions; boxes: xywh fractions, largest first.

        Raises:
            Unreadable: there is no object to write of.
        """
        kept = [index for index, crowd in enumerate(crowds) if not crowd]
        if not kept:
            raise Unreadable("without a usable object")
        complete, kept = len(kept) == len(crowds) <= self.objects, kept[: self.objects]
        draw, sides = random.Random(f"captions {image_id}"), np.array([boxes[index] for index in kept])
        texts = [self.captions.write([labels[index] for index in kept], sides, complete, draw) for _ in range(WRITTEN)]
        return list(dict.fromkeys(" ".join(words) for words in texts))


@dataclass
class Converted:
    """Rows and rejects, in the order of the records, and counts of contradictory values in the rows."""

    rows: list[Row] = field(default_factory=list)
    rejected: list[Reject] = field(default_factory=list)
    contradictions: Counter[str] = field(default_factory=Counter)
    """By the names `manifest.CONTRADICTIONS`."""

    def table(self) -> pa.Table:
        """The rows as a table of the shards' schema."""
        return pa.Table.from_pylist(self.rows, schema=SCHEMA)


def convert(records: Iterable[Record], conversion: Conversion) -> Converted:
    """Records -> rows of schema `shards.SCHEMA`; every image, object and caption is in a row or rejected."""
    result = Converted()
    for record in records:
        lost: list[Reject] = []
        try:
            result.rows.append(_row(record, conversion, lost, result.contradictions))
        except Unreadable as error:
            lost = lost_image(record, error)
        result.rejected += lost
    return result


def lost_image(record: Record, error: Unreadable) -> list[Reject]:
    """The rejects of an unusable image: the image, its objects and its captions."""
    image_id = record.image["image_id"]
    parts = [("annotation", row) for row in record.objects] + [("caption", row) for row in record.captions]
    lost = (Reject(kind, known_number(row["id"]), image_id, "pixels", "its image was rejected") for kind, row in parts)
    return [Reject("image", image_id, image_id, "pixels", error.reason, error.detail), *lost]


def _row(record: Record, conversion: Conversion, lost: list[Reject], contradictions: Counter[str]) -> Row:
    image, width, height = _picture(record.image, conversion)
    kept = _kept(record.objects, (width, height), lost)
    labels, boxes = [conversion.labels[annotation["category"]] for annotation, _ in kept], [box for _, box in kept]
    crowds = [annotation["crowd"] for annotation, _ in kept]
    captions = [caption["text"] for caption in record.captions]
    if conversion.writer is not None:
        captions = conversion.writer.write(record.image["image_id"], labels, boxes, crowds)
    row = {
        "image_id": record.image["image_id"],
        "file_name": record.image["file_name"],
        "width": width,
        "height": height,
        "split": conversion.split,
        "image": image,
        "captions": captions,
        "tokens": [" ".join(tokenize(caption, conversion.language)) for caption in captions],
        "scene": record.image["scene"],
    }
    given = conversion.shapes == "masks"
    masks = [
        _mask(annotation, box, (width, height), conversion.size, lost)
        if given
        else stand_in(conversion.shapes, box, conversion.size)
        for annotation, box in kept
    ]
    for (annotation, box), mask in zip(kept, masks, strict=True):
        measured = (mask, box, conversion.size) if given and mask is not None else None
        contradictions.update(_contradictions(annotation, (width, height), measured))
    return row | {
        "annotation_ids": [annotation["id"] for annotation, _ in kept],
        "labels": labels,
        "boxes": [side for box in boxes for side in box],
        "areas": [_area(annotation["area"], (width, height), box) for annotation, box in kept],
        "crowds": crowds,
        "masks": masks,
        "colours": [annotation["colour"] for annotation, _ in kept],
    }


def _picture(record: Row, conversion: Conversion) -> tuple[bytes | None, int, int]:
    """The squashed image, and the width and height that the record's boxes refer to."""
    width, height = record["width"], record["height"]
    if conversion.fetch is None:
        if width is None:
            raise Unreadable("the record has no width and height, and there are no pixels to take them from")
        return None, width, height
    data = conversion.fetch(record)
    try:
        picture = read_image(data, None if width is None else (width, height), conversion.size)
    except Unreadable as error:
        raise Unreadable(error.reason, f"{record['file_name']}{f': {error.detail}' if error.detail else ''}") from None
    if width is None:
        return squash(picture.image, conversion.size), picture.width, picture.height
    if abs(picture.width * height / (picture.height * width) - 1) > ASPECT_TOLERANCE:
        detail = f"{record['file_name']}: {picture.width} x {picture.height}, the record has {width} x {height}"
        raise Unreadable("the aspect ratio differs from the record's", detail)
    return squash(picture.image, conversion.size), width, height


def _kept(objects: list[Row], sides: tuple[int, int], lost: list[Reject]) -> list[tuple[Row, list[float]]]:
    """The objects that can be used, with their boxes (xywh, fractions), largest box first, ties by annotation id."""
    usable = []
    for index, annotation in enumerate(objects):
        box = _box(annotation["box"], *sides)
        if box is None:
            reason = "its box is empty or outside the image"
            lost.append(_reject("annotation", annotation, reason, str(annotation["box"])))
        else:
            # Rounded, so that boxes of equal size are ties at all positions.
            usable.append((-round(box[2] * box[3], 9), annotation["id"], index, box))
    usable.sort()
    return [(objects[index], box) for *_, index, box in usable]


def _contradictions(
    annotation: Row, sides: tuple[int, int], mask: tuple[str, list[float], int] | None
) -> Iterator[str]:
    """The counts that an object belongs to, by the names `manifest.CONTRADICTIONS`.

    mask: arguments of `share_outside`; None without a mask
    """
    x, y, w, h = annotation["box"]
    yield "boxes"
    if max(w, h) < _TINY:
        yield "tiny"
    if min(x, y) < -_BORDER or x + w > sides[0] + _BORDER or y + h > sides[1] + _BORDER:
        yield "cut"
    if annotation["area"] is not None:
        yield "areas"
        if annotation["area"] > _OVERSIZED * w * h:
            yield "oversized"
    if mask is not None:
        yield "masks"
        if share_outside(*mask) > _OUTSIDE:
            yield "outside"


def _reject(kind: str, annotation: Row, reason: str, detail: str) -> Reject:
    return Reject(kind, known_number(annotation["id"]), annotation["image_id"], "objects", reason, detail)


_ZERO = 2.0**-150
"""A side of a box up to this is 0 in the single precision of shards."""


def _box(box: list[float], width: int, height: int) -> list[float] | None:
    """xywh in pixels -> xywh fractions, cut at the border; None if nothing is left."""
    x, y, w, h = box
    left, right = (min(max(edge / width, 0.0), 1.0) for edge in (x, x + w))
    top, bottom = (min(max(edge / height, 0.0), 1.0) for edge in (y, y + h))
    w, h = right - left, bottom - top
    return [left, top, w, h] if min(w, h) > _ZERO else None


def _area(area: float | None, sides: tuple[int, int], box: list[float]) -> float:
    """Fraction of the image: the segment's area if the record has it, otherwise the box's."""
    return box[2] * box[3] if area is None else min(area / (sides[0] * sides[1]), 1.0)


def _mask(annotation: Row, box: list[float], sides: tuple[int, int], size: int, lost: list[Reject]) -> str | None:
    segmentation = annotation["polygons"]
    if segmentation is None and annotation["other"] is not None:
        segmentation = json.loads(annotation["other"])
    if segmentation is None:
        return None
    if annotation.get("flaw") is not None:
        reason = f"{annotation['flaw']}; the object is kept without a mask"
        lost.append(_reject("mask", annotation, reason, segmentation))
        return None
    try:
        return squash_segmentation(segmentation, *sides, box, size)
    except BadMask as error:
        lost.append(_reject("mask", annotation, f"{error.reason}; the object is kept without a mask", error.detail))
        return None
