"""Checks of a search space against the tree of settings, before anything starts."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from objgan.config import Config, flatten
from objgan.errors import InputError
from tune.space.space import Knob, Space, with_settings

_FIXED = {
    "recipe": "a recipe is chosen by --recipe",
    "seed": "--confirm tries other seeds",
    "data": "data are prepared with these settings",
    "compute": "it determines where a trial runs, not what it learns",
}


def check_space(space: Space, config: Config, stages: Sequence[str], where: str = "--space") -> Space:
    """The space, with the values of choices in objgan's types.

    Every end and every choice is tried in the tree, with the other knobs at the middle of their ranges.

    Raises:
        InputError: an unknown setting, a setting of another stage, or a value that objgan refuses, with its reason.
    """
    known = flatten(config)
    for name in space.knobs:
        _check_name(f"{where}: {name}", name, list(known), stages)
    middle = {name: _middle(knob) for name, knob in space.knobs.items()}
    return Space({name: _check_knob(where, name, knob, config, middle) for name, knob in space.knobs.items()})


def edges(knob: Knob) -> tuple[Any, ...]:
    """The values of a knob that are tried: both ends and one between them, or every choice."""
    if knob.kind == "choice":
        return knob.values
    if knob.kind == "integer":
        return int(knob.low), int(knob.high)
    return knob.low, _middle(knob), math.nextafter(knob.high, knob.low)


def _check_name(where: str, name: str, known: list[str], stages: Sequence[str]) -> None:
    branch = name.split(".")[0]
    if branch in _FIXED:
        raise InputError(f"{where} cannot be searched: {_FIXED[branch]}")
    if name not in known:
        raise InputError(f"{where} is not a setting{_suggestion(name, known, stages)}")
    if branch not in stages:
        raise InputError(
            f"{where} changes nothing in stage {' or '.join(stages)}: remove it, or add stage {branch} to the sweep"
        )


def _suggestion(name: str, known: list[str], stages: Sequence[str]) -> str:
    """The end of the message: a similar name, or one with the same end."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    last = name.rsplit(".", 1)[-1]
    branches = [name.split(".")[0], *stages]
    near += [other for other in known if other.split(".")[0] in branches and other.endswith(f".{last}")]
    inner = [other for other in known if other.startswith(f"{name}.")]
    if inner:
        return f" but a group: name one of its settings, like {inner[0]}"
    return f": did you mean {near[0]}?" if near else "; `python -m tune STAGE --dry-run` prints all settings"


def _check_knob(where: str, name: str, knob: Knob, config: Config, middle: Mapping[str, Any]) -> Knob:
    values = []
    for value in edges(knob):
        try:
            tree = with_settings(config, {**middle, name: value})
        except InputError as error:
            reason = str(error).removeprefix("settings: ")
            raise InputError(f"{where}: {name} cannot be {_text(value)} ({reason})") from None
        values.append(flatten(tree)[name])
    return replace(knob, values=tuple(values)) if knob.kind == "choice" else knob


def _middle(knob: Knob) -> Any:
    """A value inside the range; for floats not a whole number, so that an integer setting refuses it."""
    if knob.kind == "choice":
        return knob.values[-1]
    if knob.kind == "integer":
        return int(knob.low + knob.high) // 2
    middle = math.sqrt(knob.low * knob.high) if knob.kind == "log_uniform" else (knob.low + knob.high) / 2
    return middle if not middle.is_integer() else middle + (knob.high - middle) * 0.3719


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
