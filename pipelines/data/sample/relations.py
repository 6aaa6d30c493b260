"""Which relations hold between the groups of a scene, by the boxes of what can be seen of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.data.sample.drawing import visible_masks
from pipelines.data.sample.placement import overlap
from pipelines.data.sample.scene import Scene

_NEAR = 0.12  # of the picture's width
_CLEAR_PART = 0.05


class Relation(NamedTuple):
    """Group `subject` is above / below / left / right / near / front / behind group `other`."""

    subject: int
    word: str
    other: int


class Hull(NamedTuple):
    """The box around all members of a group: edges in pixels."""

    left: int
    top: int
    right: int
    bottom: int


def hull(masks: list[NDArray[np.bool_]]) -> Hull:
    """The box around what is set in any of the masks [height, width]."""
    seen = np.logical_or.reduce(masks)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return Hull(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def relations(scene: Scene) -> list[Relation]:
    """Every relation that holds between two groups, both ways."""
    hulls = [hull([scene.masks[i] for i in scene.members(g)]) for g in range(len(scene.groups))]
    result = []
    for a in range(len(hulls)):
        for b in range(len(hulls)):
            if a != b:
                result += [Relation(a, word, b) for word in _words(scene, hulls[a], hulls[b])]
                if _hides(scene, a, b):
                    result += [Relation(a, "front", b), Relation(b, "behind", a)]
    return result


def _words(scene: Scene, a: Hull, b: Hull) -> list[str]:
    side_by_side = min(a.bottom, b.bottom) > max(a.top, b.top)
    in_column = min(a.right, b.right) - max(a.left, b.left) > -_NEAR * scene.width
    words = []
    if in_column and a.bottom <= b.top:
        words.append("above")
    if in_column and b.bottom <= a.top:
        words.append("below")
    if side_by_side and a.right <= b.left:
        words.append("left")
    if side_by_side and b.right <= a.left:
        words.append("right")
    if words and words[0] in ("left", "right") and max(a.left, b.left) - min(a.right, b.right) <= _NEAR * scene.width:
        words.append("near")
    return words


def _hides(scene: Scene, front: int, back: int) -> bool:
    """Whether a member of group `front` hides a clear part of one of group `back`."""
    for i in scene.members(front):
        for j in scene.members(back):
            if i > j and overlap(scene.things[i].box, scene.things[j].box):
                near, far = scene.things[i], scene.things[j]
                left, whole = (visible_masks(t, scene.width, scene.height)[0].sum() for t in ([far, near], [far]))
                if left < (1 - _CLEAR_PART) * whole:
                    return True
    return False
