"""Drawings of the classes: animals, round things, other objects."""

import math

from numpy.random import Generator

from pipelines.data.sample.pen import Colour, Pen, Point, arc, shade

_SKINS: tuple[Colour, ...] = ((250, 212, 176), (226, 172, 124), (156, 104, 68), (106, 70, 48))
_HAIR: tuple[Colour, ...] = ((58, 36, 24), (24, 22, 26), (196, 134, 52), (150, 70, 34))
_TROUSERS: tuple[Colour, ...] = ((52, 66, 112), (76, 60, 52), (62, 62, 72))
_DARK: Colour = (30, 28, 34)
_WHITE: Colour = (255, 255, 255)

_CENTRE: Point = (0.5, 0.5)
_DISC_WHITE: Colour = (252, 250, 242)
_DISC_DARK: Colour = (38, 36, 44)

_OBJECT_DARK: Colour = (40, 40, 48)
_GREY: Colour = (132, 136, 144)
_GLASS: Colour = (190, 226, 246)
_OBJECT_WHITE: Colour = (252, 250, 244)
_WOOD: Colour = (124, 78, 42)


def draw_person(pen: Pen, colour: Colour, rng: Generator) -> None:
    """A person in a coloured shirt, one arm raised now and then."""
    skin, hair = _SKINS[rng.integers(4)], _HAIR[rng.integers(4)]
    trousers = _TROUSERS[rng.integers(3)]
    for left in (0.29, 0.53):
        pen.box(left, 0.6, left + 0.19, 0.955, trousers)
        pen.oval((left + 0.08, 0.965), (0.14, 0.033), _DARK)
    raised = rng.random() < 0.4
    for shoulder, hand in (((0.26, 0.36), (0.07, 0.6)), ((0.74, 0.36), (0.93, 0.2 if raised else 0.6))):
        pen.line([shoulder, hand], 0.15, shade(colour, 0.85))
        pen.oval(hand, (0.075, 0.034), skin)
    pen.polygon([(0.24, 0.31), (0.4, 0.285), (0.6, 0.285), (0.76, 0.31), (0.75, 0.65), (0.25, 0.65)], colour)
    pen.box(0.25, 0.61, 0.75, 0.645, shade(trousers, 0.7), solid=False)
    pen.line([(0.5, 0.33), (0.5, 0.6)], 0.03, shade(colour, 0.7), solid=False)
    pen.oval((0.5, 0.15), (0.25, 0.135), hair)
    pen.oval((0.5, 0.175), (0.2, 0.105), skin, solid=False)
    pen.polygon(arc((0.5, 0.135), (0.25, 0.125), 180, 360), hair, solid=False)
    for x in (0.42, 0.58):
        pen.oval((x, 0.17), (0.034, 0.016), _DARK, solid=False)
    pen.line(arc((0.5, 0.2), (0.1, 0.035), 20, 160, 6), 0.04, (178, 50, 50), solid=False)


def draw_bird(pen: Pen, colour: Colour, rng: Generator) -> None:
    """A bird in flight, wing up."""
    dark, wing_tip = shade(colour, 0.7), 0.05 * rng.random()
    pen.polygon([(0.3, 0.62), (0.02, 0.5), (0.0, 0.68), (0.08, 0.78), (0.32, 0.76)], dark)
    pen.oval((0.5, 0.68), (0.3, 0.26), colour)
    pen.oval((0.5, 0.79), (0.2, 0.13), shade(colour, 1.55), solid=False)
    pen.polygon([(0.88, 0.46), (1.0, 0.56), (0.87, 0.62)], (250, 150, 30))
    pen.oval((0.77, 0.51), (0.16, 0.18), colour)
    pen.oval((0.81, 0.47), (0.05, 0.06), _WHITE, solid=False)
    pen.oval((0.82, 0.475), (0.028, 0.035), _DARK, solid=False)
    pen.polygon([(0.36, 0.7), (0.28, 0.4), (0.12 + wing_tip, 0.02), (0.5, 0.2), (0.66, 0.62), (0.52, 0.72)], dark)
    for x, y in ((0.22, 0.12), (0.36, 0.18)):
        pen.line([(0.48, 0.62), (x + wing_tip, y + 0.06)], 0.025, shade(colour, 1.3), solid=False)


