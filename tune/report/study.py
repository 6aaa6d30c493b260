"""A sweep's trials as an Optuna study, for what Optuna can say and draw of them."""

import math
from collections.abc import Mapping
from typing import Any

from tune.report.tables import short_names
from tune.space.space import Knob, Space
from tune.sweep.results import SweepResult, Trial
from tune.sweep.sweep import Goal

_FEWEST = 5


def compared_step(result: SweepResult, goal: Goal) -> int | None:
    """The step at which trials are compared fairly: the latest one that three quarters of them reached.

    A trial that was stopped early has a worse best for want of steps, which says nothing of its settings.
    """
    told = [trial for trial in result.trials if trial.best(goal.metric, goal.mode) is not None]
    last = sorted((max(p.step for p in trial.points if _finite(p.measures, goal)) for trial in told), reverse=True)
    return last[-(-3 * len(last) // 4) - 1] if last else None


def value_at(trial: Trial, goal: Goal, step: int) -> float | None:
    """The best measure up to a step; None for a trial that did not get there."""
    points = [point for point in trial.points if _finite(point.measures, goal)]
    if not points or points[-1].step < step:
        return None
    values = [point.measures[goal.metric] for point in points if point.step <= step]
    return (max(values) if goal.mode == "max" else min(values)) if values else None


def importances(result: SweepResult, space: Space, goal: Goal) -> tuple[dict[str, float], int, int] | None:
    """How much each knob decides the measure, adding up to 1; at which step, over how many trials (fANOVA).

    None: too few trials got there, or all of them measure the same.
    """
    step = compared_step(result, goal)
    if step is None:
        return None
    rows = [(trial, value) for trial in result.trials if (value := value_at(trial, goal, step)) is not None]
    if len(rows) < _FEWEST or len({value for _, value in rows}) < 2:
        return None
    optuna = quiet_optuna()
    study = optuna.create_study(direction="maximize" if goal.mode == "max" else "minimize")
    spread = {name: knob for name, knob in space.knobs.items() if len({str(t.settings[name]) for t, _ in rows}) > 1}
    distributions = {name: distribution(knob) for name, knob in spread.items()}
    for trial, value in rows:
        settings = {name: trial.settings[name] for name in spread}
        study.add_trial(optuna.trial.create_trial(params=settings, distributions=distributions, value=value))
    # Of Optuna's three it told the two knobs that matter from six that do not best at 13 trials.
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError):
        return None
    return {name: float(share) for name, share in found.items()}, step, len(rows)


def distribution(knob: Knob) -> Any:
    """A knob as Optuna knows it."""
    kinds = quiet_optuna().distributions
    if knob.kind == "choice":
        return kinds.CategoricalDistribution(knob.values)
    if knob.kind == "integer":
        return kinds.IntDistribution(int(knob.low), int(knob.high))
    return kinds.FloatDistribution(knob.low, knob.high, log=knob.kind == "log_uniform")


def quiet_optuna() -> Any:
    """Optuna without its lines of its own."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def axis_names(space: Space) -> Mapping[str, str]:
    """Short names of the knobs, for axes."""
    return short_names(list(space.knobs))


def _finite(measures: Mapping[str, float], goal: Goal) -> bool:
    return math.isfinite(measures.get(goal.metric, math.nan))
