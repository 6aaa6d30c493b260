"""What must be true of a shard's rows: lists of one length, labels that exist, pictures and masks that decode."""

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image

from objgan.run_lengths import BadMask, read_runs

_OBJECT_LISTS = ("annotation_ids", "areas", "crowds", "masks", "colours")
_NEVER_NULL = ("image_id", "split", "captions", "tokens", "labels", "boxes", *_OBJECT_LISTS)
SLACK = 1e-5
"""Boxes are float32 fractions: the far side of one that touches the border may lie a rounding error outside."""


@dataclass(frozen=True)
class RowRules:
    """What the manifest says that holds for every row.

    size:    side of the stored pictures and masks, pixels
    classes: number of classes; labels are below it
    pixels:  whether every row has a picture
    """

    split: str
    size: int
    classes: int
    pixels: bool


def row_faults(table: pa.Table, rules: RowRules) -> Iterator[tuple[int, str]]:
    """(row, what is wrong with it) of a table of the shards' schema; one row may have several."""
    for at in range(len(table)):
        # As Python objects rows are many times as large: one at a time.
        row = table.slice(at, 1).to_pylist()[0]
        missing = [name for name in _NEVER_NULL if row[name] is None]
        if missing:
            yield at, f"null in {', '.join(missing)}"
            continue
        yield from ((at, f"image {row['image_id']}: {text}") for text in _faults(row, rules))


def _faults(row: Mapping[str, Any], rules: RowRules) -> Iterator[str]:
    if row["split"] != rules.split:
        yield f"split {row['split']!r} in a shard of split {rules.split}"
    if min(row["width"] or 0, row["height"] or 0) < 1:
        yield f"the original is {row['width']} x {row['height']} pixels large"
    if len(row["captions"]) != len(row["tokens"]):
        yield f"{len(row['captions'])} captions, {len(row['tokens'])} lists of words"
    if any(text is None for text in (*row["captions"], *row["tokens"])):
        yield "a caption is null"
    yield from _object_faults(row, rules)
    yield from _picture_faults(row["image"], rules)
    for number, counts in enumerate(row["masks"]):
        try:
            if counts is not None:
                read_runs(counts, rules.size, rules.size)
        except BadMask as error:
            yield f"mask {number} of {rules.size} x {rules.size} pixels does not decode: {error}"


def _object_faults(row: Mapping[str, Any], rules: RowRules) -> Iterator[str]:
    objects = len(row["labels"])
    lengths = {"boxes": 4 * objects, **dict.fromkeys(_OBJECT_LISTS, objects)}
    wrong = [f"{len(row[name])} {name}" for name, length in lengths.items() if len(row[name]) != length]
    if wrong:
        yield f"{objects} labels, but {', '.join(wrong)}"
        return
    for number, (label, area, crowd) in enumerate(zip(row["labels"], row["areas"], row["crowds"], strict=True)):
        if label is None or not 0 <= label < rules.classes:
            yield f"object {number}: label {label}, but there are {rules.classes} classes"
        if area is None or not 0 <= area <= 1 + SLACK:  # NaN is neither
            yield f"object {number}: its area is {area} of the picture"
        if crowd is None:
            yield f"object {number}: crowd or not is null"
        if fault := _box_fault(row["boxes"][4 * number : 4 * number + 4]):
            yield f"object {number}: {fault}"


def _box_fault(box: list[float | None]) -> str | None:
    shown = ", ".join("null" if side is None else f"{side:g}" for side in box)
    sides = [side for side in box if side is not None and math.isfinite(side)]
    if len(sides) < 4:
        return f"box ({shown}) is not of four finite numbers"
    x, y, w, h = sides
    if w <= 0 or h <= 0:
        return f"box ({shown}) is empty"
    if min(x, y) < 0 or max(x + w, y + h) > 1 + SLACK:
        return f"box ({shown}) leads out of the picture"
    return None


def _picture_faults(data: bytes | None, rules: RowRules) -> Iterator[str]:
    if data is None or not rules.pixels:
        if rules.pixels:
            yield "no picture"
        elif data is not None:
            yield "a picture, but the manifest says that there are none"
        return
    try:
        # Pillow alone, as `pipelines.data.shards.pixels` waits for torch, in each process.
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            width, height = picture.size
            if (width, height) == (rules.size, rules.size):
                picture.load()
    except Exception as error:  # Pillow's decoders raise a dozen kinds on broken bytes; none may hide the other faults
        text = " ".join(str(error).split()).partition(" <")[0]
        yield f"the picture does not decode ({text})"
        return
    if (width, height) != (rules.size, rules.size):
        yield f"the picture has {width} x {height} pixels instead of {rules.size} x {rules.size}"
