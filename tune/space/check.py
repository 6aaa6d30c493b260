"""Checks of a search space against the tree of settings, before anything starts."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from objgan.config import Config, flatten
from objgan.errors import InputError
from tune.space.space import Knob, Space, among, with_settings

_POINTS = 200
"""Points at which a space is tried."""
_FIXED = {
    "recipe": "a recipe is chosen by --recipe",
    "seed": "--confirm tries other seeds",
    "data": "data are prepared with these settings",
    "compute": "it determines where a trial runs, not what it learns",
}


def check_space(space: Space, config: Config, stages: Sequence[str], where: str = "--space") -> Space:
    """The space, with the values of choices in objgan's types, and without conditions that always hold.

    Every end and every choice, then random points up to `_POINTS` in all, are tried in the tree.

    Raises:
        InputError: an unknown setting, a setting of another stage, a condition that never holds, or values that
            objgan refuses, with its reason.
    """
    known = flatten(config)
    for name in space.knobs:
        _check_name(f"{where}: {name}", name, list(known), stages)
    space = Space({name: _conditions(f"{where}: {name}", knob, space, known) for name, knob in space.knobs.items()})
    try:
        space.ordered()
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    typed: dict[str, list[Any]] = {name: [] for name in space.knobs}
    ends = [(name, value) for name in space.ordered() for value in edges(space.knobs[name])]
    for number, (name, value) in enumerate(ends):
        tree = _check_point(where, config, _point(space, number, name, value))
        typed[name].append(flatten(tree)[name])
    for number in range(len(ends), _POINTS):
        _check_point(where, config, space.draw(0, number))
    return Space({
        name: replace(knob, values=tuple(typed[name])) if knob.kind == "choice" else knob
        for name, knob in space.knobs.items()
    })  # fmt: skip


def edges(knob: Knob) -> tuple[Any, ...]:
    """Both ends of a knob's range, or every choice."""
    if knob.kind == "choice":
        return knob.values
    if knob.whole:
        return int(knob.low), int(knob.snap(knob.high))
    return knob.low, knob.snap(knob.high) if knob.step is not None else math.nextafter(knob.high, knob.low)


def _conditions(where: str, knob: Knob, space: Space, known: Mapping[str, Any]) -> Knob:
    """The knob with those conditions that depend on a trial."""
    for name, values in knob.when.items():
        if name not in known:
            raise InputError(f"{where}: when: {name} is not a setting{_suggestion(name, list(known), ())}")
        if name not in space.knobs and not among(known[name], values):
            raise InputError(f"{where}: never acts, because {name} is {_text(known[name])}: remove it, or use --set")
        if name in space.knobs and not any(map(space.knobs[name].contains, values)):
            raise InputError(f"{where}: never acts, because {name} never is {' or '.join(map(_text, values))}")
    return replace(knob, when={name: values for name, values in knob.when.items() if name in space.knobs})


def _point(space: Space, number: int, name: str, value: Any) -> dict[str, Any]:
    """Random settings in which one has this value, and its conditions hold."""
    fixed = {name: value}
    for inner in reversed(space.ordered()):
        if inner in fixed:
            for other, values in space.knobs[inner].when.items():
                fixed.setdefault(other, next(filter(space.knobs[other].contains, values)))
    settings: dict[str, Any] = {}
    for inner in space.ordered():
        if inner in fixed or space.acts(inner, settings):
            settings[inner] = fixed.get(inner, space.draw_one(inner, 0, number))
    return settings


def _check_point(where: str, config: Config, settings: dict[str, Any]) -> Config:
    try:
        return with_settings(config, settings)
    except InputError as error:
        refused = error
    # The fewest settings that objgan refuses together.
    for name in list(settings):
        fewer = {other: value for other, value in settings.items() if other != name}
        try:
            with_settings(config, fewer)
        except InputError as error:
            settings, refused = fewer, error
    reason = str(refused).removeprefix("settings: ")
    if len(settings) == 1:
        ((name, value),) = settings.items()
        raise InputError(f"{where}: {name} cannot be {_text(value)} ({reason})")
    together = " and ".join(f"{name} {_text(value)}" for name, value in settings.items())
    raise InputError(f"{where}: {together} cannot go together ({reason}): change a range, or add a condition (when)")


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


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
