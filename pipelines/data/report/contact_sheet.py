"""The sheet of samples: pictures in their own shape, with boxes, masks and captions."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from objgan.drawing import Colour, name_colours
from objgan.errors import InputError
from objgan.run_lengths import BadMask
from pipelines.data.report.counts import Shown
from pipelines.data.shards.masks import decode_masks

_MOST_MASK, _INSIDE, _EDGE = 256, 110, 255
_SWITCHES = ("pictures", "boxes", "masks")


def sheet(samples: Sequence[Shown], classes: Sequence[str], size: int, drawn: str) -> str:
    """One card an image. size: side of the stored pictures and masks; drawn: how the samples were.

    Raises:
        InputError: a mask is damaged.
    """
    colours = name_colours(classes)
    switches = "".join(f'<label><input type="checkbox" id="see-{name}" checked> {name}</label>' for name in _SWITCHES)
    cards = "".join(_sample(one, classes, colours, size) for one in samples)
    told = f"{drawn}; point at a box for its class, dashed ones are crowds"
    return (
        f'<div class="switches">{switches}<span class="soft">{escape(told)}</span></div>'
        f'<div class="sheet">{cards}</div>'
    )


def css_colour(colour: Colour) -> str:
    """For a style."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _sample(one: Shown, classes: Sequence[str], colours: Mapping[str, Colour], size: int) -> str:
    names = [classes[label] for label in one.labels]
    layers = [_masks(one, names, colours, size), _boxes(one, names, colours)]
    if one.image is not None:
        layers.insert(0, f'<img alt="" src="{_data(one.image, "jpeg")}">')
    first, *others = one.captions or ["(no caption)"]
    more = "".join(f"<p>{escape(text)}</p>" for text in others)
    plural = "s" if len(others) > 1 else ""
    return (
        f'<article class="sample"><div class="stage"><div class="picture" style="{_shape(one)}">{"".join(layers)}</div>'
        f'</div><div class="words"><p>{escape(first)}</p><div class="chips">{_chips(names, colours)}</div>'
        + (f"<details><summary>{len(others)} more caption{plural}</summary>{more}</details>" if others else "")
        + f'<p class="foot">{escape(one.split)} · {one.image_id} · {escape(one.file_name)} · '
        f"<span>{one.width} × {one.height}</span></p></div></article>"
    )


def _shape(one: Shown) -> str:
    """As large as it can be in a square, in the original's shape: what is stored was pressed into a square."""
    ratio = max(one.width or 1, 1) / max(one.height or 1, 1)
    return f"width:{100 * min(ratio, 1):.2f}%;height:{100 * min(1 / ratio, 1):.2f}%"


def _chips(names: Sequence[str], colours: Mapping[str, Colour]) -> str:
    chips = (
        f'<span class="chip" style="background:{css_colour(colours[name])};color:{_ink(colours[name])}">{escape(name)}'
        f"{f' × {names.count(name)}' if names.count(name) > 1 else ''}</span>"
        for name in dict.fromkeys(names)
    )
    return "".join(chips) or '<span class="none">no objects</span>'


def _boxes(one: Shown, names: Sequence[str], colours: Mapping[str, Colour]) -> str:
    """Largest first, as they are stored: the small ones lie above and can be pointed at."""
    rects = "".join(
        f'<rect x="{100 * x:.2f}" y="{100 * y:.2f}" width="{100 * w:.2f}" height="{100 * h:.2f}" '
        f'stroke="{css_colour(colours[name])}"{" class=crowd" if crowd else ""}><title>{escape(name)}'
        f"{' (crowd)' if crowd else ''}</title></rect>"
        for name, (x, y, w, h), crowd in zip(names, one.boxes.tolist(), one.crowds, strict=True)
    )
    return f'<svg class="boxes" viewBox="0 0 100 100" preserveAspectRatio="none">{rects}</svg>'


def _masks(one: Shown, names: Sequence[str], colours: Mapping[str, Colour], size: int) -> str:
    """All masks in their classes' colours, outlined, as one transparent picture; the largest objects lie lowest.

    Crowds, which may cover whole pictures, lie lower still.
    """
    parts = [
        (name, counts)
        for wanted in (True, False)
        for name, counts, crowd in zip(names, one.masks, one.crowds, strict=True)
        if counts is not None and crowd is wanted
    ]
    if not parts:
        return ""
    side = min(size, _MOST_MASK)
    canvas = np.zeros((side, side, 4), np.uint8)
    try:
        decoded = decode_masks([counts for _, counts in parts], size, side)
    except BadMask as error:
        raise InputError(
            f"data: image {one.image_id} of split {one.split} has a damaged mask ({error}): run verify on the data"
        ) from None
    for (name, _), mask in zip(parts, decoded, strict=True):
        inside = mask >= 128
        canvas[inside] = (*colours[name], _INSIDE)
        canvas[_edge(inside), 3] = _EDGE
    buffer = io.BytesIO()
    Image.fromarray(canvas).quantize(64).save(buffer, "PNG", optimize=True)
    return f'<img class="masks" alt="" src="{_data(buffer.getvalue(), "png")}">'


def _edge(inside: np.ndarray) -> np.ndarray:
    """bool [S, S] -> bool [S, S]: its pixels beside one that is not."""
    padded = np.pad(inside, 1, mode="edge")
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: np.ndarray = inside & ~core
    return edge


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _ink(colour: Colour) -> str:
    red, green, blue = colour
    return "#1f2328" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"
