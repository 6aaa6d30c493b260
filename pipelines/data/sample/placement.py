"""Where the groups of a scene go.

Each zone is filled from left to right: every group gets a row of its own, in random order with random gaps between.
So the width of a group follows from its kind, size and count, as its height does, and its depth from its zone.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from numpy.random import Generator

from pipelines.data.sample.kinds import KIND
from pipelines.data.sample.scene import Box, Group, Stage, Thing

_MARGIN = 0.02
_STEP, _CLOSE_STEP = 1.08, 0.84  # from one member of a row to the next, in widths: at most, at least
_CROWD_STEP = 0.9
_HUDDLED = 0.4  # share of pairs on the ground that overlap, one in front of the other
_LEAST_SCALE = 0.5
_TOLERATED = 0.12


class _Row(NamedTuple):
    """The boxes of one group before it knows where it stands: left edges from 0, tops from the group's own top."""

    boxes: list[tuple[float, float, float, float]]
    width: float
    height: float


@dataclass(frozen=True)
class _Standing:
    """A group with its row and where the row goes: left edge and lower edge, pixels."""

    number: int
    row: _Row
    left: float
    foot: float


def overlap(a: Box, b: Box) -> int:
    """The common area of two pixel boxes."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, across) * max(0, down)


def place(rng: Generator, stage: Stage, groups: list[Group]) -> tuple[list[Thing], list[Group]]:
    """The things of the groups in painting order, and the groups at the scale at which they fit.

    Nothing at all where they do not fit: the caller chooses others.
    """
    zones = dict.fromkeys(g.zone for g in groups)
    placed: list[Thing] = []
    groups = list(groups)
    for layer in ("wall", "sky", "ground"):
        members = [i for i, g in enumerate(groups) if _layer(g.zone) == layer]
        if not members:
            continue
        shrink = min(1.0, _room(stage, layer, groups, members))
        for i in members:
            groups[i] = replace(groups[i], scale=groups[i].scale * shrink)
            if groups[i].scale < _LEAST_SCALE and not groups[i].crowd:
                return [], []
        placed += _things(rng, stage, groups, _stand(rng, stage, groups, members))
    if len(zones) > 1 and _entangled(placed):
        return [], []
    return placed, groups


def _layer(zone: str) -> str:
    return zone if zone in ("sky", "wall") else "ground"


def _room(stage: Stage, layer: str, groups: list[Group], members: list[int]) -> float:
    """By how much the groups of a layer must be scaled to fit side by side, and under the top of the picture."""
    free = stage.width * (1 - 2 * _MARGIN)
    needed = sum(_row_width(stage, groups[i]) for i in members)
    highest = max(_height(stage, groups[i]) for i in members)
    ceiling = {"sky": 0.5, "wall": 0.42, "ground": 0.78}[layer] * stage.height
    return min(free / needed, ceiling / highest)


def _height(stage: Stage, group: Group) -> float:
    return stage.usual_height(group.kind) * group.scale


def _row_width(stage: Stage, group: Group) -> float:
    width = _height(stage, group) * KIND[group.kind].aspect
    in_row = (group.count + 1) // 2 + 0.5 if group.crowd else group.count
    return width * (1 + (in_row - 1) * (_CROWD_STEP if group.crowd else _STEP))


def _row(rng: Generator, stage: Stage, group: Group) -> _Row:
    height = _height(stage, group)
    width = height * KIND[group.kind].aspect
    flying = group.zone == "sky"
    spread = 0.45 * height if flying else min(0.2 * height, 0.06 * stage.height)
    step = _CLOSE_STEP + (_STEP - _CLOSE_STEP) * rng.random()
    boxes = []
    for i in range(group.count):
        if group.crowd:  # two ranks, the second in the gaps of the first
            x = width * _CROWD_STEP * (i // 2 + 0.5 * (i % 2) + 0.16 * (rng.random() - 0.5))
            y = height * ((0.85 if flying else 0.3) * (i % 2) + (0.4 if flying else 0.2) * rng.random())
        else:
            x, y = i * width * step, spread * rng.random() * (group.count > 1)
        size = 0.94 + 0.06 * rng.random() if group.count > 1 else 1.0
        boxes.append((max(0.0, x), y + height * (1 - size), width * size, height * size))
    return _Row(boxes, max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes))


def _stand(rng: Generator, stage: Stage, groups: list[Group], members: list[int]) -> list[_Standing]:
    rows = {i: _row(rng, stage, groups[i]) for i in members}
    order = [members[k] for k in rng.permutation(len(members))]
    margin = _MARGIN * stage.width
    slack = stage.width - 2 * margin - sum(row.width for row in rows.values())
    gaps = rng.dirichlet([1.5] * (len(order) + 1)) * max(0.0, slack)
    huddled = len(order) > 1 and _layer(groups[order[0]].zone) == "ground" and rng.random() < _HUDDLED
    if huddled:  # the narrower of two stands in front
        order[:2] = sorted(order[:2], key=lambda i: -rows[i].width)
    left = margin
    standing: list[_Standing] = []
    for k, i in enumerate(order):
        if k == 1 and huddled:
            left -= _lap(rng, rows[order[0]].width, rows[i].width)
        else:
            left += gaps[k]
        foot = _foot(rng, stage, groups[i].zone, rows[i].height)
        if k == 1 and huddled and groups[i].zone == groups[order[0]].zone:
            foot = min(0.985 * stage.height, standing[0].foot + 0.05 * stage.height)
        standing.append(_Standing(i, rows[i], left, foot))
        left = max(left + rows[i].width, *(s.left + s.row.width for s in standing))
    # Painted from back to front: what stands lower is nearer.
    return sorted(standing, key=lambda s: s.foot)


def _lap(rng: Generator, behind: float, front: float) -> float:
    """How far a row in front reaches back over the one behind it, pixels: something narrow may stand amidst it."""
    if front < 0.7 * behind:
        return behind * (0.25 + 0.7 * rng.random())
    return (0.15 + 0.2 * rng.random()) * min(behind, front)


def _foot(rng: Generator, stage: Stage, zone: str, height: float) -> float:
    """The lower edge of a row of this height, pixels."""
    if zone in ("sky", "wall"):
        middle = (stage.horizon - 0.17 if zone == "wall" else 0.12 + 0.22 * rng.random()) * stage.height
        return max(middle + height / 2, height + 0.02 * stage.height)
    far, near = {
        "water": (stage.horizon + 0.16, stage.shore - 0.06),
        "sand": (stage.shore + 0.12, 0.975),
        "road": (0.84, 0.96),
        "pavement": (0.6, 0.66),
    }.get(zone, (0.68, 0.96))
    return max(float(far + (near - far) * rng.random()) * stage.height, height + 0.02 * stage.height)


def _things(rng: Generator, stage: Stage, groups: list[Group], standing: list[_Standing]) -> list[Thing]:
    things = []
    for s in standing:
        group, flip = groups[s.number], bool(rng.random() < 0.5)
        top = s.foot - s.row.height
        # A stop sign or a clock in the mirror would be wrong to read.
        flip = flip and group.kind not in ("stop sign", "clock")
        for i, (x, y, w, h) in sorted(enumerate(s.row.boxes), key=lambda item: item[1][1] + item[1][3]):
            box = _pixels(stage, s.left + x, top + y, w, h)
            seed = (*stage.seed, 2, s.number, i)
            things.append(Thing(group.kind, group.colour, group.zone, s.number, box, flip, seed))
    return things


def _pixels(stage: Stage, x: float, y: float, w: float, h: float) -> Box:
    width, height = max(4, min(round(w), stage.width)), max(4, min(round(h), stage.height))
    left = min(max(0, round(x)), stage.width - width)
    top = min(max(0, round(y)), stage.height - height)
    return left, top, width, height


def _entangled(things: list[Thing]) -> bool:
    """Whether something in the air or on a wall and something below it hide more of each other than looks well."""
    for a in things:
        for b in things:
            if _layer(a.zone) != "ground" and _layer(b.zone) != _layer(a.zone):
                smaller = min(a.box[2] * a.box[3], b.box[2] * b.box[3])
                if overlap(a.box, b.box) > _TOLERATED * smaller:
                    return True
    return False
