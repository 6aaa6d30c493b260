"""People and animals, seen from the side (people from the front)."""

from numpy.random import Generator

from pipelines.data.sample.pen import Colour, Pen, Point, arc, shade

_SKINS: tuple[Colour, ...] = ((250, 212, 176), (226, 172, 124), (156, 104, 68), (106, 70, 48))
_HAIR: tuple[Colour, ...] = ((58, 36, 24), (24, 22, 26), (196, 134, 52), (150, 70, 34))
_TROUSERS: tuple[Colour, ...] = ((52, 66, 112), (76, 60, 52), (62, 62, 72))
_DARK: Colour = (30, 28, 34)
_WHITE: Colour = (255, 255, 255)


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
