"""A search space: what values settings may take, by dotted name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Knob:
    """One setting's range.

    kind:   log_uniform and uniform: floats in [low, high); integer: whole numbers in [low, high]; choice: of `values`
    reason: why this range, for whoever reads the space
    """

    kind: Literal["log_uniform", "uniform", "integer", "choice"]
    low: float = 0.0
    high: float = 0.0
    values: tuple[Any, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Space:
    """Knobs by the dotted name that `--set` takes."""

    knobs: Mapping[str, Knob]