def draw_dog(pen: Pen, colour: Colour, rng: Generator) -> None:
    """A dog with a hanging ear and a collar."""
    dark = shade(colour, 0.62)
    tail = 0.06 * rng.random()
    pen.line([(0.13, 0.5), (0.05, 0.32), (0.06 + tail, 0.18)], 0.075, colour)
    _legs(pen, (0.17, 0.58), 0.62, 0.105, dark)
    _legs(pen, (0.27, 0.68), 0.62, 0.105, colour)
    pen.oval((0.44, 0.56), (0.34, 0.2), colour)
    pen.polygon([(0.54, 0.42), (0.66, 0.2), (0.84, 0.3), (0.74, 0.66)], colour)
    pen.oval((0.76, 0.24), (0.17, 0.19), colour)
    pen.oval((0.9, 0.31), (0.1, 0.1), shade(colour, 1.35))
    pen.oval((0.965, 0.26), (0.035, 0.045), _DARK, solid=False)
    pen.oval((0.65, 0.27), (0.075, 0.18), dark)
    pen.oval((0.79, 0.19), (0.032, 0.04), _DARK if sum(colour) > 250 else _WHITE, solid=False)
    pen.line([(0.6, 0.4), (0.79, 0.47)], 0.05, (222, 40, 40) if sum(colour) < 650 else (40, 90, 220), solid=False)
    pen.oval((0.36, 0.66), (0.2, 0.07), shade(colour, 1.25), solid=False)


def draw_sheep(pen: Pen, colour: Colour, rng: Generator) -> None:
    """A woolly cloud on four legs, the face of the other shade."""
    light = sum(colour) > 400
    face: Colour = (58, 50, 52) if light else (206, 190, 172)
    wool = [(x, 0.4 - 0.1 * (i % 2)) for i, x in enumerate((0.18, 0.32, 0.48, 0.62))]
    wool += [(0.12, 0.56), (0.24, 0.7), (0.4, 0.73), (0.56, 0.7), (0.7, 0.55)]
    _legs(pen, (0.24, 0.36, 0.54, 0.64), 0.66, 0.07, face)
    pen.oval((0.42, 0.53), (0.36, 0.3), colour)
    for x, y in wool:
        pen.oval((x, y - 0.05), (0.15, 0.17), colour)
    for x, y in wool:
        jitter = 0.02 * float(rng.random())
        pen.line(
            arc((x + jitter, y - 0.04), (0.08, 0.08), 30, 190, 7), 0.022, shade(colour, 0.78 if light else 1.3), False
        )
    pen.oval((0.84, 0.4), (0.13, 0.18), face)
    pen.polygon([(0.74, 0.33), (0.62, 0.42), (0.76, 0.44)], shade(face, 0.85))
    pen.oval((0.8, 0.22), (0.11, 0.1), colour)
    pen.oval((0.86, 0.36), (0.034, 0.042), _WHITE, solid=False)
    pen.oval((0.87, 0.365), (0.018, 0.024), (0, 0, 0), solid=False)


def draw_cow(pen: Pen, colour: Colour, rng: Generator) -> None:
    """A cow with patches, horns, a pink muzzle and an udder."""
    light = sum(colour) > 600
    patch: Colour = (62, 52, 52) if light else (248, 238, 224)
    pen.line([(0.07, 0.34), (0.03, 0.5), (0.05, 0.66)], 0.03, colour)
    pen.oval((0.05, 0.68), (0.035, 0.06), shade(colour, 0.5))
    _legs(pen, (0.18, 0.54), 0.6, 0.1, shade(colour, 0.7))
    _legs(pen, (0.09, 0.64), 0.6, 0.1, colour)
    pen.oval((0.3, 0.72), (0.1, 0.07), (244, 164, 172))
    body = [
        (0.07, 0.32),
        (0.13, 0.26),
        (0.7, 0.24),
        (0.76, 0.34),
        (0.74, 0.66),
        (0.66, 0.72),
        (0.12, 0.72),
        (0.06, 0.6),
    ]
    pen.polygon(body, colour)
    for x, y, size in ((0.24, 0.4, 0.11), (0.5, 0.5, 0.13), (0.62, 0.33, 0.07)):
        at = (x + 0.05 * float(rng.random()), y + 0.04 * float(rng.random()))
        pen.oval(at, (size, size * 1.05), patch, solid=False)
    for left in (0.72, 0.9):
        tip = left - 0.05 if left < 0.8 else left + 0.05
        pen.line([(left, 0.14), (tip, 0.03)], 0.035, (238, 224, 186))
    pen.polygon([(0.7, 0.18), (0.6, 0.2), (0.68, 0.28)], shade(colour, 0.7))
    pen.polygon([(0.7, 0.12), (0.92, 0.12), (0.96, 0.3), (0.92, 0.46), (0.74, 0.46), (0.68, 0.3)], colour)
    pen.polygon([(0.78, 0.12), (0.86, 0.12), (0.86, 0.36), (0.8, 0.36)], patch, solid=False)
    pen.oval((0.84, 0.44), (0.13, 0.1), (246, 176, 176))
    for x in (0.79, 0.89):
        pen.oval((x, 0.44), (0.018, 0.022), (150, 80, 84), solid=False)
    for x in (0.75, 0.9):
        pen.oval((x, 0.24), (0.026, 0.036), _DARK if light else _WHITE, solid=False)


