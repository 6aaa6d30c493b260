"""What is in a scene, and where: chosen at random, placed where such things are."""

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from pipelines.data.sample.drawing import visible_masks
from pipelines.data.sample.kinds import BACKGROUNDS, KINDS, POOR_CONTRAST, SKIES, Kind
from pipelines.data.sample.placement import overlap, place
from pipelines.data.sample.scene import Group, Scene, Stage, Thing

MINIMUM_SIDE = 32
"""Pixels: below this the objects are too small to be drawn."""

_SHAPES = ((1.25, 0.9375), (0.9375, 1.25), (1.0, 1.0), (1.125, 0.875), (1.1875, 1.0625))
_EMPTY, _CROWDED = 0.025, 0.07
_TRIES = 30
_MOSTLY_HIDDEN = 0.45


def build_scene(seed: int, index: int, side: int) -> Scene:
    """The scene of image number `index` (from 0) of the data set of this `seed`, about `side` pixels high and wide."""
    rng = np.random.default_rng((seed, index))
    stage = _empty_stage(rng, side, (seed, index))
    things: list[Thing] = []
    groups: list[Group] = []
    if rng.random() >= _EMPTY:
        for _ in range(_TRIES):
            groups = _choose(rng, stage)
            things, groups = place(rng, stage, groups)
            if things:
                break
    return _seen(stage, things, groups)


def _empty_stage(rng: Generator, side: int, seed: tuple[int, ...]) -> Stage:
    across, down = _SHAPES[rng.integers(len(_SHAPES))]
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    sky = SKIES[rng.choice(3, p=(0.6, 0.2, 0.2))]
    horizon = 0.5 if background == "street" else 0.38 + 0.08 * rng.random()
    shore = 0.78 + 0.05 * rng.random() if background == "sea" and rng.random() < 0.6 else 1.0
    return Stage(round(across * side), round(down * side), background, sky, horizon, shore, seed)


def _choose(rng: Generator, stage: Stage) -> list[Group]:
    number = int(rng.choice(4, p=(0, 0.36, 0.47, 0.17)))
    # Most pictures hold at most six objects, a few more than that.
    budget = 6 if rng.random() < 0.95 else 9
    candidates = [k for k in KINDS if _zones(k, stage)]
    weights = np.array([k.weight for k in candidates])
    picked = [candidates[i] for i in rng.choice(len(candidates), number, replace=False, p=weights / weights.sum())]
    groups: list[Group] = []
    crowd_at = next((i for i, k in enumerate(picked) if k.crowd), -1) if rng.random() < _CROWDED else -1
    for i, kind in enumerate(picked):
        zones = _zones(kind, stage)
        zone = zones[rng.integers(len(zones))]
        crowd = i == crowd_at
        count = int(rng.integers(7, 12)) if crowd else 1 + int(rng.choice(4, p=(0.56, 0.23, 0.14, 0.07)))
        count = count if crowd else min(count, max(1, budget - (number - 1 - i)))
        budget -= 0 if crowd else count
        groups.append(Group(kind.name, _colour(rng, kind, zone, stage), zone, count, _scale(rng, crowd), crowd))
    return groups


def _zones(kind: Kind, stage: Stage) -> list[str]:
    return [z for z in kind.zones.get(stage.background, ()) if z != "sand" or stage.shore < 1]


def _colour(rng: Generator, kind: Kind, zone: str, stage: Stage) -> str | None:
    poor = POOR_CONTRAST[f"{stage.sky} sky" if zone == "sky" else zone]
    colours = [c for c in kind.colours if c not in poor]
    return colours[rng.integers(len(colours))] if colours else None


def _scale(rng: Generator, crowd: bool) -> float:
    if crowd:
        return 0.52
    low, high = ((0.9, 1.1), (0.64, 0.76), (1.3, 1.48))[rng.choice(3, p=(0.56, 0.2, 0.24))]
    return float(low + (high - low) * rng.random())


def _seen(stage: Stage, things: list[Thing], groups: list[Group]) -> Scene:
    """The scene without the things that others hide for the most part; groups count what is left."""
    whole = {t: int(visible_masks([t], stage.width, stage.height)[0].sum()) for t in _overlapped(things)}
    masks = visible_masks(things, stage.width, stage.height)
    things = [t for t, m in zip(things, masks, strict=True) if m.sum() >= max(1, _MOSTLY_HIDDEN * whole.get(t, 0))]
    if len(things) < len(masks):  # without the dropped ones, others may show more
        masks = visible_masks(things, stage.width, stage.height)
    left = [sum(t.group == g for t in things) for g in range(len(groups))]
    alive = [g for g, count in enumerate(left) if count]
    groups = [replace(groups[g], count=left[g]) for g in alive]
    things = [replace(t, group=alive.index(t.group)) for t in things]
    return Scene(**vars(stage), things=tuple(things), groups=tuple(groups), masks=tuple(masks))


def _overlapped(things: list[Thing]) -> list[Thing]:
    """The things whose box meets that of a later one."""
    return [t for i, t in enumerate(things) if any(overlap(t.box, u.box) for u in things[i + 1 :])]
