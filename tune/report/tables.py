"""The results of a sweep as text: a table of trials, their curves, the best settings."""

import math
from collections.abc import Sequence
from typing import Any

from objgan.config import flatten
from pipelines.runs.listing import span
from tune.space.space import with_settings
from tune.sweep.results import SweepResult, Trial
from tune.sweep.sweep import Goal, Sweep

_BARS = "▁▂▃▄▅▆▇█"


def table(result: SweepResult, goal: Goal) -> str:
    """One line per trial, the best first, those without a value last. Settings have the last part of their names.

    A value that breaks a requirement has an exclamation mark.
    """
    names = list(dict.fromkeys(name for trial in result.trials for name in trial.settings))
    heads = short_names(names)
    low, high = limits(result, goal)
    head = ("TRIAL", "STATE", "STEP", *(name.upper() for name in goal.names), "CURVE", "TIME")
    rows = [(*head, *(heads[name].upper() for name in names))]
    for trial in ranked(result.trials, goal):
        settings = [text(trial.settings.get(name)) for name in names]
        rows.append(
            (
                str(trial.number),
                trial.state,
                str(trial.points[-1].step) if trial.points else "-",
                *_values(trial, goal),
                curve(trial, goal, low, high),
                span(trial.seconds),
                *settings,
            )
        )
    return "\n".join(aligned(rows))


def _values(trial: Trial, goal: Goal) -> list[str]:
    if (point := trial.report(goal)) is None:
        return ["-"] * len(goal.names)
    broken = [requirement.metric for requirement in goal.requires if not requirement.violation(point.measures) <= 0]
    return [f"{point.measures[name]:.4f}{'!' if name in broken else ''}" for name in goal.names]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as lines, with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def summary(sweep: Sweep, result: SweepResult) -> str:
    """Number of trials, how they ended, and the best one with its settings beside the recipe's."""
    goal, counts = sweep.goal, _counts(result)
    why = f" ({result.reason})" if result.reason else ""
    lines = [f"{sweep.run}: {result.state} after {span(result.seconds)}{why}; {counts}"]
    reports = [point for trial in result.trials if (point := trial.report(goal)) is not None]
    if broken := sum(bool(goal.broken(point.measures)) for point in reports):
        lines.append(f"{broken} of {len(reports)} measured trials break {_requirements(goal)}, and are never the best")
    if goal.others:
        lines += ["", *front_lines(result, goal), ""]
    best = result.best(goal)
    if best is None:
        return "\n".join([*lines, f"{no_best(result, goal)} yet"])
    point = best.best(goal)
    assert point is not None
    lines.append(
        f"best: trial {best.number} ({best.id}), {goal.metric} {point.measures[goal.metric]:.4f} at step {point.step}"
    )
    before = flatten(sweep.config)
    settings = point.settings or best.settings
    width = max((len(name) for name in settings), default=0)
    lines += [f"  {name:<{width}}  {text(before.get(name))} -> {text(value)}" for name, value in settings.items()]
    if best.donors:
        taken = ", ".join(f"at step {step} from trial {donor}" for step, donor in best.donors)
        lines.append(f"  weights taken over {taken}; the settings are those in force at the best step")
    return "\n".join(lines)


def front_lines(result: SweepResult, goal: Goal) -> list[str]:
    """The Pareto front as a table, by the first metric, and which of its trials is the best."""
    trials = ranked(result.front(goal), goal)
    rows = [("TRIAL", *(name.upper() for name in goal.names), "STEP")]
    for trial in trials:
        point = trial.report(goal)
        rows.append((str(trial.number), *_values(trial, goal), "-" if point is None else str(point.step)))
    keeping = f" that keep {_requirements(goal)}" if goal.requires else ""
    head = f"front: {len(trials)} non-dominated trials{keeping}; the best trial has the best {goal.metric}"
    return [head, *aligned(rows)]


def no_best(result: SweepResult, goal: Goal) -> str:
    """Why a sweep has no best trial."""
    if any(trial.report(goal) is not None for trial in result.trials):
        return f"no trial keeps {_requirements(goal)}"
    return f"no trial has reported {' and '.join(goal.names)}"


def _requirements(goal: Goal) -> str:
    return " and ".join(map(str, goal.requires))


def rows(result: SweepResult, goal: Goal) -> list[dict[str, Any]]:
    """One flat row per trial."""
    names = list(dict.fromkeys(name for trial in result.trials for name in trial.settings))
    front = {trial.number for trial in result.front(goal)}
    return [_row(trial, goal, names, trial.number in front) for trial in ranked(result.trials, goal)]


def ranked(trials: Sequence[Trial], goal: Goal) -> list[Trial]:
    """The best first, then those that break a requirement; those without a value last, by number."""

    def key(trial: Trial) -> tuple[bool, list[float], int]:
        point = trial.report(goal)
        return point is None, [-value for value in ([] if point is None else goal.rank(point.measures))], trial.number

    return sorted(trials, key=key)


def limits(result: SweepResult, goal: Goal) -> tuple[float, float]:
    """Lowest and highest finite value of the goal's metric over all reports."""
    values = [point.measures.get(goal.metric, math.nan) for trial in result.trials for point in trial.points]
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else (0.0, 1.0)


def curve(trial: Trial, goal: Goal, low: float, high: float) -> str:
    """The goal's metric over a trial's reports as small bars from `low` to `high`; `x` if it is not finite."""
    values = [point.measures.get(goal.metric, math.nan) for point in trial.points][-12:]
    span_ = (high - low) or 1.0
    top = len(_BARS) - 1
    return "".join(_BARS[round(top * (v - low) / span_)] if math.isfinite(v) else "x" for v in values)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each name's last part, or more parts if two names would be equal."""
    short = {}
    for name in names:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            tail = ".".join(parts[-length:])
            if sum(other == tail or other.endswith(f".{tail}") for other in names) == 1:
                break
        short[name] = tail
    return short


def text(value: Any) -> str:
    """A short form of a setting's value."""
    return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else str(value)


def settings_of(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    """The settings in force at a trial's best report, in the types of the tree of settings."""
    point = trial.report(sweep.goal)
    settings = (point.settings if point is not None else {}) or trial.settings
    flat = flatten(with_settings(sweep.config, settings))
    return {name: flat[name] for name in settings}


def _row(trial: Trial, goal: Goal, names: Sequence[str], front: bool) -> dict[str, Any]:
    point = trial.report(goal)
    measures = {} if point is None else point.measures
    return {
        "trial": trial.number,
        "id": trial.id,
        "state": trial.state,
        goal.metric: measures.get(goal.metric),
        **({"breaks": "; ".join(goal.broken(measures)) if measures else None} if goal.requires else {}),
        **({"front": front} if goal.others else {}),
        "best_step": None if point is None else point.step,
        "last_step": trial.points[-1].step if trial.points else 0,
        **{name: trial.settings.get(name) for name in names},
        **{name: value for name, value in measures.items() if name != goal.metric},
        "seconds": round(trial.seconds, 1),
        "training_seconds": round(trial.training_s, 1),
        "checkpoint": trial.checkpoint,
        "error": trial.error,
    }


def _counts(result: SweepResult) -> str:
    states = [trial.state for trial in result.trials]
    parts = [f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states))]
    return f"{len(states)} trial{'' if len(states) == 1 else 's'} ({', '.join(parts) or 'none'})"
