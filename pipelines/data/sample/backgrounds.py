"""The four backgrounds: sky, and grass, sea, snow or street below it. Textures differ from picture to picture."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipelines.data.sample.pen import Colour, arc, shade
from pipelines.data.sample.scene import Stage

_SKIES: Mapping[str, tuple[Colour, Colour]] = {
    "blue": ((66, 148, 234), (188, 226, 250)),
    "cloudy": ((142, 154, 172), (214, 220, 226)),
    "sunset": ((122, 92, 178), (255, 186, 116)),
}
_PASTELS: tuple[Colour, ...] = (
    (206, 132, 104),
    (226, 196, 146),
    (168, 184, 200),
    (196, 158, 168),
    (164, 190, 160),
    (214, 208, 196),
)


def draw_background(stage: Stage) -> Image.Image:
    """The empty stage, RGB, width x height pixels."""
    rng = np.random.default_rng((*stage.seed, 1))
    picture = Image.new("RGB", (stage.width, stage.height))
    horizon = round(stage.horizon * stage.height)
    picture.paste(_band(rng, (stage.width, horizon), _SKIES[stage.sky], 3), (0, 0))
    _clouds(picture, stage, rng)
    _GROUNDS[stage.background](picture, stage, rng)
    return picture


def _band(
    rng: Generator, size: tuple[int, int], colours: tuple[Colour, Colour], grain: float, waves: float = 0
) -> Image.Image:
    """A vertical gradient with fine `grain` and soft horizontal `waves`, both standard deviations of grey levels."""
    width, height = size
    if height < 1:
        return Image.new("RGB", (width, 1))
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    top, bottom = (np.asarray(c, dtype=np.float32) for c in colours)
    pixels: NDArray[np.float32] = top + (bottom - top) * ramp
    noise = grain * rng.standard_normal((height, width), dtype=np.float32)
    if waves:
        coarse = waves * rng.standard_normal((max(2, height // 6), max(2, width // 22)), dtype=np.float32)
        noise += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray((pixels + noise[:, :, None]).clip(0, 255).astype(np.uint8))


def _ground(picture: Image.Image, top: float, bottom: float, band: Callable[[tuple[int, int]], Image.Image]) -> None:
    first, last = round(top * picture.height), round(bottom * picture.height)
    if last > first:
        picture.paste(band((picture.width, last - first)), (0, first))


def _clouds(picture: Image.Image, stage: Stage, rng: Generator) -> None:
    count = {"blue": rng.integers(1, 4), "cloudy": rng.integers(5, 9), "sunset": rng.integers(1, 4)}[stage.sky]
    tint = {"blue": (255, 255, 255), "cloudy": (244, 246, 248), "sunset": (255, 214, 196)}[stage.sky]
    small = Image.new("L", (stage.width // 2, stage.height // 2))
    pencil = ImageDraw.Draw(small)
    unit = stage.side / 2
    for _ in range(int(count)):
        x, y = rng.random() * small.width, (0.05 + 0.6 * rng.random()) * stage.horizon * small.height
        size = (0.05 + 0.05 * rng.random()) * unit
        for i in range(-2, 3):
            radius = size * (1.0 - 0.22 * abs(i)) * (0.85 + 0.3 * rng.random())
            centre = x + i * size * 0.85
            pencil.ellipse((centre - radius, y - radius * 0.75, centre + radius, y + radius * 0.45), fill=215)
    soft = small.reduce(2).resize(picture.size, Image.Resampling.BICUBIC)
    picture.paste(tint, (0, 0), soft)


def _ridge(picture: Image.Image, stage: Stage, rng: Generator, colour: Colour, height: float) -> None:
    """Rolling hills along the horizon, up to `height` (fraction of the picture) above it."""
    x = np.linspace(0, 1, 33)
    phase, pace = rng.random(2) * 6.28, 3 + 5 * rng.random(2)
    rise = 0.5 + 0.25 * np.sin(pace[0] * x + phase[0]) + 0.25 * np.sin(2 * pace[1] * x + phase[1])
    y = (stage.horizon - height * rise) * stage.height
    base = stage.horizon * stage.height + 1
    points = [(float(a * stage.width), float(b)) for a, b in zip(x, y, strict=True)]
    ImageDraw.Draw(picture).polygon([(0.0, base), *points, (float(stage.width), base)], fill=colour)


def _grass(picture: Image.Image, stage: Stage, rng: Generator) -> None:
    hue = int(rng.integers(-14, 15))
    _ridge(picture, stage, rng, (92 + hue, 150, 110), 0.13)
    _ridge(picture, stage, rng, (74 + hue, 142, 76), 0.07)
    colours = ((132 + hue, 190, 80), (68 + hue, 142, 44))
    _ground(picture, stage.horizon, 1, lambda size: _band(rng, size, colours, 8, 7))
    pencil = ImageDraw.Draw(picture)
    for depth, x, tone in _scatter(stage, rng, stage.horizon, 1, 150):
        y, blade = depth * stage.height, 0.008 * stage.side * (0.5 + 3 * (depth - stage.horizon))
        lean = blade * (tone - 0.5)
        colour = shade((84, 156, 50), 0.75 + 0.55 * tone)
        pencil.line((x, y, x + lean, y - 2 * blade), fill=colour, width=1)
    for depth, x, tone in _scatter(stage, rng, stage.horizon + 0.06, 1, int(rng.integers(0, 22))):
        y, size = depth * stage.height, 0.006 * stage.side
        petals: Colour = ((255, 255, 255), (255, 226, 74), (250, 154, 196))[int(tone * 3)]
        pencil.ellipse((x - size, y - size, x + size, y + size), fill=petals)


def _sea(picture: Image.Image, stage: Stage, rng: Generator) -> None:
    green = int(rng.integers(-8, 22))
    colours = ((22, 88 + green, 160), (54, 160 + green, 196))
    _ground(picture, stage.horizon, stage.shore, lambda size: _band(rng, size, colours, 4, 8))
    pencil = ImageDraw.Draw(picture)
    for depth, x, tone in _scatter(stage, rng, stage.horizon + 0.03, stage.shore - 0.02, 70):
        y, long = depth * stage.height, stage.side * (0.012 + 0.09 * (depth - stage.horizon)) * (0.6 + 0.8 * tone)
        colour = shade((92, 184, 220), 1.0 + 0.7 * tone)
        pencil.line(arc((x, y), (long, long * 0.22), 205, 335, 5), fill=colour, width=1 + round(stage.side / 400))
    if stage.shore >= 1:
        return
    _ground(picture, stage.shore, 1, lambda size: _band(rng, size, ((240, 218, 164), (222, 188, 126)), 9, 4))
    along = np.linspace(0, stage.width, 25)
    edge = (stage.shore + 0.012 * np.sin(along / stage.side * 9 + 6.28 * rng.random())) * stage.height
    foam = [(float(a), float(b)) for a, b in zip(along, edge, strict=True)]
    pencil.line(foam, fill=(240, 252, 255), width=max(2, round(0.02 * stage.side)), joint="curve")


def _snow(picture: Image.Image, stage: Stage, rng: Generator) -> None:
    _ridge(picture, stage, rng, (178, 196, 220), 0.16)
    _ridge(picture, stage, rng, (208, 220, 236), 0.07)
    _ground(picture, stage.horizon, 1, lambda size: _band(rng, size, ((226, 234, 246), (246, 249, 253)), 3, 6))
    pencil = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(3, 9))):
        x, tall = rng.random() * stage.width, (0.09 + 0.08 * rng.random()) * stage.side
        base = (stage.horizon + 0.02 + 0.04 * rng.random()) * stage.height
        for level in (0.0, 0.3, 0.58):
            half, foot = tall * 0.3 * (1 - level * 0.8), base - tall * level
            tip = (x, foot - tall * 0.45)
            pencil.polygon([(x - half, foot), tip, (x + half, foot)], fill=(46, 98, 84))
            cap = [(x - half * 0.42, foot - tall * 0.26), tip, (x + half * 0.42, foot - tall * 0.26)]
            pencil.polygon(cap, fill=(236, 243, 250))
    for depth, x, tone in _scatter(stage, rng, 0, 1, 70):
        size = stage.side * 0.005 * (0.5 + tone)
        pencil.ellipse(
            (x - size, depth * stage.height - size, x + size, depth * stage.height + size), fill=(255, 255, 255)
        )


def _street(picture: Image.Image, stage: Stage, rng: Generator) -> None:
    pencil = ImageDraw.Draw(picture)
    foot, left = stage.horizon * stage.height, 0.0
    while left < stage.width:
        wide, top = (0.2 + 0.16 * rng.random()) * stage.side, (0.08 + 0.17 * rng.random()) * stage.height
        _building(pencil, (left, top, left + wide, foot), _PASTELS[int(rng.integers(len(_PASTELS)))], rng)
        left += wide + (0.02 * stage.side if rng.random() < 0.4 else 0)
    kerb = stage.horizon + 0.16
    _ground(picture, stage.horizon, kerb, lambda size: _band(rng, size, ((186, 182, 176), (204, 200, 192)), 6, 2))
    _ground(picture, kerb, 1, lambda size: _band(rng, size, ((96, 98, 106), (122, 124, 132)), 7, 4))
    pencil.rectangle((0, kerb * stage.height, stage.width, (kerb + 0.015) * stage.height), fill=(232, 230, 224))
    for x in np.arange(rng.random() * 0.2, 1.3, 0.2) * stage.width:
        corners = [(0, 0.845), (0.1, 0.845), (0.085, 0.875), (-0.015, 0.875)]
        pencil.polygon([(x + a * stage.width, b * stage.height) for a, b in corners], fill=(240, 236, 214))
    for x in np.arange(0.05 + 0.1 * rng.random(), 1.1, 0.14) * stage.width:
        pencil.line((x, foot, x - 0.03 * stage.width, kerb * stage.height), fill=(166, 162, 156), width=1)


def _building(
    pencil: ImageDraw.ImageDraw, box: tuple[float, float, float, float], wall: Colour, rng: Generator
) -> None:
    left, top, right, foot = box
    pencil.rectangle(box, fill=wall)
    pencil.rectangle((left, top, right, top + 0.035 * foot), fill=shade(wall, 0.72))
    pencil.rectangle((right - 0.05 * (right - left), top, right, foot), fill=shade(wall, 0.84))
    columns, pace = int(rng.integers(2, 5)), 0.2 * foot
    step = (right - left) / columns
    for column in range(columns):
        for y in np.arange(top + 0.4 * pace, foot - 0.6 * pace, pace):
            x = left + (column + 0.25) * step
            pane: Colour = (252, 226, 140) if rng.random() < 0.25 else (104, 138, 168)
            pencil.rectangle((x, y, x + 0.45 * step, y + 0.55 * pace), fill=pane, outline=shade(wall, 1.4))


def _scatter(stage: Stage, rng: Generator, top: float, bottom: float, count: int) -> list[tuple[float, float, float]]:
    """Random (height fraction, x pixels, tone in [0, 1)) from back to front."""
    rows = rng.random((count, 3))
    rows[:, 0] = np.sort(top + (bottom - top) * rows[:, 0])
    return [(float(d), float(x) * stage.width, float(t)) for d, x, t in rows]


_GROUNDS: Mapping[str, Callable[[Image.Image, Stage, Generator], None]] = {
    "grass": _grass,
    "sea": _sea,
    "snow": _snow,
    "street": _street,
}
