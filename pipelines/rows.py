"""One COCO record -> one row of a shard. Pure functions: what Ray's workers run, and tests call."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from objgan.vocabulary import tokenize
from pipelines.masks import squash_segmentation
from pipelines.pixels import Unreadable, read_image, squash
from pipelines.shards import SCHEMA

Row = dict[str, Any]
ASPECT_TOLERANCE = 0.02


@dataclass
class Converted:
    """Rows that came out, images that did not (id, file name, reason), and counts of parts that were left out."""

    rows: list[Row] = field(default_factory=list)
    rejected: list[Row] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    def table(self) -> pa.Table:
        """The rows as a table of the shards' schema."""
        return pa.Table.from_pylist(self.rows, schema=SCHEMA)


def convert(records: Iterable[Row], split: str, folder: Path | None, size: int) -> Converted:
    """Records of schema `coco.RECORDS` -> rows of schema `shards.SCHEMA` with pictures and masks of `size`."""
    result = Converted()
    for record in records:
        try:
            result.rows.append(_row(record, split, folder, size, result.dropped))
        except Unreadable as error:
            reason = {"image_id": record["image_id"], "file_name": record["file_name"], "reason": str(error)}
            result.rejected.append(reason)
    return result


def _row(record: Row, split: str, folder: Path | None, size: int, dropped: Counter[str]) -> Row:
    image, width, height = _picture(record, folder, size)
    captions = record["captions"]
    row = {
        "image_id": record["image_id"],
        "file_name": record["file_name"],
        "width": width,
        "height": height,
        "split": split,
        "image": image,
        "captions": captions,
        "tokens": [" ".join(tokenize(caption)) for caption in captions],
        "scene": record["scene"],
    }
    return row | _objects(record, width, height, size, dropped)


def _picture(record: Row, folder: Path | None, size: int) -> tuple[bytes | None, int, int]:
    """The squashed picture, and the width and height that the record's boxes refer to."""
    width, height = record["width"], record["height"]
    if folder is None:
        if width is None:
            raise Unreadable("the record has no width and height, and there are no pixels to take them from")
        return None, width, height
    if not record["file_name"]:
        raise Unreadable("the record has no file name")
    image = read_image(folder / record["file_name"], None if width is None else (width, height))
    if width is None:
        return squash(image, size), image.width, image.height
    if abs(image.width * height / (image.height * width) - 1) > ASPECT_TOLERANCE:
        raise Unreadable(f"its pixels are {image.width} x {image.height}, the record says {width} x {height}")
    return squash(image, size), width, height


def _objects(record: Row, width: int, height: int, size: int, dropped: Counter[str]) -> Row:
    """The columns of the objects, largest box first, ties by annotation id."""
    found = []
    for index, number in enumerate(record["annotation_ids"]):
        box = _box(record["boxes"][4 * index : 4 * index + 4], width, height)
        if box is None:
            dropped["objects whose box is empty or outside the picture"] += 1
        else:
            # Rounded, so that boxes of one size are ties wherever they lie.
            found.append((-round(box[2] * box[3], 9), number, index, box))
    found.sort()
    masks = [_mask(record, index, box, (width, height, size), dropped) for *_, index, box in found]
    return {
        "annotation_ids": [number for _, number, _, _ in found],
        "labels": [record["labels"][index] for *_, index, _ in found],
        "boxes": [side for *_, box in found for side in box],
        "areas": [_area(record["areas"][index], width, height, box) for *_, index, box in found],
        "crowds": [record["crowds"][index] for *_, index, _ in found],
        "masks": masks,
        "colours": [record["colours"][index] for *_, index, _ in found],
    }


def _box(box: list[float], width: int, height: int) -> list[float] | None:
    """xywh in pixels -> xywh fractions, cut at the border; None where nothing is left."""
    x, y, w, h = box
    left, right = (min(max(edge / width, 0.0), 1.0) for edge in (x, x + w))
    top, bottom = (min(max(edge / height, 0.0), 1.0) for edge in (y, y + h))
    return [left, top, right - left, bottom - top] if right > left and bottom > top else None


def _area(area: float | None, width: int, height: int, box: list[float]) -> float:
    """Fraction of the picture: the segment's area where the record knows it, the box's otherwise."""
    return box[2] * box[3] if area is None else min(area / (width * height), 1.0)


def _mask(record: Row, index: int, box: list[float], sizes: tuple[int, int, int], dropped: Counter[str]) -> str | None:
    text = record["segmentations"][index]
    if text is None:
        return None
    width, height, size = sizes
    counts = squash_segmentation(json.loads(text), width, height, box, size)
    if counts is None:
        dropped["masks that are no polygon and no run lengths of the picture"] += 1
    return counts
