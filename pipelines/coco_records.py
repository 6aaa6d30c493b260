"""Records of COCO JSON, one by one, checked: what is usable becomes a row, what is not says why."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any, TypeGuard

import pyarrow as pa

from objgan.attributes import COLOURS, SCENES

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
    ]
)
"""width, height: null where unknown. scene: an image's `scene`, which is not COCO's own; null where missing or not a
name of `objgan.attributes`. origin: COCO's own part, such as "val2014", as the file's name or its address tells,
or null."""

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
        ("colour", pa.string()),
    ]
)
"""id: -1 where the record has none. place: in the file. category: null where it is no whole number. box: xywh, pixels.
area: square pixels or null. The segmentation is in `polygons`, or, run lengths and whatever else it is, in `other` as
JSON; both null without one. colour: an annotation's `attributes.colour`, which is not COCO's own, null as `scene`."""

CAPTIONS = pa.schema([("image_id", pa.int64()), ("id", pa.int64()), ("place", pa.int64()), ("text", pa.string())])

_ORIGIN = re.compile(r"(?:^|[/_])((?:train|val|test)20\d\d)(?=[/_])")


class Unusable(ValueError):
    """This one record cannot be used; the text says why."""


def image_row(image: Record) -> Row:
    """An image of schema `IMAGES`.

    Raises:
        Unusable: it has no id.
    """
    if not is_id(image.get("id")):
        raise Unusable("no whole-number id")
    name, width, height = image.get("file_name"), image.get("width"), image.get("height")
    sized = is_id(width) and is_id(height) and 0 < min(width, height) <= max(width, height) < 2**31
    return {
        "image_id": image["id"],
        "file_name": name if isinstance(name, str) else "",
        "width": width if sized else None,
        "height": height if sized else None,
        "scene": _name(image.get("scene"), SCENES),
        "origin": _origin(name) or _origin(image.get("coco_url")),
    }


def object_row(annotation: Record, place: int) -> Row:
    """An annotation of schema `OBJECTS`.

    Raises:
        Unusable: it names no image, or has no box of four finite numbers.
    """
    box, category = annotation.get("bbox"), annotation.get("category_id")
    if not is_id(annotation.get("image_id")):
        raise Unusable("no whole-number image_id")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(side) for side in box):
        raise Unusable("no box of four numbers")
    area, attributes = annotation.get("area"), annotation.get("attributes")
    polygons, other = _segmentation(annotation.get("segmentation"))
    return {
        "image_id": annotation["image_id"],
        "id": number_of(annotation),
        "place": place,
        "category": category if is_id(category) else None,
        "box": [float(side) for side in box],
        "area": float(area) if _is_number(area) and area > 0 else None,
        "crowd": bool(annotation.get("iscrowd", 0)),
        "polygons": polygons,
        "other": other,
        "colour": _name(attributes.get("colour") if isinstance(attributes, dict) else None, COLOURS),
    }


def caption_row(annotation: Record, place: int) -> Row:
    """A caption of schema `CAPTIONS`, its blanks and newlines cleaned.

    Raises:
        Unusable: it names no image, or says nothing.
    """
    text = annotation.get("caption")
    if not is_id(annotation.get("image_id")):
        raise Unusable("no whole-number image_id")
    if not isinstance(text, str):
        raise Unusable("no text")
    # Half of a pair of surrogates, which JSON can say and no encoding can.
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    if not text:
        raise Unusable("empty caption")
    return {"image_id": annotation["image_id"], "id": number_of(annotation), "place": place, "text": text}


def number_of(record: Record) -> int:
    """The id; -1 where it has none."""
    number = record.get("id")
    return number if is_id(number) else -1


def known_number(number: int) -> int | None:
    """The id of a row; None where its record had none."""
    return None if number == -1 else int(number)


def is_id(value: object) -> TypeGuard[int]:
    """Whether it is a whole number of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _segmentation(value: object) -> tuple[list[list[float]] | None, str | None]:
    if not value:
        return None, None
    if isinstance(value, list) and all(isinstance(part, list) and _are_coordinates(part) for part in value):
        return value, None
    return None, json.dumps(value)


def _are_coordinates(values: list[Any]) -> bool:
    kinds = set(map(type, values))
    # Larger integers are no coordinates, and no floats either.
    return kinds <= {float} or (kinds <= {float, int} and max(map(abs, values)) <= 2**53)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _name(value: object, names: Sequence[str]) -> str | None:
    """The value where it is one of the names."""
    return value if isinstance(value, str) and value in names else None


def _origin(text: object) -> str | None:
    found = _ORIGIN.search(text) if isinstance(text, str) else None
    return found[1] if found else None
