"""Samples as the page shows them: pictures in their original shape, with boxes, masks and captions."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from objgan.drawing import Colour, css_colour, name_colours, outline
from objgan.errors import InputError
from objgan.run_lengths import BadMask
from pipelines.data.report.counts import Sample
from pipelines.data.shards.masks import decode_masks

_MOST_MASK, _INSIDE, _EDGE = 256, 110, 255


def card(sample: Sample, classes: Sequence[str], size: int) -> dict[str, Any]:
    """What `page.html` needs of one sample. size: side of the stored pictures and masks.

    Raises:
        InputError: a mask is damaged.
    """
    colours = name_colours(classes)
    names = [classes[label] for label in sample.labels]
    boxes = (100 * sample.boxes).round(2).tolist()
    return {
        "sample": sample,
        "shape": _shape(sample),
        "picture": _data(sample.image, "jpeg") if sample.image is not None else None,
        "masks": _masks(sample, names, colours, size),
        # Largest first, as they are stored: the small ones are on top, where a mouse reaches them.
        "boxes": [
            (*box, name, css_colour(colours[name]), crowd)
            for box, name, crowd in zip(boxes, names, sample.crowds, strict=True)
        ],
        "chips": [
            (name, count, css_colour(colours[name]), _ink(colours[name])) for name, count in Counter(names).items()
        ],
        "captions": sample.captions or ["(no caption)"],
    }


def _shape(sample: Sample) -> str:
    """As large as it can be in a square, in the original's shape: what is stored was pressed into a square."""
    ratio = max(sample.width or 1, 1) / max(sample.height or 1, 1)
    return f"width:{100 * min(ratio, 1):.2f}%;height:{100 * min(1 / ratio, 1):.2f}%"


def _masks(sample: Sample, names: Sequence[str], colours: Mapping[str, Colour], size: int) -> str | None:
    """All masks in their classes' colours, outlined, as one transparent picture; the largest objects are at the bottom.

    Crowds, which may cover whole images, are below all of them.
    """
    parts = [
        (name, counts)
        for wanted in (True, False)
        for name, counts, crowd in zip(names, sample.masks, sample.crowds, strict=True)
        if counts is not None and crowd is wanted
    ]
    if not parts:
        return None
    side = min(size, _MOST_MASK)
    canvas = np.zeros((side, side, 4), np.uint8)
    try:
        decoded = decode_masks([counts for _, counts in parts], size, side)
    except BadMask as error:
        raise InputError(
            f"data: image {sample.image_id} of split {sample.split} has a damaged mask ({error}): "
            "run verify on the data"
        ) from None
    for (name, _), mask in zip(parts, decoded, strict=True):
        inside = mask >= 128
        canvas[inside] = (*colours[name], _INSIDE)
        canvas[outline(inside), 3] = _EDGE
    buffer = io.BytesIO()
    Image.fromarray(canvas).quantize(64).save(buffer, "PNG", optimize=True)
    return _data(buffer.getvalue(), "png")


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _ink(colour: Colour) -> str:
    red, green, blue = colour
    return "#1f2328" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"
