"""Moves two boxes of a layout so that a stated relation holds, where no candidate layout kept it."""

import torch
from torch import Tensor

from objgan.layout import Layout
from objgan.statements import ABOVE, BELOW, BETWEEN, LEFT, NEXT_TO, RIGHT, Relation, Statements, kept

_AXIS = {LEFT: 0, RIGHT: 0, NEXT_TO: 0, ABOVE: 1, BELOW: 1}
_SIGN = {LEFT: -1, ABOVE: -1, RIGHT: 1, BELOW: 1, NEXT_TO: 0}
_SLANT = 0.7  # of the distance along the axis, the most across it
_SHRINK = 0.8
_ATTEMPTS = 4


def place(layout: Layout, statements: Statements) -> Layout:
    """The layout, a batch of one, with boxes moved for the relations that it breaks, as far as that breaks no others.

    The two boxes that are moved the least move by the same way, stay within the picture, and shrink where they have no
    room. "Between" is left alone.
    """
    for index, fact in enumerate(statements.facts):
        held = kept(statements, layout)[0]
        if not isinstance(fact, Relation) or fact.word == BETWEEN or held[index]:
            continue
        for moved in _moved(layout, fact):
            now = kept(statements, moved)[0]
            if (now >= held).all() and now[index]:
                layout = moved
                break
    return _largest_first(layout)


def _largest_first(layout: Layout) -> Layout:
    area = layout.boxes[..., 2:].prod(-1).masked_fill(~layout.valid, -1)
    order = area.argsort(dim=1, descending=True, stable=True)
    boxes = layout.boxes.gather(1, order[..., None].expand_as(layout.boxes))
    return Layout(layout.labels.gather(1, order), boxes, layout.count)


def _moved(layout: Layout, relation: Relation) -> list[Layout]:
    """The layout with one pair of boxes moved, more and more of them shrunk."""
    labels, boxes, valid = layout.labels[0], layout.boxes[0], layout.valid[0]
    pairs = [
        (one, other)
        for one in torch.nonzero(valid & (labels == relation.subject))[:, 0].tolist()
        for other in torch.nonzero(valid & (labels == relation.other))[:, 0].tolist()
        if one != other
    ]
    if not pairs:
        return []
    found = [_apart(boxes[[one, other]], relation.word) for one, other in pairs]
    shift = [float((pair - boxes[[one, other]]).abs().sum()) for pair, (one, other) in zip(found, pairs, strict=True)]
    best = list(pairs[shift.index(min(shift))])
    layouts = []
    for attempt in range(_ATTEMPTS):
        changed = boxes.clone()
        changed[best] = _apart(_shrunk(boxes[best], _SHRINK**attempt), relation.word)
        layouts.append(Layout(layout.labels, changed[None], layout.count))
    return layouts


def _shrunk(pair: Tensor, factor: float) -> Tensor:
    """xywh [2, 4] about their centres."""
    sides = pair[:, 2:] * factor
    return torch.cat([pair[:, :2] + (pair[:, 2:] - sides) / 2, sides], 1)


def _apart(pair: Tensor, word: str) -> Tensor:
    """xywh [2, 4], the subject first, moved about their middle so that the relation holds, if there is room."""
    axis, sign = _AXIS[word], _SIGN[word]
    centres, sides = pair[:, :2] + pair[:, 2:] / 2, pair[:, 2:]
    gap = centres[0] - centres[1]
    sign = sign or (1 if gap[axis] >= 0 else -1)
    wanted = gap.clone()
    wanted[axis] = sign * max(float(gap[axis] * sign), float(sides[:, axis].mean()) / 2, 0.05)
    limit = _SLANT * float(wanted[axis].abs())
    wanted[1 - axis] = gap[1 - axis].clamp(-limit, limit)
    middle = centres.mean(0)
    corners = torch.stack([middle + wanted / 2, middle - wanted / 2]) - sides / 2
    return torch.cat([torch.minimum(corners.clamp_min(0), 1 - sides), sides], 1)
