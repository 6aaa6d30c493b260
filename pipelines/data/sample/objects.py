"""Vehicles, signs and other made things."""

import math

from numpy.random import Generator

from pipelines.data.sample.pen import Colour, Pen, Point, arc, shade

_DARK: Colour = (40, 40, 48)
_GREY: Colour = (132, 136, 144)
_GLASS: Colour = (190, 226, 246)
_WHITE: Colour = (252, 250, 244)
_WOOD: Colour = (124, 78, 42)


def draw_car(pen: Pen, colour: Colour, _rng: Generator) -> None:
    """A small car from the side."""
    pen.polygon([(0.2, 0.45), (0.33, 0.08), (0.4, 0.03), (0.66, 0.03), (0.72, 0.08), (0.85, 0.45)], colour)
    body = [(0.03, 0.42), (0.1, 0.37), (0.88, 0.37), (0.98, 0.46), (1.0, 0.76), (0.96, 0.82), (0.03, 0.82), (0.0, 0.72)]
    pen.polygon(body, colour)
    pen.polygon([(0.27, 0.38), (0.37, 0.12), (0.49, 0.12), (0.49, 0.38)], _GLASS, solid=False)
    pen.polygon([(0.54, 0.38), (0.54, 0.12), (0.66, 0.12), (0.78, 0.38)], _GLASS, solid=False)
    pen.polygon([(0.31, 0.34), (0.38, 0.15), (0.42, 0.15), (0.35, 0.34)], (236, 248, 255), solid=False)
    pen.box(0.02, 0.6, 0.98, 0.65, shade(colour, 0.75), solid=False)
    pen.line([(0.515, 0.4), (0.515, 0.78)], 0.012, shade(colour, 0.55), solid=False)
    pen.box(0.56, 0.46, 0.63, 0.5, shade(colour, 0.45), solid=False)
    pen.oval((0.955, 0.53), (0.03, 0.06), (255, 240, 150), solid=False)
    pen.oval((0.035, 0.52), (0.022, 0.06), (200, 30, 30), solid=False)
    for x in (0.24, 0.77):
        pen.oval((x, 0.8), (0.115, 0.196), _DARK)
        pen.oval((x, 0.8), (0.06, 0.102), (200, 204, 210), solid=False)
        pen.oval((x, 0.8), (0.022, 0.038), _DARK, solid=False)


def draw_airplane(pen: Pen, colour: Colour, _rng: Generator) -> None:
    """An airliner from the side, coloured belly, fin and wing."""
    body: Colour = shade(colour, 1.08)
    pen.polygon([(0.03, 0.04), (0.13, 0.04), (0.26, 0.42), (0.08, 0.46)], shade(colour, 0.8))
    pen.polygon([(0.36, 0.42), (0.44, 0.12), (0.51, 0.12), (0.58, 0.42)], shade(colour, 0.62))
    nose = arc((0.84, 0.52), (0.16, 0.18), -90, 90, 10)
    pen.polygon([(0.02, 0.38), (0.12, 0.35), *nose, (0.25, 0.7), (0.1, 0.56)], body)
    pen.polygon([(0.1, 0.56), *[p for p in nose if p[1] > 0.56], (0.25, 0.7)], shade(colour, 0.78), solid=False)
    pen.polygon([(0.02, 0.4), (0.2, 0.44), (0.12, 0.52)], shade(colour, 0.6), solid=False)
    for i in range(7):
        pen.oval((0.27 + 0.08 * i, 0.47), (0.021, 0.04), (28, 60, 110), solid=False)
    pen.polygon([(0.86, 0.38), (0.94, 0.44), (0.96, 0.5), (0.87, 0.5)], _GLASS, solid=False)
    pen.polygon([(0.62, 0.58), (0.44, 0.58), (0.22, 0.98), (0.34, 0.98)], shade(colour, 0.62))
    pen.oval((0.5, 0.83), (0.08, 0.085), _GREY)


