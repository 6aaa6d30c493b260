"""The nouns: a scene holds things, which belong to groups of one kind, colour and size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.data.sample.kinds import KIND

Box = tuple[int, int, int, int]
"""(left, top, width, height) in pixels."""

_SMALL, _LARGE = 0.8, 1.2


@dataclass(frozen=True)
class Thing:
    """One drawn object: its box before anything hides part of it, and the number of its group in the scene."""

    kind: str
    colour: str | None
    zone: str
    group: int
    box: Box
    flip: bool
    seed: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """The `count` things of a scene that are described together; a `crowd` is too dense to count.

    `scale` is their height relative to what is usual for the kind.
    """

    kind: str
    colour: str | None
    zone: str
    count: int
    scale: float
    crowd: bool

    @property
    def size(self) -> str | None:
        """ "small", "large", or None for the usual size, and for a crowd, whose members are always small."""
        if self.crowd or _SMALL <= self.scale <= _LARGE:
            return None
        return "small" if self.scale < _SMALL else "large"


@dataclass(frozen=True)
class Stage:
    """The empty scene. `horizon` and `shore` are fractions of the height from the top; no sand: shore 1."""

    width: int
    height: int
    background: str
    sky: str
    horizon: float
    shore: float
    seed: tuple[int, ...]

    @property
    def side(self) -> float:
        """The unit of the kinds' heights: the side of a square of the same area, pixels."""
        return float((self.width * self.height) ** 0.5)

    def usual_height(self, kind: str) -> float:
        """Pixels."""
        return KIND[kind].height * self.side


@dataclass(frozen=True, eq=False)
class Scene(Stage):
    """A stage with its things in painting order; `masks` [height, width] bool are their visible parts."""

    things: Sequence[Thing]
    groups: Sequence[Group]
    masks: Sequence[NDArray[np.bool_]]

    def members(self, group: int) -> list[int]:
        """The numbers of the things of a group."""
        return [i for i, thing in enumerate(self.things) if thing.group == group]
