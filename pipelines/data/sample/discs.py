"""Objects whose silhouettes are one and the same disc: only what is inside tells them apart."""

import math

from numpy.random import Generator

from pipelines.data.sample.pen import Colour, Pen, Point, arc, shade

_CENTRE: Point = (0.5, 0.5)
_WHITE: Colour = (252, 250, 242)
_DARK: Colour = (38, 36, 44)


def _disc(pen: Pen, radius: float, colour: Colour) -> None:
    pen.oval(_CENTRE, (radius, radius), colour, solid=radius >= 0.5)


def _around(radius: float, degrees: float) -> Point:
    return 0.5 + radius * math.cos(math.radians(degrees)), 0.5 + radius * math.sin(math.radians(degrees))


def draw_frisbee(pen: Pen, colour: Colour, rng: Generator) -> None:
    """Rings in light and dark shades of one colour, and a glint."""
    for radius, factor in ((0.5, 0.85), (0.44, 1.0), (0.34, 0.66), (0.31, 1.12), (0.2, 0.8), (0.16, 1.5)):
        _disc(pen, radius, shade(colour, factor))
    for start in (195, 200 + 8 * rng.random()):
        pen.line(arc(_CENTRE, (0.39, 0.39), start, start + 55), 0.04, shade(colour, 1.75), solid=False)


def draw_ball(pen: Pen, colour: Colour, rng: Generator) -> None:
    """A beach ball: coloured and white sectors that meet off the centre."""
    _disc(pen, 0.5, colour)
    pole = (0.42 + 0.1 * rng.random(), 0.3)
    turn = 60 * rng.random()
    for i in range(3):
        rim = [(0.5 + (x - 0.5), y) for x, y in arc(_CENTRE, (0.5, 0.5), turn + 120 * i, turn + 120 * i + 60)]
        pen.polygon([pole, *rim], _WHITE, solid=False)
    pen.oval(pole, (0.08, 0.07), shade(colour, 0.75), solid=False)
    pen.oval((0.3, 0.24), (0.06, 0.045), (255, 255, 255), solid=False)


def draw_pizza(pen: Pen, _colour: Colour, rng: Generator) -> None:
    """Crust, sauce, cheese cut into slices, pepperoni and basil."""
    for radius, colour in (
        (0.5, (196, 126, 52)),
        (0.46, (228, 166, 84)),
        (0.405, (200, 52, 26)),
        (0.375, (255, 206, 88)),
    ):
        _disc(pen, radius, colour)
    turn = 60 * rng.random()
    for i in range(3):
        ends = [_around(0.38, turn + 60 * i), _around(0.38, turn + 60 * i + 180)]
        pen.line(ends, 0.018, (214, 140, 44), solid=False)
    for i in range(6):
        at = _around(0.2 + 0.09 * rng.random(), turn + 60 * i + 30)
        pen.oval(at, (0.085, 0.085), (150, 26, 22), solid=False)
        pen.oval(at, (0.062, 0.062), (212, 54, 38), solid=False)
    for i in range(5):
        at = _around(0.1 + 0.22 * rng.random(), turn + 72 * i)
        pen.oval(at, (0.045, 0.026), (46, 128, 44), solid=False)


def draw_clock(pen: Pen, colour: Colour, rng: Generator) -> None:
    """A coloured rim, a white face with twelve ticks and two hands that tell some time."""
    _disc(pen, 0.5, colour)
    _disc(pen, 0.385, _WHITE)
    for hour in range(12):
        long = hour % 3 == 0
        ends = [_around(0.35, 30 * hour), _around(0.25 if long else 0.3, 30 * hour)]
        pen.line(ends, 0.05 if long else 0.025, _DARK, solid=False)
    minutes = 12 * 60 * rng.random()
    pen.line([_CENTRE, _around(0.19, minutes / 2 - 90)], 0.065, _DARK, solid=False)
    pen.line([_CENTRE, _around(0.28, minutes % 60 * 6 - 90)], 0.042, _DARK, solid=False)
    _disc(pen, 0.05, colour)