def draw_boat(pen: Pen, colour: Colour, rng: Generator) -> None:
    """A sailing boat: coloured hull and pennant, a striped white sail and a jib."""
    pen.line([(0.47, 0.04), (0.47, 0.75)], 0.035, _WOOD)
    pen.polygon([(0.52, 0.1), (0.95, 0.66), (0.52, 0.68)], _WHITE)
    stripe = shade(colour, 1.0 if sum(colour) < 650 else 0.6)
    pen.polygon([(0.52, 0.33), (0.7, 0.33), (0.8, 0.465), (0.52, 0.48)], stripe, solid=False)
    pen.polygon([(0.43, 0.16), (0.1, 0.66), (0.43, 0.68)], (236, 226, 200))
    pen.line([(0.43, 0.3), (0.22, 0.62)], 0.012, (200, 184, 150), solid=False)
    pen.polygon([(0.48, 0.01), (0.68, 0.06), (0.48, 0.1)], stripe)
    hull = [(0.0, 0.72), (1.0, 0.72), (0.92, 0.86), (0.82, 0.97), (0.2, 0.97), (0.08, 0.86)]
    pen.polygon(hull, colour)
    pen.polygon([(0.0, 0.72), (1.0, 0.72), (0.975, 0.77), (0.025, 0.77)], shade(colour, 1.6), solid=False)
    pen.polygon([(0.12, 0.9), (0.885, 0.9), (0.82, 0.97), (0.2, 0.97)], shade(colour, 0.6), solid=False)
    for i in range(3):
        pen.oval((0.3 + 0.2 * i + 0.02 * float(rng.random()), 0.835), (0.035, 0.033), _WHITE, solid=False)


def draw_traffic_light(pen: Pen, _colour: Colour, rng: Generator) -> None:
    """Three lamps in a dark case on a pole; one of them is lit."""
    pen.box(0.4, 0.6, 0.6, 0.97, _GREY)
    pen.box(0.2, 0.94, 0.8, 0.99, shade(_GREY, 0.7))
    pen.polygon(
        [(0.14, 0.0), (0.86, 0.0), (0.94, 0.04), (0.94, 0.62), (0.86, 0.66), (0.14, 0.66), (0.06, 0.62), (0.06, 0.04)],
        (34, 40, 44),
    )
    pen.polygon([(0.14, 0.03), (0.86, 0.03), (0.86, 0.63), (0.14, 0.63)], (250, 190, 40), solid=False)
    pen.polygon([(0.2, 0.045), (0.8, 0.045), (0.8, 0.615), (0.2, 0.615)], (40, 44, 50), solid=False)
    lit = int(rng.integers(3))
    lamps: tuple[Colour, ...] = ((255, 58, 48), (255, 200, 40), (60, 226, 104))
    for i, lamp in enumerate(lamps):
        centre = (0.5, 0.14 + 0.19 * i)
        pen.oval(centre, (0.25, 0.088), lamp if i == lit else shade(lamp, 0.55), solid=False)
        pen.oval((0.42, centre[1] - 0.03), (0.06, 0.02), shade(lamp, 1.8 if i == lit else 1.1), solid=False)


def draw_stop_sign(pen: Pen, _colour: Colour, _rng: Generator) -> None:
    """A red octagon with the word on it, on a pole."""
    pen.box(0.45, 0.5, 0.55, 0.99, _GREY)

    def octagon(radius: float) -> list[Point]:
        return [
            (0.5 + radius * math.cos(math.radians(a)), 0.29 + 0.58 * radius * math.sin(math.radians(a)))
            for a in (22.5 + 45 * i for i in range(8))
        ]

    pen.polygon(octagon(0.54), _WHITE)
    pen.polygon(octagon(0.485), (214, 24, 32), solid=False)
    letters: tuple[tuple[Point, ...], ...] = (
        ((1, 0.1), (0.5, 0), (0, 0.1), (0, 0.4), (1, 0.6), (1, 0.9), (0.5, 1), (0, 0.9)),
        ((0, 0), (1, 0), (0.5, 0), (0.5, 1)),
        ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0)),
        ((0, 1), (0, 0), (1, 0.05), (1, 0.5), (0, 0.55)),
    )
    for i, letter in enumerate(letters):
        left = 0.135 + 0.195 * i
        pen.line([(left + 0.135 * x, 0.215 + 0.15 * y) for x, y in letter], 0.05, _WHITE, solid=False)


