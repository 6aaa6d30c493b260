"""Pictures of layouts, masks and images, for people: the tracker's pictures, contact sheets, the README."""

import zlib
from collections.abc import Sequence
from functools import cache
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

PAPER: Colour = (255, 255, 255)
CANVAS: Colour = (243, 243, 240)
INK: Colour = (32, 33, 36)
FAINT: Colour = (128, 130, 134)
GAP = 8

# Eight hues in three lightnesses; neighbours in the list differ in hue, so that a step aside is easy to see.
_PALETTE: tuple[Colour, ...] = (
    (214, 62, 54), (38, 112, 196), (46, 148, 72), (240, 160, 32), (140, 74, 184), (20, 160, 168), (226, 82, 154),
    (142, 96, 52), (244, 132, 116), (112, 170, 236), (126, 200, 110), (250, 206, 84), (186, 144, 228), (112, 210, 208),
    (246, 158, 204), (198, 158, 112), (140, 26, 34), (18, 60, 124), (18, 92, 44), (176, 98, 0), (84, 34, 124),
    (0, 92, 104), (158, 22, 98), (88, 54, 22),
)  # fmt: skip


def to_image(tensor: Tensor) -> Image.Image:
    """[3, S, S], float in [-1, 1] or uint8 -> picture of S x S pixels. Values outside are clipped."""
    pixels = tensor.detach().cpu()
    if pixels.is_floating_point():
        pixels = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def class_colour(index: int) -> Colour:
    """The colour of class `index`: 24 that the eye can distinguish, then again from the first."""
    return _PALETTE[index % len(_PALETTE)]


def name_colours(names: Sequence[str]) -> dict[str, Colour]:
    """Name -> colour: a name has its own colour in every picture, and moves aside only for another in the same one."""
    taken: dict[int, str] = {}
    for name in sorted(set(names)):
        index = zlib.crc32(name.encode()) % len(_PALETTE)
        while len(taken) < len(_PALETTE) and index in taken:
            index = (index + 1) % len(_PALETTE)
        taken.setdefault(index, name)
    return {name: class_colour(index) for index, name in taken.items()} | {
        name: class_colour(zlib.crc32(name.encode())) for name in set(names) - set(taken.values())
    }