def _legs(pen: Pen, lefts: tuple[float, ...], top: float, width: float, colour: Colour) -> None:
    for left in lefts:
        corners: list[Point] = [(left, top), (left + width, top), (left + width, 0.99), (left, 0.99)]
        pen.polygon(corners, colour)
        pen.box(left, 0.93, left + width, 0.99, shade(colour, 0.5), solid=False)


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
        pen.polygon([pole, *rim], _DISC_WHITE, solid=False)
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
    """A coloured rim, a white face with twelve ticks and two hands."""
    _disc(pen, 0.5, colour)
    _disc(pen, 0.385, _DISC_WHITE)
    for hour in range(12):
        long = hour % 3 == 0
        ends = [_around(0.35, 30 * hour), _around(0.25 if long else 0.3, 30 * hour)]
        pen.line(ends, 0.05 if long else 0.025, _DISC_DARK, solid=False)
    minutes = 12 * 60 * rng.random()
    pen.line([_CENTRE, _around(0.19, minutes / 2 - 90)], 0.065, _DISC_DARK, solid=False)
    pen.line([_CENTRE, _around(0.28, minutes % 60 * 6 - 90)], 0.042, _DISC_DARK, solid=False)
    _disc(pen, 0.05, colour)


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
        pen.oval((x, 0.8), (0.115, 0.196), _OBJECT_DARK)
        pen.oval((x, 0.8), (0.06, 0.102), (200, 204, 210), solid=False)
        pen.oval((x, 0.8), (0.022, 0.038), _OBJECT_DARK, solid=False)


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
    pen.polygon([(0.52, 0.1), (0.95, 0.66), (0.52, 0.68)], _OBJECT_WHITE)
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
        pen.oval((0.3 + 0.2 * i + 0.02 * float(rng.random()), 0.835), (0.035, 0.033), _OBJECT_WHITE, solid=False)


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

    pen.polygon(octagon(0.54), _OBJECT_WHITE)
    pen.polygon(octagon(0.485), (214, 24, 32), solid=False)
    letters: tuple[tuple[Point, ...], ...] = (
        ((1, 0.1), (0.5, 0), (0, 0.1), (0, 0.4), (1, 0.6), (1, 0.9), (0.5, 1), (0, 0.9)),
        ((0, 0), (1, 0), (0.5, 0), (0.5, 1)),
        ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0)),
        ((0, 1), (0, 0), (1, 0.05), (1, 0.5), (0, 0.55)),
    )
    for i, letter in enumerate(letters):
        left = 0.135 + 0.195 * i
        pen.line([(left + 0.135 * x, 0.215 + 0.15 * y) for x, y in letter], 0.05, _OBJECT_WHITE, solid=False)


def draw_bench(pen: Pen, colour: Colour, _rng: Generator) -> None:
    """A park bench: coloured slats on iron legs."""
    for x in (0.1, 0.84):
        pen.box(x, 0.1, x + 0.055, 0.99, _OBJECT_DARK)
        pen.line([(x - 0.02, 0.98), (x + 0.08, 0.98)], 0.03, _OBJECT_DARK)
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
    pen.line([(0.5, 0.0), (0.5, 0.08)], 0.05, _OBJECT_DARK)
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
