"""Settings are a function of the seed and of earlier trials."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import pytest

from objgan.config import Config
from objgan.errors import InputError
from tests.tools.sweeps import LR, SPACE, WEIGHT, small_sweep
from tune.engine.search import check_search, suggest
from tune.space.space import Knob, Space
from tune.sweep.results import Point, Trial
from tune.sweep.sweep import Goal, Objective, Requirement, Search
from tune.sweep.trial_store import trial_id


def test_random_settings_are_a_function_of_the_seed_and_the_number() -> None:
    first = [SPACE.draw(0, number) for number in range(20)]
    assert first == [SPACE.draw(0, number) for number in range(20)]
    assert len({settings[LR] for settings in first}) == 20
    assert SPACE.draw(1, 0) != first[0]
    more = Space({**SPACE.knobs, "boxes.dropout": Knob("uniform", 0.0, 0.5)})
    assert more.draw(0, 3) | first[3] == more.draw(0, 3), "another knob changes nothing of the first ones"


def test_every_kind_of_knob_stays_within_its_range() -> None:
    space = Space({
        "a": Knob("log_uniform", 1e-5, 1e-1),
        "b": Knob("uniform", -1.0, 2.0),
        "c": Knob("integer", 2, 4),
        "d": Knob("choice", values=("x", None, (1, 2))),
        "e": Knob("log_integer", 1, 100),
        "f": Knob("uniform", 0.0, 0.35, step=0.1),
        "g": Knob("integer", 8, 32, step=8.0),
    })  # fmt: skip
    drawn = [space.draw(5, number) for number in range(400)]
    assert all(1e-5 <= one["a"] < 1e-1 and -1 <= one["b"] < 2 for one in drawn)
    assert {one["c"] for one in drawn} == {2, 3, 4}
    assert {one["d"] for one in drawn} == {"x", None, (1, 2)}
    assert {one["f"] for one in drawn} == {0.0, 0.1, 0.2, 0.3}
    assert all(75 < sum(one["f"] == value for one in drawn) < 125 for value in (0.0, 0.1, 0.2, 0.3))
    assert {one["g"] for one in drawn} == {8, 16, 24, 32} and all(isinstance(one["g"], int) for one in drawn)
    assert {1, 2, 3} < {one["e"] for one in drawn} <= set(range(1, 101))
    assert 150 < sum(one["e"] <= 10 for one in drawn) < 250
    below = sum(one["a"] < 1e-3 for one in drawn)
    assert 150 < below < 250, "half of a log-uniform's draws lie below its geometric middle"


def test_trial_ids_differ_and_stay() -> None:
    ids = [trial_id(0, number) for number in range(50)]
    assert len(set(ids)) == 50
    assert ids == sorted(ids)
    assert trial_id(1, 0) != ids[0]


def test_optuna_suggests_near_good_trials_and_is_repeatable(data_config: Config, tmp_path: Path) -> None:
    sweep = replace(small_sweep(data_config, tmp_path, tmp_path), search="optuna")
    rows = [_row(sweep.seed, number, SPACE.draw(3, number)) for number in range(16)]
    asked = [suggest(sweep, number, rows) for number in range(16, 24)]
    assert asked == [suggest(sweep, number, list(reversed(rows))) for number in range(16, 24)], "no state beside rows"
    off = [abs(math.log10(one[LR]) + 3) for one in asked]
    assert sum(off) / len(off) < 0.6, "random draws are 0.5 off in the mean of a range of 2; the best is at 1e-3"
    assert all(0.5 <= one[WEIGHT] < 2 for one in asked)


def test_optuna_keeps_to_conditions_and_takes_trials_outside_of_the_ranges(data_config, tmp_path: Path) -> None:
    knobs = {
        "a": Knob("choice", values=("x", "y")),
        "b": Knob("log_integer", 8, 64, when={"a": ("x",)}, step=8.0),
    }
    sweep = replace(small_sweep(data_config, tmp_path, tmp_path), search="optuna", space=Space(knobs))
    known = [{"a": "x", "b": 512}, {"a": "y"}, {"a": "z"}, {"a": "x", "b": 16}, {"a": "x", "b": 24}, {"a": "y"}]
    rows = [
        Trial(trial_id(0, n), n, settings, "finished", (Point(30, 1.0, {"label_nll": float(n)}),))
        for n, settings in enumerate(known)
    ]
    for number in range(6, 18):
        asked = suggest(sweep, number, rows)
        assert set(asked) == ({"a", "b"} if asked["a"] == "x" else {"a"})
        assert asked.get("b", 8) in range(8, 65, 8)


@pytest.mark.parametrize("state", ["failed", "running", "finished"])
def test_optuna_takes_trials_without_a_measure(state: str, data_config: Config, tmp_path: Path) -> None:
    space = Space({"boxes.dropout": Knob("choice", values=(0.0, None, "x")), "boxes.components": Knob("integer", 1, 5)})
    sweep = replace(small_sweep(data_config, tmp_path, tmp_path), search="optuna", space=space)
    row = Trial(trial_id(0, 0), 0, {"boxes.dropout": None, "boxes.components": 2}, state)  # type: ignore[arg-type]
    asked = suggest(sweep, 1, [row])
    assert asked["boxes.components"] in range(1, 6)
    assert asked["boxes.dropout"] in (0.0, None, "x")


@pytest.mark.parametrize(("search", "count"), [("tpe", 36), ("cmaes", 36), ("gp", 20)])
def test_each_model_of_optuna_comes_near_good_trials_without_state(
    search: Search, count: int, data_config: Config, tmp_path: Path
) -> None:
    sweep = replace(small_sweep(data_config, tmp_path, tmp_path), search=search)
    rows: list[Trial] = []
    for number in range(count):
        rows.append(_row(sweep.seed, number, suggest(sweep, number, rows)))
    assert suggest(sweep, count, rows) == suggest(sweep, count, list(reversed(rows)))
    assert suggest(sweep, count, rows) != suggest(sweep, count + 1, rows), "trials that run at once differ"
    off = [abs(math.log10(row.settings[LR]) + 3) for row in rows[-count // 3 :]]
    assert sum(off) / len(off) < 0.4, "random draws are 0.5 off in the mean"


@pytest.mark.parametrize(("search", "count"), [("tpe", 36), ("cmaes", 36), ("gp", 20)])
def test_requirements_steer_the_models_of_optuna(
    search: Search, count: int, data_config: Config, tmp_path: Path
) -> None:
    """The loss is best at the smallest weight, but trials with one under 1.25 break the requirement."""
    means = []
    for requires in ((), (Requirement("best_iou", ">=", 1.25),)):
        goal = Goal("label_nll", "min", requires)
        sweep = replace(small_sweep(data_config, tmp_path, tmp_path), search=search, goal=goal)
        rows: list[Trial] = []
        for number in range(count):
            settings = suggest(sweep, number, rows)
            point = Point(30, 1.0, {"label_nll": settings[WEIGHT], "best_iou": settings[WEIGHT]})
            rows.append(Trial(trial_id(sweep.seed, number), number, settings, "finished", (point,)))
        late = [row.settings[WEIGHT] for row in rows[-count // 3 :]]
        means.append(sum(late) / len(late))
    assert means[1] > means[0] + 0.1 and 1.1 < means[1] < 1.5, "tpe 0.8 and 1.1, gp 0.5 and 1.25, cmaes 1.1 and 1.3"


@pytest.mark.parametrize(("search", "count"), [("tpe", 36), ("gp", 20)])
def test_models_of_optuna_search_for_a_front(search: Search, count: int, data_config: Config, tmp_path: Path) -> None:
    """The metrics pull the weight apart; a learning rate far from 1e-3 is bad for both."""
    goal = Goal("label_nll", "min", others=(Objective("best_iou", "max"),))
    sweep = replace(small_sweep(data_config, tmp_path, tmp_path), search=search, goal=goal)
    rows: list[Trial] = []
    for number in range(count):
        settings = suggest(sweep, number, rows)
        off = abs(math.log10(settings[LR]) + 3)
        point = Point(30, 1.0, {"label_nll": settings[WEIGHT] + off, "best_iou": settings[WEIGHT] - off})
        rows.append(Trial(trial_id(sweep.seed, number), number, settings, "finished", (point,)))
    assert suggest(sweep, count, rows) == suggest(sweep, count, list(reversed(rows)))
    late = [row.settings for row in rows[-count // 2 :]]
    assert sum(abs(math.log10(one[LR]) + 3) for one in late) / len(late) < 0.4, "random draws are 0.5 off in the mean"
    assert min(one[WEIGHT] for one in late) < 1.0 and max(one[WEIGHT] for one in late) > 1.5, "both ends of the front"


def test_cmaes_is_refused_for_several_metrics(data_config: Config, tmp_path: Path) -> None:
    goal = Goal("label_nll", "min", others=(Objective("best_iou", "max"),))
    sweep = replace(small_sweep(data_config, tmp_path, tmp_path), goal=goal)
    with pytest.raises(InputError, match="--search cmaes takes one --metric: use tpe"):
        check_search(replace(sweep, search="cmaes"))
    check_search(sweep)


def test_points_of_qmc_are_spread_evenly(data_config: Config, tmp_path: Path) -> None:
    knobs = {**SPACE.knobs, "c": Knob("choice", values=(1, 2, 3, 4)), "i": Knob("integer", 1, 4)}
    sweep = replace(small_sweep(data_config, tmp_path, tmp_path), search="qmc", space=Space(knobs))
    drawn = [suggest(sweep, number, []) for number in range(16)]
    for name, values in (("c", (1, 2, 3, 4)), ("i", (1, 2, 3, 4))):
        assert [sum(one[name] == value for one in drawn) for value in values] == [4] * 4
    cells = {int((math.log10(one[LR]) + 4) * 8) for one in drawn}
    assert cells == set(range(16)), "each sixteenth of the range has one of 16 points"
    assert suggest(replace(sweep, seed=1), 3, []) != drawn[3]
    later = replace(sweep, points=({}, {}))
    assert suggest(later, 2, []) == drawn[0]


def test_a_search_whose_package_is_missing_is_refused(
    data_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = small_sweep(data_config, tmp_path, tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cmaes" else name)
    check_search(replace(sweep, search="tpe"))
    with pytest.raises(InputError, match="--search cmaes needs the package cmaes: pip install cmaes"):
        check_search(replace(sweep, search="cmaes"))


def _row(seed: int, number: int, settings: dict[str, float]) -> Trial:
    """Best where the learning rate is 1e-3."""
    loss = abs(math.log10(settings[LR]) + 3)
    return Trial(trial_id(seed, number), number, settings, "finished", (Point(30, 1.0, {"label_nll": loss}),))