def css_colour(colour: Colour) -> str:
    """For a style of a web page."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def draw_boxes(names: Sequence[str], boxes: Tensor, side: int = 256) -> Image.Image:
    """Outlined and named boxes on a blank canvas.

    Args:
        names: class name of each object
        boxes: xywh fractions [r, 4]
        side: of the result, pixels
    """
    canvas = Image.new("RGB", (side, side), CANVAS)
    colours, frames = name_colours(names), [_pixel_box(box, side) for box in boxes.tolist()]
    fill = Image.new("RGB", canvas.size)
    for name, frame in zip(names, frames, strict=True):
        fill.paste(colours[name], (0, 0, side, side))
        canvas.paste(Image.blend(canvas, fill, 0.18).crop(frame), frame)
    pen = ImageDraw.Draw(canvas)
    for name, frame in zip(names, frames, strict=True):
        x1, y1, x2, y2 = frame
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=colours[name], width=max(1, side // 128))
    _draw_tags(pen, names, frames, side)
    return canvas


def draw_masks(names: Sequence[str], masks: Tensor, side: int = 256) -> Image.Image:
    """Soft masks in their classes' colours, each outlined where it passes one half, and named.

    Args:
        names: class name of each object
        masks: [r, M, M], float in [0, 1] or uint8; later ones are painted over earlier ones
        side: of the result, pixels
    """
    canvas = np.full((side, side, 3), CANVAS, np.float32)
    colours, frames = name_colours(names), []
    values = masks.detach().cpu()
    values = values if not values.is_floating_point() else (values.float().clamp(0, 1) * 255).round().byte()
    for name, mask in zip(names, values.numpy(), strict=True):
        grown = Image.fromarray(mask).resize((side, side), Image.Resampling.BILINEAR)
        share = np.asarray(grown, np.float32)[..., None] / 255
        colour = np.array(colours[name], np.float32)
        canvas += 0.85 * share * (colour - canvas)
        inside = share[..., 0] >= 0.5
        canvas[outline(inside)] = 0.6 * colour
        frames.append(_mask_frame(inside))
    picture = Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8))
    _draw_tags(ImageDraw.Draw(picture), names, frames, side)
    return picture


def caption_strip(text: str, width: int) -> Image.Image:
    """The text on white, each of its lines wrapped to `width` pixels, as many lines as it takes."""
    font, margin = _font(13 if width >= 160 else 10), 4
    lines = [line for part in text.split("\n") for line in _wrap(part, width - 2 * margin, font)]
    line_height = round(font.size * 1.35)
    strip = Image.new("RGB", (width, len(lines) * line_height + 2 * margin), PAPER)
    pen = ImageDraw.Draw(strip)
    for row, line in enumerate(lines):
        pen.text((margin, margin + row * line_height), line, INK, font)
    return strip


def enlarge(image: Image.Image, side: int) -> Image.Image:
    """Square picture at `side` pixels: sharp-edged by whole factors upwards, so that no detail is invented."""
    if image.size == (side, side):
        return image.copy()
    whole = side % image.width == 0 and side > image.width
    return image.resize((side, side), Image.Resampling.NEAREST if whole else Image.Resampling.BICUBIC)


def grid(
    rows: Sequence[Sequence[Image.Image]],
    captions: Sequence[str] | None = None,
    headings: Sequence[str] | None = None,
) -> Image.Image:
    """Rows of pictures on white, columns aligned.

    Args:
        rows: pictures of any sizes; a row may be shorter than the others
        captions: one a row, above it
        headings: one a column, above the first row
    """
    columns = max((len(row) for row in rows), default=0)
    widths = [max(row[c].width for row in rows if c < len(row)) for c in range(columns)]
    width = max(sum(widths) + GAP * (columns + 1), 2 * GAP + 1)
    strips = [caption_strip(text, width - 2 * GAP) for text in captions or ()]
    if strips and len(strips) != len(rows):
        raise ValueError(f"{len(strips)} captions for {len(rows)} rows: give one a row")
    top = GAP + (20 if headings else 0)
    heights = [max((image.height for image in row), default=0) for row in rows]
    height = top + sum(heights) + GAP * len(rows) + sum(strip.height for strip in strips)
    sheet = Image.new("RGB", (width, height), PAPER)
    lefts = [GAP + sum(widths[:c]) + GAP * c for c in range(columns)]
    for left, heading in zip(lefts, headings or (), strict=False):
        ImageDraw.Draw(sheet).text((left, 6), heading, FAINT, _font(12))
    for index, row in enumerate(rows):
        if strips:
            sheet.paste(strips[index], (GAP, top))
            top += strips[index].height
        for left, image in zip(lefts, row, strict=False):
            sheet.paste(image, (left, top))
        top += heights[index] + GAP
    return sheet


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Given a size, Pillow returns its own TrueType font or raises; the bitmap font is for calls without one.
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:  # whole when it fits a line, broken when it does not
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _pixel_box(box: Sequence[float], side: int) -> Box:
    """xywh fractions -> xyxy pixels, at least one pixel, inside the picture."""
    x, y, w, h = box
    x1, y1 = min(max(round(x * side), 0), side - 1), min(max(round(y * side), 0), side - 1)
    return x1, y1, min(max(round((x + w) * side), x1 + 1), side), min(max(round((y + h) * side), y1 + 1), side)


def _mask_frame(inside: np.ndarray) -> Box | None:
    """xyxy pixels around the true pixels of [S, S], None without any."""
    down, across = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return (across[0], down[0], across[-1] + 1, down[-1] + 1) if len(down) else None


def outline(inside: np.ndarray) -> np.ndarray:
    """bool [S, S] -> bool [S, S]: the true pixels with a false one above, below, left or right."""
    padded = np.pad(inside, 1, mode="edge")
    core: np.ndarray = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: np.ndarray = inside & ~core
    return edge


def _draw_tags(pen: ImageDraw.ImageDraw, names: Sequence[str], frames: Sequence[Box | None], side: int) -> None:
    """A name on each object's frame: above it, or where it covers no earlier name. None is drawn without a tag."""
    font = _font(min(max(side // 20, 9), 14))
    if not names:
        pen.text((side / 2, side / 2), "no objects", FAINT, font, anchor="mm")
    colours, placed = name_colours(names), list[Box]()
    for name, frame in zip(names, frames, strict=True):
        if frame is None:
            continue
        text = name.replace(" ", "  ") if font.size < 12 else name  # so small, the font's blank is a pixel or two
        tag = _place_tag(round(font.getlength(text)) + 6, font.size + 4, frame, placed, side)
        placed.append(tag)
        pen.rounded_rectangle((tag[0], tag[1], tag[2] - 1, tag[3] - 1), 2, fill=colours[name])
        pen.text((tag[0] + 3, (tag[1] + tag[3]) / 2), text, _ink_on(colours[name]), font, anchor="lm")


def _place_tag(width: float, height: float, frame: Box, placed: Sequence[Box], side: int) -> Box:
    x1, y1, x2, y2 = frame
    wide, high = int(width), int(height)
    places = [(x1, y1 - high), (x1, y1), (x1, y2), (x1, y2 - high), (x2 - wide, y1), (x2 - wide, y2)]
    places += [(x1, y1 + step * high) for step in range(1, side // high)]
    boxes = []
    for left, top in places:
        left, top = min(max(left, 0), max(side - wide, 0)), min(max(top, 0), max(side - high, 0))
        boxes.append((left, top, left + wide, top + high))
    return min(boxes, key=lambda box: sum(_overlap(box, other) for other in placed))


def _overlap(a: Box, b: Box) -> int:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def _ink_on(colour: Colour) -> Colour:
    red, green, blue = colour
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else PAPER
