"""Schedulers: what those of a resumed sweep know of earlier trials, and what a population may change."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from objgan.config import Config
from objgan.errors import InputError
from tests.tools.sweeps import LR, SPACE, WEIGHT, small_sweep
from tune.engine.schedulers import Rungs, check_scheduler, make_scheduler
from tune.space.space import Knob, Space
from tune.sweep.results import Point, Trial
from tune.sweep.sweep import Budget, Sweep
from tune.sweep.trial_store import trial_id

RUNGS = Rungs(10, 90)


@pytest.fixture
def sweep(data_config: Config, tmp_path: Path) -> Sweep:
    """A sweep that is not run."""
    return small_sweep(data_config, tmp_path, tmp_path)


def _past(values: list[float], state: str = "finished") -> list[Trial]:
    """Trials with a report at step 10 and one, a little better, at step 30."""
    return [
        Trial(trial_id(0, n), n, {}, state, tuple(Point(s, 1.0, {"label_nll": v - s / 1000}) for s in (10, 30)))  # type: ignore[arg-type]
        for n, v in enumerate(values)
    ]


class _Trial:
    """The part of Ray Tune's trial that schedulers use."""

    def __init__(self, name: str) -> None:
        self.trial_id, self.config = f"ray-{name}", {"job": {"trial": name}}


def _trial(name: str) -> Any:
    return _Trial(name)


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_ended_trials_count_after_a_resume(sweep: Sweep, scheduler: str) -> None:
    sweep = replace(sweep, scheduler=scheduler)
    past = _past([1.0, 2.0, 3.0, 4.0])
    for value, decision in ((0.5, "CONTINUE"), (3.5, "STOP")):
        fresh, one = make_scheduler(sweep, RUNGS, [], None), _trial("new")
        fresh.on_trial_add(None, one)
        assert fresh.on_trial_result(None, one, {"step": 10, "goal": value}) == "CONTINUE"
        resumed, one = make_scheduler(sweep, RUNGS, past, None), _trial("new")
        resumed.on_trial_add(None, one)
        assert resumed.on_trial_result(None, one, {"step": 10, "goal": value}) == decision


def test_a_resumed_trial_is_not_judged_again_by_its_earlier_reports(sweep: Sweep) -> None:
    sweep = replace(sweep, scheduler="asha")
    past = [*_past([1.0, 2.0, 3.0]), Trial(trial_id(0, 9), 9, {}, "running", (Point(10, 1.0, {"label_nll": 9.0}),))]
    scheduler, one = make_scheduler(sweep, RUNGS, past, None), _trial(trial_id(0, 9))
    scheduler.on_trial_add(None, one)
    assert scheduler.on_trial_result(None, one, {"step": 20, "goal": 9.0}) == "CONTINUE", "there is no rung here"
    assert scheduler.on_trial_result(None, one, {"step": 30, "goal": 9.0}) == "STOP"


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_trial_that_failed_compares_with_nothing(sweep: Sweep, scheduler: str) -> None:
    made = make_scheduler(replace(sweep, scheduler=scheduler), RUNGS, [], None)
    failed, others = _trial("failed"), [_trial(str(n)) for n in range(5)]
    for one in (failed, *others):
        made.on_trial_add(None, one)
    made.on_trial_complete(None, failed, {"step": 10, "done": True})
    assert [made.on_trial_result(None, one, {"step": 10, "goal": 1.0}) for one in others] == ["CONTINUE"] * 5


def test_a_population_keeps_to_the_space_and_to_its_own_name(sweep: Sweep) -> None:
    made = make_scheduler(replace(sweep, scheduler="pbt"), RUNGS, [], None)
    donor = {"trial": "d", "number": 1, "reported": 20, "settings": dict.fromkeys(SPACE.knobs, 9.9)}
    own = {"trial": "own", "number": 2, "reported": 0, "settings": dict.fromkeys(SPACE.knobs, 1e-09)}
    for _ in range(20):
        config, _ = made._get_new_config(_configured(own), _configured(donor))
        assert (config["job"]["trial"], config["job"]["number"]) == ("own", 2)
        for name, knob in SPACE.knobs.items():
            assert knob.low <= config["job"]["settings"][name] <= knob.high


def test_quantile_and_interval_of_a_population_are_the_sweeps(sweep: Sweep) -> None:
    made = make_scheduler(replace(sweep, scheduler="pbt", pbt_quantile=0.5, pbt_interval=30), RUNGS, [], None)
    assert (made._quantile_fraction, made._perturbation_interval) == (0.5, 30)
    made = make_scheduler(replace(sweep, scheduler="pbt"), RUNGS, [], None)
    assert (made._quantile_fraction, made._perturbation_interval) == (0.25, RUNGS.every)


def _configured(job: dict[str, Any]) -> Any:
    return SimpleNamespace(config={"job": job})


@pytest.mark.parametrize(
    ("name", "knob"),
    [
        ("boxes.hidden", Knob("integer", 8, 64)),
        ("boxes.training.batch_size", Knob("choice", values=(4, 8))),
        ("boxes.training.cooldown", Knob("uniform", 0.1, 0.5)),
        ("boxes.training.ema_decay", Knob("uniform", 0.9, 0.99)),
        ("boxes.training.adversarial_weight", Knob("uniform", 0.0, 1.0)),
        ("boxes.training.count_weight", Knob("choice", values=(0, 1.0))),
    ],
)
def test_a_population_cannot_change_what_shapes_networks(sweep: Sweep, name: str, knob: Knob) -> None:
    with pytest.raises(InputError, match=f"--scheduler pbt: {name} cannot change during a run"):
        check_scheduler(replace(sweep, scheduler="pbt", space=Space({**SPACE.knobs, name: knob})))


def test_a_population_has_one_stage_and_starts_at_random(sweep: Sweep) -> None:
    population = replace(sweep, scheduler="pbt")
    check_scheduler(population)
    for change, message in (
        ({"stages": ("encoders", "boxes")}, "takes one stage"),
        ({"search": "optuna"}, "--search optuna"),
        ({"budget": Budget(1)}, "--trials 1"),
        ({"points": ({LR: 1e-3}, {LR: 1e-3, WEIGHT: 0.0})}, "label_weight is 0.0 in trial 1, whose networks"),
    ):
        with pytest.raises(InputError, match=message):
            check_scheduler(replace(population, **change))
