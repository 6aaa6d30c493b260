"""A search space held against the tree of settings, before anything starts."""

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
    "data": "data are prepared with their settings",
    "compute": "it decides where a trial runs, not what it learns",
}


def check_space(space: Space, config: Config, stages: Sequence[str], where: str = "--space") -> Space:
    """The space, values of choices as objgan reads them.

    Every end and every choice is tried in the tree, the other knobs at the middle of their ranges.

    Raises:
        InputError: an unknown setting, one that these stages do not have, or a value that objgan refuses, in its words.
    """
    known = flatten(config)
    for name in space.knobs:
        _check_name(f"{where}: {name}", name, list(known), stages)
    middle = {name: _middle(knob) for name, knob in space.knobs.items()}
    return Space({name: _check_knob(where, name, knob, config, middle) for name, knob in space.knobs.items()})


def edges(knob: Knob) -> tuple[Any, ...]:
    """The values that a knob must be able to take: both ends and one within, or every choice."""
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
        raise InputError(f"{where} is no setting{_meant(name, known, stages)}")
    if branch not in stages:
        raise InputError(
            f"{where} changes nothing in stage {' or '.join(stages)}: leave it out, or name stage {branch}"
        )


def _meant(name: str, known: list[str], stages: Sequence[str]) -> str:
    """What was probably meant: a name that looks alike, or ends alike."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    last = name.rsplit(".", 1)[-1]
    branches = [name.split(".")[0], *stages]
    near += [other for other in known if other.split(".")[0] in branches and other.endswith(f".{last}")]
    inner = [other for other in known if other.startswith(f"{name}.")]
    if inner:
        return f" but a branch: name one of its settings, like {inner[0]}"
    return f": did you mean {near[0]}?" if near else "; `python -m tune STAGE --dry-run` prints all settings"


def _check_knob(where: str, name: str, knob: Knob, config: Config, middle: Mapping[str, Any]) -> Knob:
    taken = []
    for value in edges(knob):
        try:
            tree = with_settings(config, {**middle, name: value})
        except InputError as error:
            told = str(error).removeprefix("settings: ")
            raise InputError(f"{where}: {name} cannot be {_text(value)} ({told})") from None
        taken.append(flatten(tree)[name])
    return replace(knob, values=tuple(taken)) if knob.kind == "choice" else knob


def _middle(knob: Knob) -> Any:
    """A value well within; of floats one that is not whole, so that a whole-numbered setting refuses it."""
    if knob.kind == "choice":
        return knob.values[-1]
    if knob.kind == "integer":
        return int(knob.low + knob.high) // 2
    middle = math.sqrt(knob.low * knob.high) if knob.kind == "log_uniform" else (knob.low + knob.high) / 2
    return middle if not middle.is_integer() else middle + (knob.high - middle) * 0.3719


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
