"""Grid search: all combinations of a space's values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from objgan.errors import InputError
from tune.space.space import Knob, Space

_MOST = 10_000


def grid(space: Space, known: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """All combinations of values whose conditions hold, in a fixed order, without those that are `known`.

    Raises:
        InputError: a range has no step, or a grid is too large.
    """
    points: list[dict[str, Any]] = [{}]
    for name in space.ordered():
        values = _values(name, space.knobs[name])
        points = [
            {**point, **setting}
            for point in points
            for setting in ([{name: value} for value in values] if space.acts(name, point) else [{}])
        ]
        if len(points) > _MOST:
            raise InputError(f"--search grid: over {_MOST} combinations: give fewer values, or use --search random")
    return [point for point in points if point not in known]


def _values(name: str, knob: Knob) -> tuple[Any, ...]:
    if knob.kind == "choice":
        return knob.values
    step = knob.step or (1.0 if knob.whole else None)
    if step is None:
        raise InputError(
            f"--search grid: {name} is a range without a step: write {{choice: [VALUES]}}, or add a step to it"
        )
    count = math.floor((knob.high - knob.low) / step + 1e-9) + 1
    if count > _MOST:
        raise InputError(f"--search grid: {name} has {count} values, over {_MOST}: use a larger step")
    values = [knob.snap(knob.low + number * step) for number in range(count)]
    return tuple(map(int, values)) if knob.whole else tuple(values)
