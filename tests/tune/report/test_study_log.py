"""The study that `optuna-dashboard` opens has what the trials' rows have."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from objgan.config import Config
from tests.tools.sweeps import LR, WEIGHT, small_sweep
from tune.report.study_log import FILE, StudyLog
from tune.space.space import Knob, Space
from tune.sweep.results import Point, Trial
from tune.sweep.sweep import Objective, Requirement, Sweep

POINTS = (Point(10, 1.0, {"label_nll": 3.0}), Point(20, 2.0, {"label_nll": 2.0}))
FIRST = Trial("000_a", 0, {LR: 1e-3, WEIGHT: 1.0}, "running", POINTS[:1])


@pytest.fixture
def sweep(data_config: Config, tmp_path: Path) -> Sweep:
    return small_sweep(data_config, tmp_path, tmp_path)


def read(sweep: Sweep) -> list[optuna.trial.FrozenTrial]:
    """The trials, by Optuna's own reader of the file."""
    storage = JournalStorage(JournalFileBackend(f"{sweep.store().local}/{FILE}"))
    trials: list[optuna.trial.FrozenTrial] = optuna.load_study(study_name=sweep.run, storage=storage).trials
    return trials


def test_a_trial_is_followed_to_its_end_over_a_restart(sweep: Sweep) -> None:
    StudyLog(sweep).trial(FIRST)
    (trial,) = read(sweep)
    assert trial.state.name == "RUNNING" and trial.params == FIRST.settings and trial.intermediate_values == {10: 3.0}
    follower = optuna.load_study(
        study_name=sweep.run, storage=JournalStorage(JournalFileBackend(f"{sweep.store().local}/{FILE}"))
    )
    before = (sweep.store().local / FILE).read_bytes()  # type: ignore[operator]
    again = StudyLog(sweep)
    again.trial(FIRST)
    assert (sweep.store().local / FILE).read_bytes().startswith(before)  # type: ignore[operator]
    assert len(read(sweep)) == 1, "the trial of the killed driver is known"
    again.trial(replace(FIRST, state="stopped", points=POINTS))
    again.trial(Trial("001_b", 1, {LR: 5.0, WEIGHT: 1.0}, "failed"))
    for trials in (read(sweep), follower.trials):
        assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL"]
        assert trials[0].value == 2.0 and trials[0].intermediate_values == {10: 3.0, 20: 2.0}
        assert trials[1].params == {WEIGHT: 1.0} and trials[1].user_attrs["settings"][LR] == 5.0


def test_requirements_are_constraints_of_the_study(sweep: Sweep) -> None:
    goal = replace(sweep.goal, requires=(Requirement("best_iou", ">=", 0.25),))
    log = StudyLog(replace(sweep, goal=goal))
    for number, (loss, iou) in enumerate([(1.0, 0.125), (2.0, 0.5)]):
        points = (Point(10, 1.0, {"label_nll": loss, "best_iou": iou}),)
        log.trial(Trial(str(number), number, {LR: 1e-3, WEIGHT: 1.0}, "finished", points))
    assert [trial.constraints for trial in read(sweep)] == [{"best_iou >= 0.25": 0.125}, {"best_iou >= 0.25": -0.25}]
    storage = JournalStorage(JournalFileBackend(f"{sweep.store().local}/{FILE}"))
    assert optuna.load_study(study_name=sweep.run, storage=storage).best_trial.number == 1


def test_several_metrics_are_the_objectives_of_the_study(sweep: Sweep) -> None:
    goal = replace(sweep.goal, others=(Objective("best_iou", "max"),))
    for _ in range(2):  # a driver, and the next one
        log = StudyLog(replace(sweep, goal=goal))
        for number, (loss, iou) in enumerate([(1.0, 0.125), (2.0, 0.5), (2.0, 0.25)]):
            points = (Point(10, 1.0, {"label_nll": loss, "best_iou": iou}),)
            log.trial(Trial(str(number), number, {LR: 1e-3, WEIGHT: 1.0}, "finished", points))
    assert [trial.values for trial in read(sweep)] == [[1.0, 0.125], [2.0, 0.5], [2.0, 0.25]]
    storage = JournalStorage(JournalFileBackend(f"{sweep.store().local}/{FILE}"))
    study = optuna.load_study(study_name=sweep.run, storage=storage)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["label_nll", "best_iou"] and [trial.number for trial in study.best_trials] == [0, 1]


@pytest.mark.parametrize("damage", ["cut", "{}\n", "[1]\n", '{"op_code": 99, "worker_id": "x"}\n'])
def test_a_damaged_file_is_written_again(sweep: Sweep, damage: str) -> None:
    StudyLog(sweep).trial(FIRST)
    path = sweep.store().local / FILE  # type: ignore[operator]
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] if damage == "cut" else whole + damage.encode())
    StudyLog(sweep).trial(FIRST)
    assert [trial.params for trial in read(sweep)] == [FIRST.settings]


def test_ranges_and_choices_may_change(sweep: Sweep) -> None:
    space = Space({LR: Knob("uniform", 0.0, 1.0), "c": Knob("choice", values=(1, (2, 3)))})
    StudyLog(replace(sweep, space=space)).trial(Trial("0", 0, {LR: 0.5, "c": (2, 3)}, "running"))
    space = Space({LR: Knob("uniform", 0.4, 9.0), "c": Knob("choice", values=(1, 7))})
    StudyLog(replace(sweep, space=space)).trial(Trial("1", 1, {LR: 7.0, "c": 7}, "running"))
    assert [trial.params for trial in read(sweep)] == [{LR: 0.5, "c": "(2, 3)"}, {LR: 7.0, "c": 7}]
