"""Checks records of COCO JSON one by one: usable ones become rows, the others raise `Unusable`."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from objgan.attributes import COLOURS, SCENES
from objgan.errors import shown
from objgan.vocabulary import LONGEST_CAPTION, normalise
from pipelines.data.prepare.record_values import identity, kind_of, number
from pipelines.data.shards.rejected import Unusable

Record = dict[str, Any]
Row = dict[str, Any]

IMAGES = pa.schema(
    [
        ("image_id", pa.int64()),
        ("file_name", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("scene", pa.string()),
        ("origin", pa.string()),
        ("part", pa.int32()),
    ]
)
"""width, height: null where unknown. scene: an image's `scene`, which COCO does not have; null if missing or not a
name of `objgan.attributes`. origin: COCO's own part, such as "val2014", as the file's name or its URL says, or
null. part: of the data set, from 0."""

OBJECTS = pa.schema(
    [
        ("image_id", pa.int64()),
        ("id", pa.int64()),
        ("place", pa.int64()),
        ("category", pa.int64()),
        ("box", pa.list_(pa.float64())),
        ("area", pa.float64()),
        ("crowd", pa.bool_()),
        ("polygons", pa.list_(pa.list_(pa.float64()))),
        ("other", pa.string()),
        ("flaw", pa.string()),
        ("colour", pa.string()),
    ]
)
"""id: -1 if the record has none. place: in the file. box: xywh, pixels. area: square pixels or null.
The segmentation is in `polygons`, flat lists of x and y, or, run lengths, in `other` as JSON; both null without one.
One that is neither is shown in `other`, and `flaw` says why. colour: an annotation's `attributes.colour`, which COCO
does not have, null as `scene`."""

CAPTIONS = pa.schema([("image_id", pa.int64()), ("id", pa.int64()), ("place", pa.int64()), ("text", pa.string())])

IMAGE_ROWS = pa.schema([*IMAGES, ("bytes", pa.int64()), ("id", pa.int64()), ("place", pa.int64())])
"""bytes: of the file, -1 if unknown. id: the same as image_id. place: among the images of all parts."""

_ORIGIN = re.compile(r"(?:^|[/_])((?:train|val|test)20\d\d)(?=[/_])")


_HALF = re.compile("[\ud800-\udfff]")


def image_row(image: Record) -> Row:
    """An image of schema `IMAGES`.

    Raises:
        Unusable: it has no id, or a field is not a number.
    """
    image_id = _needed(image, "id")
    name, width, height = file_name_of(image), _optional(image, "width"), _optional(image, "height")
    sized = width is not None and height is not None and 0 < min(width, height) <= max(width, height) < 2**31
    return {
        "image_id": image_id,
        "file_name": name,
        "width": width if sized else None,
        "height": height if sized else None,
        "scene": _name(image.get("scene"), SCENES),
        "origin": _origin(name) or _origin(image.get("coco_url")),
    }


def file_name_of(image: Record) -> str:
    """The name of the file; empty if the record has none. Half of a surrogate pair occurs in no file name."""
    name = image.get("file_name")
    return _HALF.sub("\ufffd", name) if isinstance(name, str) else ""


def object_row(annotation: Record, place: int) -> Row:
    """An annotation of schema `OBJECTS`.

    Raises:
        Unusable: it names no image or no category, has no box of four numbers, or a field is not a number.
    """
    image_id, box = _needed(annotation, "image_id"), _box(annotation)
    area, attributes = annotation.get("area"), annotation.get("attributes")
    area = None if area is None else number(area, "area")
    return {
        "image_id": image_id,
        "id": number_of(annotation),
        "place": place,
        "category": _needed(annotation, "category_id"),
        "box": box,
        "area": area if area is not None and area > 0 else None,
        "crowd": _crowd(annotation.get("iscrowd")),
        **_segmentation(annotation.get("segmentation")),
        "colour": _name(attributes.get("colour") if isinstance(attributes, dict) else None, COLOURS),
    }


def caption_row(annotation: Record, place: int) -> Row:
    """A caption of schema `CAPTIONS`, normalised.

    Raises:
        Unusable: it names no image, has no text, or a field is not a number.
    """
    image_id, text = _needed(annotation, "image_id"), annotation.get("caption")
    if not isinstance(text, str):
        raise Unusable("no text" if text is None else f"caption is {kind_of(text)}, not text", shown(text))
    if len(text) > LONGEST_CAPTION:
        raise Unusable(f"caption has more than {LONGEST_CAPTION} characters", shown(text))
    text = normalise(text)
    if not text:
        raise Unusable("empty caption")
    return {"image_id": image_id, "id": number_of(annotation), "place": place, "text": text}


def is_caption(annotation: Record) -> bool:
    """Whether an annotation is a caption, usable or not."""
    return "caption" in annotation


def is_object(annotation: Record) -> bool:
    """Whether an annotation is an object, usable or not."""
    return not {"bbox", "category_id", "segmentation"}.isdisjoint(annotation)


def number_of(record: Record) -> int:
    """The id; -1 if it has none.

    Raises:
        Unusable: it is neither a whole number nor text.
    """
    value = record.get("id")
    return -1 if value is None else identity(value, "id")


def known_number(number: int) -> int | None:
    """The id of a row; None if its record had none."""
    return None if number == -1 else int(number)


def _needed(record: Record, field: str) -> int:
    value = record.get(field)
    if value is None:
        raise Unusable(f"{field} is missing")
    return identity(value, field)


def _optional(record: Record, field: str) -> int | None:
    """A whole number; None if the record does not have it."""
    value = record.get(field)
    return None if value is None else number(value, field, whole=True)


def _box(annotation: Record) -> list[float]:
    box = annotation.get("bbox")
    if box is None:
        raise Unusable("bbox is missing")
    if not isinstance(box, list) or len(box) != 4:
        kind = "a list of another length" if isinstance(box, list) else kind_of(box)
        raise Unusable(f"bbox is {kind}, not a list of four numbers", f"bbox: {shown(box)}")
    return _numbers(box, "bbox")


def _numbers(values: list[Any], field: str) -> list[float]:
    try:
        return [number(value, field) for value in values]
    except Unusable as error:
        raise Unusable(error.reason.replace(" is ", " has ", 1), error.detail) from None


def _crowd(value: object) -> bool:
    if isinstance(value, bool):
        return value
    crowd = 0 if value is None else number(value, "iscrowd")
    if crowd not in (0, 1):
        raise Unusable("iscrowd is neither 0 nor 1", f"iscrowd: {shown(value)}")
    return crowd == 1


def _segmentation(value: object) -> Row:
    """The columns `polygons`, `other` and `flaw`."""
    columns: Row = {"polygons": None, "other": None, "flaw": None}
    if value is None or value == [] or value == {}:
        return columns
    try:
        if isinstance(value, list):
            return columns | {"polygons": _polygons(value)}
        if isinstance(value, dict):
            return columns | {"other": json.dumps(_run_lengths(value))}
        raise Unusable(f"segmentation is {kind_of(value)}, not polygons or run lengths")
    except Unusable as error:
        return columns | {"other": json.dumps(error.detail or shown(value)), "flaw": error.reason}


def _polygons(value: list[Any]) -> list[list[float]]:
    """Flat lists of x and y, for every nesting of the points.

    COCO's own [[x, y, x, y, ...], ...], one polygon of pairs [[x, y], [x, y], ...], several of them, or one flat list.
    """
    if not all(isinstance(part, list) for part in value):
        return [_coordinates(value)]
    if all(len(part) == 2 and not any(isinstance(side, list) for side in part) for part in value):
        return [_coordinates([side for pair in value for side in pair])]
    return [_coordinates(part) for part in value]


def _coordinates(values: list[Any]) -> list[float]:
    """A polygon's numbers, also if they are in pairs."""
    if values and all(isinstance(pair, list) and len(pair) == 2 for pair in values):
        values = [side for pair in values for side in pair]
    kinds = set(map(type, values))
    # The fast path for nearly all numbers of a data set.
    if kinds <= {float} or (kinds <= {float, int} and max(map(abs, values)) <= 2**53):
        return values
    return _numbers(values, "segmentation")


def _run_lengths(value: Record) -> Record:
    """`size` and `counts`, as numbers."""
    lengths: Record = {}
    for field in ("size", "counts"):
        part = value.get(field)
        if isinstance(part, list):
            part = part if set(map(type, part)) <= {int} else [number(length, field, whole=True) for length in part]
        elif field == "size" or not isinstance(part, str):
            raise Unusable(f"segmentation.{field} is {'missing' if part is None else kind_of(part)}", shown(value))
        lengths[field] = part
    return lengths


def _name(value: object, names: Sequence[str]) -> str | None:
    """The value if it is one of the names."""
    return value if isinstance(value, str) and value in names else None


def _origin(text: object) -> str | None:
    match = _ORIGIN.search(text) if isinstance(text, str) else None
    return match[1] if match else None
