"""What shards say of themselves in their Arrow schema: descriptions, units, classes."""

import json
from collections.abc import Sequence

import pyarrow as pa

from pipelines.data.shards.format import SCHEMA

_TEXTS = {
    "image_id": "id of the image in the JSON; of an id that was text, the number in text_ids.jsonl",
    "file_name": "of the original image, as in the JSON",
    "width": "of the original image, pixels",
    "height": "of the original image, pixels",
    "split": "train, validation or test",
    "image": "JPEG of the whole image, scaled to a square of {size} x {size} pixels; null without pixels",
    "captions": "normalised text; {captions}",
    "tokens": "the lower-case words of each caption, joined by blanks",
    "annotation_ids": "id of each object in the JSON, the largest box first; -1: none",
    "labels": "class of each object, a place in the list `classes` of this field's metadata",
    "boxes": "4 numbers of each object, flat: x, y of the top-left corner, width, height; fractions of the sides",
    "areas": "of each object's segment, or else box; fraction of the image",
    "crowds": "whether an annotation covers many objects at once; training leaves crowds out",
    "masks": "COCO's compressed run lengths (counts) of each object's {size} x {size} mask; null: unknown; {shapes}",
    "colours": "name of each object's colour; null: unknown",
    "scene": "name of the image's scene; null: unknown",
}


def described(classes: Sequence[str], size: int, shapes: str = "masks", written: bool = False) -> pa.Schema:
    """`format.SCHEMA` with metadata for readers that know nothing of this project.

    classes: names by label
    size:    side of the stored images and masks, pixels
    shapes:  "masks", or what stands in for them
    written: captions were written from the objects
    """
    facts = {
        "size": size,
        "shapes": "from annotations" if shapes == "masks" else f"no annotation: the {shapes} of the box",
        "captions": "no annotation: written from classes and boxes" if written else "from annotations",
    }
    more = {
        "boxes": {"format": "xywh", "unit": "fraction of the image's side"},
        "areas": {"unit": "fraction of the image"},
        "width": {"unit": "pixel"},
        "height": {"unit": "pixel"},
        "labels": {"classes": json.dumps(list(classes), ensure_ascii=False)},
        "masks": {"format": "COCO compressed run lengths", "size": f"{size} {size}"},
    }
    fields = [
        field.with_metadata({"description": _TEXTS[field.name].format(**facts), **more.get(field.name, {})})
        for field in SCHEMA
    ]
    return pa.schema(fields, SCHEMA.metadata)
