"""A scene's picture, and what of every object can be seen in it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipelines.data.sample import figures
from pipelines.data.sample.backgrounds import draw_background
from pipelines.data.sample.kinds import PALETTE
from pipelines.data.sample.pen import Colour, Pen
from pipelines.data.sample.scene import Scene, Thing

_PLAIN: Colour = (128, 128, 128)
_SHADOW_STRENGTH = 90

PAINTERS: Mapping[str, Callable[[Pen, Colour, Generator], None]] = {
    "person": figures.draw_person,
    "car": figures.draw_car,
    "airplane": figures.draw_airplane,
    "boat": figures.draw_boat,
    "traffic light": figures.draw_traffic_light,
    "stop sign": figures.draw_stop_sign,
    "bench": figures.draw_bench,
    "bird": figures.draw_bird,
    "dog": figures.draw_dog,
    "sheep": figures.draw_sheep,
    "cow": figures.draw_cow,
    "umbrella": figures.draw_umbrella,
    "frisbee": figures.draw_frisbee,
    "sports ball": figures.draw_ball,
    "kite": figures.draw_kite,
    "pizza": figures.draw_pizza,
    "clock": figures.draw_clock,
}


def pen_for(thing: Thing) -> Pen:
    """A pen that has drawn the thing; its details follow from the thing's own seed."""
    pen = Pen(thing.box[2], thing.box[3], thing.flip)
    rng = np.random.default_rng(thing.seed)
    colour = PALETTE[thing.colour] if thing.colour else _PLAIN
    jitter = int(rng.integers(-10, 11))
    r, g, b = (min(255, max(0, c + jitter)) for c in colour)
    PAINTERS[thing.kind](pen, (r, g, b), rng)
    return pen


def visible_masks(things: Sequence[Thing], width: int, height: int) -> list[NDArray[np.bool_]]:
    """What can be seen of each thing, bool [height, width] each: later things hide earlier ones."""
    covered = np.zeros((height, width), dtype=bool)
    masks = []
    for thing in reversed(things):
        left, top, across, down = thing.box
        mask = np.zeros((height, width), dtype=bool)
        mask[top : top + down, left : left + across] = np.asarray(pen_for(thing).silhouette()) >= 128
        masks.append(mask & ~covered)
        covered |= mask
    return masks[::-1]


def draw(scene: Scene) -> Image.Image:
    """The scene in colours, RGB, width x height pixels."""
    picture = draw_background(scene)
    _draw_shadows(picture, scene)
    for thing in scene.things:
        sprite = pen_for(thing).sprite()
        picture.paste(sprite.colours, thing.box[:2], sprite.alpha)
    return picture


def _draw_shadows(picture: Image.Image, scene: Scene) -> None:
    """Soft shadows under whatever stands on something; a pale wake under what swims."""
    for zones, colour in ((("grass", "snow", "sand", "road", "pavement"), (18, 24, 44)), (("water",), (232, 250, 255))):
        things = [t for t in scene.things if t.zone in zones]
        if not things:
            continue
        # Drawn small and enlarged: soft edges for nothing.
        small = Image.new("L", (scene.width // 2, scene.height // 2))
        pencil = ImageDraw.Draw(small)
        for thing in things:
            x, y, w, h = (v / 2 for v in thing.box)
            thickness = max(2.0, 0.1 * min(w, h))
            pencil.ellipse(
                (x - 0.02 * w, y + h - thickness, x + 1.06 * w, y + h + 0.7 * thickness), fill=_SHADOW_STRENGTH
            )
        soft = small.reduce(2).resize(picture.size, Image.Resampling.BICUBIC)
        picture.paste(colour, (0, 0), soft)
