"""The settings of the next trial: a function of the sweep's seed and of earlier trials, without state.

A resumed sweep therefore needs only the rows of its trials. With `random` and `qmc`, the settings of trial 7 depend on
nothing else.
"""

import importlib.util
import random
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ray.tune
import ray.tune.search

from objgan.errors import InputError
from tune.space.grid import grid
from tune.space.space import Knob, seed_of
from tune.sweep.results import Trial
from tune.sweep.sweep import Goal, Sweep
from tune.sweep.trial_store import ENDED

_LEAST_TRIALS = 5
"""Optuna's samplers draw this many trials at random before they model anything."""
_NEEDS = {
    "optuna": ("optuna",),
    "tpe": ("optuna",),
    "cmaes": ("optuna", "cmaes"),
    "gp": ("optuna", "scipy", "torch"),
    "qmc": ("scipy",),
}
"""Packages of each search."""


def check_search(sweep: Sweep) -> None:
    """Check that the packages of the search are installed, and that it takes the number of metrics.

    Raises:
        InputError: one is missing, or it takes one metric.
    """
    if sweep.search == "cmaes" and sweep.goal.others:
        raise InputError("--search cmaes takes one --metric: use tpe, gp, qmc, grid or random for several")
    for package in _NEEDS.get(sweep.search, ()):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"--search {sweep.search} needs the package {package}: pip install {package}, or use another --search"
            )


def suggest(sweep: Sweep, number: int, rows: Iterable[Trial]) -> dict[str, Any]:
    """Settings of the trial `number`, by dotted name; `rows` are the trials so far, ended or not."""
    if number < len(sweep.points):
        return dict(sweep.points[number])
    if sweep.search == "grid":
        return grid(sweep.space, sweep.points)[number - len(sweep.points)]
    if sweep.search == "qmc":
        return _sobol_point(sweep, number - len(sweep.points))
    if sweep.search != "random":
        return _ask_optuna(sweep, number, sorted(rows, key=lambda row: row.number))
    return sweep.space.draw(sweep.seed, number)


class Suggestions(ray.tune.search.Searcher):
    """Ray Tune's searcher: returns the trials of `queue`, then new ones of `make` until that returns None."""

    def __init__(self, queue: Sequence[dict[str, Any]], make: Callable[[], dict[str, Any] | None], goal: Goal) -> None:
        super().__init__(metric="goal", mode=goal.mode)
        self._queue, self._make = list(queue), make

    def suggest(self, trial_id: str) -> Any:
        """The configuration of a trial that Ray Tune calls `trial_id`."""
        config = self._queue.pop(0) if self._queue else self._make()
        return ray.tune.search.Searcher.FINISHED if config is None else {"job": config}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing to do: the rows record it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to do: the rows are the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to do."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _ask_optuna(sweep: Sweep, number: int, rows: Sequence[Trial]) -> dict[str, Any]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = _sampler(sweep.search, seed_of(sweep.seed, number, "optuna") % 2**32)
    study = optuna.create_study(directions=sweep.goal.directions, sampler=sampler)
    knobs = sweep.space.knobs
    distributions = {name: _distribution(knob) for name, knob in sorted(knobs.items())}
    for row in rows:
        past = _past_trial(row, sweep, distributions)
        if sweep.search == "cmaes":
            _replay(study, past, distributions)
        else:
            study.add_trial(past)
    trial, settings = study.ask(), dict[str, Any]()
    for name in sweep.space.ordered():
        if sweep.space.acts(name, settings):
            settings[name] = _ask(trial, name, knobs[name])
    return dict(sorted(settings.items()))


def _sampler(search: str, seed: int) -> Any:
    """Optuna's sampler. CMA-ES and GP draw what they cannot model (choices, conditional settings) at random."""
    from optuna import samplers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls some of their options experimental.
        if search == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=_LEAST_TRIALS, warn_independent_sampling=False)
        if search == "cmaes":
            return samplers.CmaEsSampler(seed=seed, n_startup_trials=_LEAST_TRIALS, warn_independent_sampling=False)
        return samplers.TPESampler(seed=seed, n_startup_trials=_LEAST_TRIALS, constant_liar=True)


def _replay(study: Any, past: Any, distributions: Mapping[str, Any]) -> None:
    """Ask for a past trial again. Optuna's CMA-ES counts only trials that its sampler began, in their generations.

    It has no constraints: it does not learn from trials that break one.
    """
    if past.value is None or any(violation > 0 for violation in past.constraints.values()):
        return
    study.enqueue_trial(past.params)
    trial = study.ask({name: distributions[name] for name in past.params})
    study.tell(trial, past.value)


class _Coordinate(random.Random):
    """A source of numbers for `Knob.draw` that always gives the same one, in [0, 1)."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self._at = at

    def random(self) -> float:
        """See `random.Random`; so below."""
        return self._at

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """See `random.Random`."""
        low, high = (0, start) if stop is None else (start, stop)
        return low + int(self._at * (high - low))


def _sobol_point(sweep: Sweep, number: int) -> dict[str, Any]:
    """A point of a scrambled Sobol sequence. A setting whose condition does not hold has a coordinate, too."""
    from scipy.stats import qmc

    names, settings = sorted(sweep.space.knobs), dict[str, Any]()
    sequence = qmc.Sobol(len(names), scramble=True, rng=seed_of(sweep.seed, 0, "qmc"))
    if number:
        sequence.fast_forward(number)
    point = dict(zip(names, sequence.random(1)[0], strict=True))
    for name in sweep.space.ordered():
        if sweep.space.acts(name, settings):
            settings[name] = sweep.space.knobs[name].draw(_Coordinate(float(point[name])))
    return dict(sorted(settings.items()))


def _ask(trial: Any, name: str, knob: Knob) -> Any:
    """Optuna's suggestion. It gets no steps, because it has none for logarithmic ranges."""
    if knob.kind == "choice":
        return knob.values[trial.suggest_categorical(name, range(len(knob.values)))]
    suggest_number = trial.suggest_int if knob.whole else trial.suggest_float
    low, high = (int(knob.low), int(knob.high)) if knob.whole else (knob.low, knob.high)
    value = suggest_number(name, low, high, log=knob.log)
    return value if knob.step is None else type(value)(knob.snap(value))


def _past_trial(row: Trial, sweep: Sweep, distributions: Mapping[str, Any]) -> Any:
    import optuna

    report = row.report(sweep.goal)
    values = None if report is None else sweep.goal.values(report.measures)
    state = optuna.trial.TrialState.COMPLETE
    if row.state in ("failed", "diverged") or (values is None and row.state in ENDED):
        state, values = optuna.trial.TrialState.FAIL, None
    elif row.state not in ENDED:
        state, values = optuna.trial.TrialState.RUNNING, None
    # The recipe's own value may lie outside of the range, and a condition may not hold: Optuna models the others.
    params = {
        name: knob.values.index(row.settings[name]) if knob.kind == "choice" else row.settings[name]
        for name, knob in sweep.space.knobs.items()
        if name in row.settings and knob.contains(row.settings[name])
    }
    known = {name: distributions[name] for name in params}
    broken = {} if report is None or values is None else sweep.goal.violations(report.measures)
    return optuna.trial.create_trial(state=state, values=values, params=params, distributions=known, constraints=broken)


def _distribution(knob: Knob) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if knob.kind == "choice":
        # By index: Optuna does not distinguish 1 from true.
        return CategoricalDistribution(tuple(range(len(knob.values))))
    if knob.whole:
        return IntDistribution(int(knob.low), int(knob.high), log=knob.log)
    return FloatDistribution(knob.low, knob.high, log=knob.log)
