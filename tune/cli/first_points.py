"""Settings of a sweep's first trials: the recipe's own, those of a file, or the best ones of another sweep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from objgan.config import Config, flatten
from objgan.errors import InputError
from pipelines.yaml_input import read_yaml
from tune.cli.arguments import SweepOptions
from tune.report.tables import no_best, ranked, settings_of
from tune.space.space import Space, with_settings
from tune.sweep.spec_file import known_sweep
from tune.sweep.sweep import Goal
from tune.sweep.trial_store import load_result

_BEST = 5
"""Trials that are taken from another sweep."""


def first_points(options: SweepOptions, space: Space, config: Config, goal: Goal) -> tuple[Mapping[str, Any], ...]:
    """Settings for all knobs that act, without repetitions; what a source does not set is as the recipe has it.

    Raises:
        InputError: a source cannot be read, sets what is not searched, or objgan refuses its values.
    """
    given: list[Mapping[str, Any]] = [{}] if options.baseline else []
    if options.start_from is not None:
        given += _given(options.start_from, options.storage, goal)
    points: list[Mapping[str, Any]] = []
    for settings in given:
        point = _point(settings, space, config, f"--start-from {options.start_from}")
        if point not in points:
            points.append(point)
    return tuple(points)


def _point(settings: Mapping[str, Any], space: Space, config: Config, where: str) -> dict[str, Any]:
    if unknown := [name for name in settings if name not in space.knobs]:
        raise InputError(f"{where}: {unknown[0]} is not in the search space: add it to --space, or remove it")
    try:
        values = flatten(with_settings(config, settings))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    point: dict[str, Any] = {}
    for name in space.ordered():
        if name in settings or space.acts(name, point):
            point[name] = values[name]
    return dict(sorted(point.items()))


def _given(source: str, storage: str, goal: Goal) -> list[Mapping[str, Any]]:
    if source.endswith((".yaml", ".yml", ".json")):
        _, content = read_yaml(Path(source), "--start-from")
        listed = content if isinstance(content, list) else [content]
        if not listed or not all(isinstance(one, dict) and one for one in listed):
            raise InputError(f"--start-from {source}: write settings and values, like `boxes.dropout: 0.1`, or a list")
        return [{str(name): value for name, value in one.items()} for one in listed]
    place, _, run = source.rpartition("/")
    sweep = known_sweep(place or storage, run)
    result = load_result(sweep.store())
    if result is None:
        raise InputError(f"--start-from {source}: the sweep has no trials yet")
    trials = [trial for trial in result.trials if trial.best(goal)]
    if not trials:
        raise InputError(f"--start-from {source}: {no_best(result, goal)}")
    return [settings_of(sweep, trial) for trial in ranked(trials, goal)[:_BEST]]
