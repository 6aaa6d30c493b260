"""The files of a sweep over stage `boxes`: 14 trials under ASHA, one failed, one with NaN at its end."""

import math
import random
from dataclasses import replace
from pathlib import Path

from pipelines.recipes import resolve
from tune.space.default_space import default_space
from tune.sweep.results import Point, SweepResult, Trial
from tune.sweep.sweep import Budget, Goal, Sweep

STEPS = (100, 200, 300, 400)
SEED = 859  # trial 7 is the best, and fANOVA ranks lr and dropout first


def recorded_sweep(folder: Path, data: Path | None = None) -> Sweep:
    config = resolve("tiny", None, ("boxes.training.steps=400", "boxes.training.checkpoint_every=100"))
    return Sweep(
        run="recorded",
        stages=("boxes",),
        config=config,
        data=data or folder / "data",
        storage=str(folder),
        space=default_space(("boxes",), config),
        goal=Goal("label_f1", "max"),
        budget=Budget(trials=14, max_concurrent=2, seconds=1800.0),
    )


def recorded_result(sweep: Sweep, trials: int = 14) -> SweepResult:
    """The metric grows with steps, and is best at a learning rate of 3e-3 and low dropout.

    Values of a setting do not depend on which others the space has.
    """
    return SweepResult("finished", tuple(_trial(sweep, number) for number in range(trials)), 1234.5)


def opposed_result(sweep: Sweep) -> SweepResult:
    """As `recorded_result`: `best_iou` falls from trial to trial as `label_f1` grows, and grows with steps."""
    return replace(recorded := recorded_result(sweep), trials=tuple(map(_opposed, recorded.trials)))


def _opposed(trial: Trial) -> Trial:
    top = max((point.measures["label_f1"] for point in trial.points[:-1]), default=0.0)
    points = (
        replace(point, measures={**point.measures, "best_iou": 0.45 - 0.5 * top + point.step / 1e5})
        for point in trial.points
    )
    return replace(trial, points=tuple(points))


def _trial(sweep: Sweep, number: int) -> Trial:
    knobs = sweep.space.knobs.items()
    settings = {name: _draw(knob, random.Random(f"{SEED} {number} {name}")) for name, knob in knobs}
    identity = f"t{number:05d}"
    if number == 5:
        return Trial(identity, number, settings, "failed", (), None, "RuntimeError: out of luck", 9.0)
    rate, dropout = math.log(settings["boxes.training.lr"] / 3e-3), settings["boxes.dropout"]
    top = 0.62 - 0.06 * rate**2 - 0.3 * dropout + random.Random(f"{SEED} {number}").gauss(0, 0.01)
    steps = STEPS if top > 0.5 else STEPS[: 1 + number % 2]
    points = tuple(
        Point(step, step / 10, {"label_f1": top * (1 - math.exp(-step / 150)), "count_error": 4 - top - step / 400})
        for step in steps
    )
    if number == 8:
        points = (*points[:-1], Point(points[-1].step, points[-1].seconds, {"label_f1": math.nan}))
    state = "finished" if steps == STEPS else "stopped"
    last = points[-1].step
    return Trial(identity, number, settings, state, points, f"step_{last:08d}", None, last / 10 + 5, last / 12)


def _draw(knob, draw: random.Random):
    if knob.kind == "choice":
        return draw.choice(knob.values)
    if knob.kind == "log_uniform":
        return math.exp(draw.uniform(math.log(knob.low), math.log(knob.high)))
    return draw.uniform(knob.low, knob.high)