def draw_bench(pen: Pen, colour: Colour, _rng: Generator) -> None:
    """A park bench: coloured slats on iron legs."""
    for x in (0.1, 0.84):
        pen.box(x, 0.1, x + 0.055, 0.99, _DARK)
        pen.line([(x - 0.02, 0.98), (x + 0.08, 0.98)], 0.03, _DARK)
    for top in (0.02, 0.2, 0.38):
        pen.box(0.02, top, 0.98, top + 0.145, shade(colour, 1.0 if top != 0.2 else 1.12))
        pen.box(0.02, top + 0.1, 0.98, top + 0.145, shade(colour, 0.7), solid=False)
    pen.polygon([(0.04, 0.56), (0.96, 0.56), (1.0, 0.7), (0.0, 0.7)], shade(colour, 1.2))
    pen.line([(0.02, 0.63), (0.98, 0.63)], 0.012, shade(colour, 0.6), solid=False)
    pen.box(0.0, 0.7, 1.0, 0.77, shade(colour, 0.65))


def draw_umbrella(pen: Pen, colour: Colour, _rng: Generator) -> None:
    """An open umbrella with panels and a crook."""
    pen.line([(0.5, 0.02), (0.5, 0.9)], 0.04, _WOOD)
    pen.line(arc((0.57, 0.88), (0.07, 0.08), 180, 0, 8), 0.045, _WOOD)
    dome = arc((0.5, 0.52), (0.5, 0.46), 180, 360, 20)
    scallops: list[Point] = []
    for i in range(4):
        scallops += arc((0.875 - 0.25 * i, 0.53), (0.125, 0.07), 0, -180, 6)
    pen.polygon([*dome, *scallops], colour)
    for i, factor in ((0, 0.72), (2, 0.72)):
        left, right = 0.25 * i, 0.25 * i + 0.25
        base = arc(((left + right) / 2, 0.53), (0.125, 0.07), -180, 0, 6)
        side = [p for p in dome if (p[0] <= right if i == 0 else left + 0.12 <= p[0] <= right - 0.12)]
        pen.polygon([(0.5, 0.07), *base[::-1], *(side if i == 0 else [])], shade(colour, factor), solid=False)
    pen.line([(0.5, 0.0), (0.5, 0.08)], 0.05, _DARK)
    pen.line(arc((0.5, 0.55), (0.42, 0.38), 200, 245, 8), 0.03, shade(colour, 1.5), solid=False)


def draw_kite(pen: Pen, colour: Colour, rng: Generator) -> None:
    """A diamond of four panels with a tail of bows."""
    sway = 0.16 + 0.1 * float(rng.random())
    tail = [(0.5, 0.66), (0.5 + sway, 0.76), (0.5 - sway / 2, 0.87), (0.5 + sway / 2, 0.98)]
    top, right, bottom, left, middle = (0.5, 0.0), (1.0, 0.28), (0.5, 0.7), (0.0, 0.28), (0.5, 0.28)
    pen.line(tail, 0.045, shade(colour, 0.75))
    pen.polygon([top, right, bottom, left], colour)
    pen.polygon([top, right, middle], shade(colour, 1.55), solid=False)
    pen.polygon([left, middle, bottom], shade(colour, 0.68), solid=False)
    pen.line([top, bottom], 0.03, shade(colour, 0.4), solid=False)
    pen.line([left, right], 0.03, shade(colour, 0.4), solid=False)
    for x, y in tail[1:]:
        pen.polygon(
            [(x - 0.14, y - 0.035), (x + 0.14, y + 0.035), (x + 0.14, y - 0.035), (x - 0.14, y + 0.035)], colour
        )
