"""What shards say of themselves in their Arrow schema: descriptions, units, classes."""

import json
from collections.abc import Sequence

import pyarrow as pa

from pipelines.data.shards.format import SCHEMA

_FIELDS = {
    "image_id": {"description": "id of the image in the JSON; if that is text, its number in text_ids.jsonl"},
    "file_name": {"description": "name of the original image, as in the JSON"},
    "width": {"description": "width of the original image", "unit": "pixel"},
    "height": {"description": "height of the original image", "unit": "pixel"},
    "split": {"description": "train, validation or test"},
    "image": {
        "description": "JPEG of the whole image, scaled to a square of {size} x {size} pixels; null without pixels"
    },
    "captions": {"description": "normalised text; {captions}"},
    "tokens": {"description": "the lower-case words of each caption, joined by blanks"},
    "annotation_ids": {"description": "id of each object in the JSON, the largest box first; -1: none"},
    "labels": {
        "description": "class of each object: an index into `classes`, a JSON list in this field's metadata",
        "classes": "{classes}",
    },
    "boxes": {
        "description": "4 numbers for each object, in one flat list: x, y of the top-left corner, width, height",
        "format": "xywh",
        "unit": "fraction of the image's side",
    },
    "areas": {
        "description": "area of each object's segment, or of its box if it has none",
        "unit": "fraction of the image",
    },
    "crowds": {"description": "whether an annotation covers many objects at once; training leaves crowds out"},
    "masks": {
        "description": "counts of each object's mask, decoded with `size` (height, width); null: unknown; {shapes}",
        "format": "COCO compressed run lengths",
        "size": "{size} {size}",
    },
    "colours": {"description": "name of each object's colour; null: unknown"},
    "scene": {"description": "name of the image's scene; null: unknown"},
}


def described(classes: Sequence[str], size: int, shapes: str, written: bool) -> pa.Schema:
    """`format.SCHEMA` with metadata for readers that know nothing of this project.

    classes: names by label
    size:    side of the stored images and masks, pixels
    shapes:  "masks", or what stands in for them
    written: captions were written from the objects
    """
    facts = {
        "size": size,
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "shapes": "from annotations" if shapes == "masks" else f"no annotation: the {shapes} of the box",
        "captions": "no annotation: written from classes and boxes" if written else "from annotations",
    }
    fields = [
        field.with_metadata({key: text.format(**facts) for key, text in _FIELDS[field.name].items()})
        for field in SCHEMA
    ]
    return pa.schema(fields, SCHEMA.metadata)
