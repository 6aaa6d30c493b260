"""Which report a trial stands for, and which trial is the best: with requirements."""

from dataclasses import replace

import pytest

from tests.tools.recorded import opposed_result
from tune.report.plots import sweep_study
from tune.sweep.results import Point, SweepResult, Trial
from tune.sweep.sweep import Goal, Objective, Requirement, Sweep

F1 = Goal("label_f1", "max")
LEAST = Requirement("best_iou", ">=", 0.24)


def _trial(number: int, *reports: tuple[float, float]) -> Trial:
    """With reports of (label_f1, best_iou)."""
    points = [Point(step, 1.0, {"label_f1": f1, "best_iou": iou}) for step, (f1, iou) in enumerate(reports, 1)]
    return Trial(str(number), number, {}, "finished", tuple(points))


def test_a_trial_stands_for_its_best_report_that_keeps_the_requirements() -> None:
    trial = _trial(0, (0.3, 0.25), (0.4, 0.24), (0.6, 0.2))
    goal = replace(F1, requires=(LEAST,))
    assert trial.best(F1) == trial.points[2] and trial.best(goal) == trial.points[1]
    both = replace(goal, requires=(LEAST, Requirement("label_f1", "<=", 0.35)))
    assert trial.best(both) == trial.points[0]


def test_a_trial_that_breaks_a_requirement_stands_for_the_nearest_report_and_is_never_best() -> None:
    goal = replace(F1, requires=(LEAST,))
    near, far = _trial(0, (0.9, 0.1), (0.2, 0.23), (0.3, 0.23)), _trial(1, (0.1, 0.24))
    assert near.report(goal) == near.points[2] and near.best(goal) is None
    assert SweepResult("finished", (near, far), 1.0).best(goal) == far
    assert SweepResult("finished", (near,), 1.0).best(goal) is None


def test_a_report_without_a_required_metric_counts_for_nothing() -> None:
    goal = replace(F1, requires=(LEAST,))
    points = (Point(1, 1.0, {"label_f1": 0.9}), Point(2, 1.0, {"label_f1": 0.8, "best_iou": float("nan")}))
    assert Trial("a", 0, {}, "finished", points).report(goal) is None


def test_a_front_has_the_trials_that_no_other_one_beats() -> None:
    goal = replace(F1, others=(Objective("best_iou", "max"),))
    trials = (_trial(0, (0.5, 0.2)), _trial(1, (0.4, 0.3)), _trial(2, (0.4, 0.2)), _trial(3, (0.5, 0.1)))
    found = SweepResult("finished", (*trials, _trial(4, (0.4, 0.3)), Trial("5", 5, {}, "failed")), 1.0)
    assert [trial.number for trial in found.front(goal)] == [0, 1, 4], "equal trials do not beat each other"
    assert found.best(goal) == trials[0], "the first metric decides, between 0 and 3 the second one"
    assert found.best(replace(goal, requires=(LEAST,))) == trials[1]
    assert [trial.number for trial in found.front(replace(goal, requires=(LEAST,)))] == [1, 4]
    fewer = replace(goal, others=(Objective("best_iou", "min"),))
    assert [trial.number for trial in found.front(fewer)] == [3]
    assert found.front(replace(goal, requires=(replace(LEAST, bound=0.9),))) == ()


@pytest.mark.parametrize("bound", [0.0, 0.24])
def test_the_front_is_that_of_optuna(sweep: Sweep, bound: float) -> None:
    opposed, others = opposed_result(sweep), (Objective("best_iou", "max"), Objective("count_error", "min"))
    goal = replace(F1, others=others, requires=(replace(LEAST, bound=bound),))
    study = sweep_study(opposed, sweep.space, goal)
    own = [trial.number for trial in opposed.front(goal)]
    assert own == sorted(trial.number for trial in study.best_trials) and len(own) >= 3


def test_the_requirement_decides_which_recorded_trial_is_the_best(sweep: Sweep) -> None:
    """Better labels come with worse boxes."""
    opposed = opposed_result(sweep)
    best = {bound: opposed.best(replace(F1, requires=(replace(LEAST, bound=bound),))) for bound in (0.0, 0.22, 0.24)}
    assert [trial.number for trial in best.values() if trial] == [7, 0, 9]
    assert opposed.best(replace(F1, requires=(replace(LEAST, bound=0.9),))) is None
