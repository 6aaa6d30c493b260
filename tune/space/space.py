"""A search space: the ranges of settings, by dotted name, and how values are applied."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from objgan.config import Config, build_config
from pipelines.recipes import merge


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """The tree with other values by dotted name; a length in steps replaces one in epochs.

    Raises:
        InputError: an unknown setting, or a value or combination that objgan refuses.
    """
    values = config.model_dump()
    for name, value in settings.items():
        for part in reversed(name.split(".")):
            value = {part: value}
        merge(values, value)
    return build_config(values)


@dataclass(frozen=True)
class Knob:
    """One setting's range.

    kind:   log_uniform and uniform: floats in [low, high); integer: whole numbers in [low, high]; choice: of `values`
    reason: why this range was chosen
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
