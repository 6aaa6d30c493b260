"""A pen that draws one object into its box, twice at once: its colours and its silhouette.

Points are fractions of the box, (0, 0) top left, (1, 1) bottom right, so a drawing knows neither pixels nor flips.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

SUPERSAMPLING = 2
_OUTLINE = 0.02
_LIGHT = Image.linear_gradient("L").rotate(200, resample=Image.Resampling.BILINEAR, fillcolor=128)
_LIGHT = _LIGHT.crop((48, 48, 208, 208)).point(lambda v: round(180 + 75 * min(1.0, v / 190)))


class _Stroke(NamedTuple):
    points: list[Point]
    colour: Colour
    width: int  # 0 = filled polygon
    solid: bool


class Sprite(NamedTuple):
    """One drawn object: `colours` RGB and `alpha` L, both of the size of its box in pixels."""

    colours: Image.Image
    alpha: Image.Image


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (factor < 1) or lighten towards white (factor > 1)."""
    if factor <= 1:
        r, g, b = (round(c * factor) for c in colour)
    else:
        r, g, b = (round(c + (255 - c) * (factor - 1)) for c in colour)
    return r, g, b


def arc(centre: Point, radii: Point, start: float, stop: float, steps: int = 14) -> list[Point]:
    """Points of an elliptic arc; angles in degrees, clockwise on the screen from three o'clock."""
    angles = [math.radians(start + (stop - start) * i / steps) for i in range(steps + 1)]
    return [(centre[0] + radii[0] * math.cos(a), centre[1] + radii[1] * math.sin(a)) for a in angles]


class Pen:
    """Collects strokes for a box of `width` x `height` pixels; `sprite` and `silhouette` paint them.

    `solid` strokes make the silhouette and get a dark outline around their union; the others only colour what lies
    under them.
    """

    def __init__(self, width: int, height: int, flip: bool = False) -> None:
        self.width, self.height, self.flip = width * SUPERSAMPLING, height * SUPERSAMPLING, flip
        self._edge = max(1, round(_OUTLINE * math.sqrt(self.width * self.height)))
        self._strokes: list[_Stroke] = []

    def polygon(self, points: Sequence[Point], colour: Colour, solid: bool = True) -> None:
        """A filled polygon."""
        self._strokes.append(_Stroke(self._place(points), colour, 0, solid))

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour, solid: bool = True) -> None:
        """A filled upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour, solid)

    def oval(self, centre: Point, radii: Point, colour: Colour, solid: bool = True) -> None:
        """A filled ellipse."""
        self.polygon(arc(centre, radii, 0, 360, 28)[:-1], colour, solid)

    def line(self, points: Sequence[Point], width: float, colour: Colour, solid: bool = True) -> None:
        """A line whose `width` is a fraction of the box's width."""
        self._strokes.append(_Stroke(self._place(points), colour, max(1, round(width * self.width)), solid))

    def silhouette(self) -> Image.Image:
        """The coverage of each pixel of the box by the solid strokes and their outline, L."""
        return self._mask().reduce(SUPERSAMPLING)

    def sprite(self) -> Sprite:
        """The drawing, lit from the top left."""
        solid = [s for s in self._strokes if s.solid]
        outline = shade(solid[0].colour, 0.32) if solid else (0, 0, 0)
        colours = Image.new("RGB", (self.width, self.height), outline)
        draw = ImageDraw.Draw(colours)
        for stroke in self._strokes:
            _ink(draw, stroke, stroke.colour, 0)
        light = _LIGHT.resize(colours.size, Image.Resampling.BILINEAR)
        lit = ImageChops.multiply(colours, Image.merge("RGB", (light, light, light)))
        return Sprite(lit.reduce(SUPERSAMPLING), self.silhouette())

    def _mask(self) -> Image.Image:
        mask = Image.new("L", (self.width, self.height))
        draw = ImageDraw.Draw(mask)
        for stroke in self._strokes:
            if stroke.solid:
                _ink(draw, stroke, 255, self._edge)
        return mask

    def _place(self, points: Sequence[Point]) -> list[Point]:
        # The outline lies outside the strokes: an inset keeps it within the box.
        inset = self._edge
        across, down = self.width - 2 * inset - 1, self.height - 2 * inset - 1
        return [(inset + (1 - x if self.flip else x) * across, inset + y * down) for x, y in points]


def _ink(draw: ImageDraw.ImageDraw, stroke: _Stroke, colour: Colour | int, edge: int) -> None:
    points = stroke.points
    if stroke.width:
        draw.line(points, fill=colour, width=stroke.width + 2 * edge, joint="curve")
        return
    draw.polygon(points, fill=colour)
    if edge:
        draw.line([*points, *points[:2]], fill=colour, width=2 * edge, joint="curve")
