"""Schedulers that stop trials early or change their settings. They take in the reports of earlier processes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray.tune
import ray.tune.schedulers

from objgan.errors import InputError
from tune.space.changeable import fixed_reason
from tune.sweep.results import Trial
from tune.sweep.sweep import Goal, Sweep
from tune.sweep.trial_store import ENDED

REDUCTION = 3
"""At each rung, ASHA continues the best of this many trials."""
_CONTINUE, _PAUSE = ray.tune.schedulers.TrialScheduler.CONTINUE, ray.tune.schedulers.TrialScheduler.PAUSE
_PAUSED = "paused by the scheduler"


@dataclass(frozen=True)
class Rungs:
    """Report points of the last stage: after every `every` steps of `steps`."""

    every: int
    steps: int

    @property
    def reports(self) -> int:
        """Number of reports of a complete trial."""
        return math.ceil(self.steps / self.every)


def make_scheduler(sweep: Sweep, rungs: Rungs, past: Iterable[Trial], stop_requests: Any) -> Any:
    """Ray Tune's scheduler.

    Args:
        sweep: names the scheduler
        rungs: the stage's report points
        past: trials of earlier processes; ended ones are taken in at once, the others when they resume
        stop_requests: actor that receives a request for each paused trial
    """
    rows = {row.id: row for row in past}
    if sweep.scheduler == "asha":
        scheduler = Asha(
            "step", "goal", sweep.goal.mode, rungs.steps, min(rungs.every, rungs.steps), reduction_factor=REDUCTION
        )
        scheduler.remember(rows, sweep.goal)
        return scheduler
    if sweep.scheduler == "median":
        rule = Median("step", "goal", sweep.goal.mode, grace_period=min(rungs.every, rungs.steps))
        rule.remember(rows, sweep.goal)
        return rule
    if sweep.scheduler == "pbt":
        return Population(sweep, rungs, rows, stop_requests)
    return ray.tune.schedulers.FIFOScheduler()


def check_scheduler(sweep: Sweep) -> None:
    """Check that the scheduler can work with the space.

    Raises:
        InputError: several metrics for a scheduler that compares one; population-based training of several stages, with
            a setting that cannot change during a run, or with a first trial that has other networks.
    """
    if sweep.goal.others and sweep.scheduler != "none":
        raise InputError(f"--scheduler {sweep.scheduler} compares trials by one --metric: use --scheduler none for "
                         f"several")  # fmt: skip
    if sweep.scheduler != "pbt":
        return
    if len(sweep.stages) > 1:
        raise InputError(f"--scheduler pbt takes one stage, not {' and '.join(sweep.stages)}: weights that are taken "
                         f"over would not fit those of the earlier stages")  # fmt: skip
    if sweep.search != "random":
        raise InputError(f"--search {sweep.search}: --scheduler pbt changes settings itself and starts at random: "
                         f"leave out --search")  # fmt: skip
    if sweep.budget.trials < 2:
        raise InputError("--trials 1: a population has at least two trials")
    for name, knob in sweep.space.knobs.items():
        if fault := fixed_reason(name, knob, sweep.stage):
            raise InputError(f"--scheduler pbt: {name} cannot change during a run ({fault}): remove it from "
                             f"the space, or use another scheduler")  # fmt: skip
    for number, point in enumerate(sweep.points):
        if off := [name for name, value in point.items() if not value]:
            raise InputError(f"--scheduler pbt: {off[0]} is {point[off[0]]} in trial {number}, whose networks would "
                             f"not fit the others': use --no-baseline, or change --set or --start-from")  # fmt: skip


class _Remembering:
    """Reports of earlier processes are recorded in the scheduler, without decisions on them."""

    def remember(self, rows: Mapping[str, Trial], goal: Goal) -> None:
        """Record ended trials; the others are recorded when Ray Tune adds them."""
        self._rows, self._goal = dict(rows), goal
        for row in sorted(rows.values(), key=lambda row: row.number):
            if row.state in ENDED:
                stand_in = _StandIn(row.id)
                super().on_trial_add(None, stand_in)  # type: ignore[misc]
                self._replay(stand_in, row)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Called by Ray Tune."""
        super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        # Only once: Ray Tune adds a retried trial again.
        if row := self._rows.pop(trial.config["job"]["trial"], None):
            self._replay(trial, row)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Called by Ray Tune; a trial that failed has no value to compare."""
        if "goal" in result:
            super().on_trial_complete(tune_controller, trial, result)  # type: ignore[misc]

    def _replay(self, trial: Any, row: Trial) -> None:
        for point in row.points:
            if self._goal.metric in point.measures:
                result = {"step": point.step, "goal": point.measures[self._goal.metric]}
                super().on_trial_result(None, trial, result)  # type: ignore[misc]
                self._forget(trial)

    def _forget(self, trial: Any) -> None:
        """Undo a decision on an earlier report."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Asha(_Remembering, ray.tune.schedulers.AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li et al. 2020): of every three trials at a rung, the best continues."""


class Median(_Remembering, ray.tune.schedulers.MedianStoppingRule):
    """Stops a trial whose best is worse than the median of the others' means so far (Golovin et al. 2017)."""

    def _forget(self, trial: Any) -> None:
        self._stopped_trials.discard(trial)

    def _on_insufficient_samples(self, tune_controller: Any, trial: Any, time: float) -> Any:
        # Ray's rule would pause the trial for a waiting one: all workers would start again, for nothing.
        return _CONTINUE


class Population(ray.tune.schedulers.PopulationBasedTraining):
    """Population-based training (Jaderberg et al. 2017): the worst share continues from weights of the best.

    New values stay within the ranges of the space.
    """

    def __init__(self, sweep: Sweep, rungs: Rungs, rows: Mapping[str, Trial], stop_requests: Any) -> None:
        self._knobs, self._rows, self._goal, self._stop_requests = sweep.space.knobs, rows, sweep.goal, stop_requests
        mutations = {
            name: list(knob.values)
            if knob.kind == "choice"
            else (ray.tune.loguniform if knob.log else ray.tune.uniform)(knob.low, knob.high)
            for name, knob in sweep.space.knobs.items()
        }
        super().__init__(
            "step",
            "goal",
            sweep.goal.mode,
            perturbation_interval=sweep.pbt_interval or rungs.every,
            quantile_fraction=sweep.pbt_quantile,
            hyperparam_mutations={"job": {"settings": mutations}},
            custom_explore_fn=self._within,
            log_config=False,
        )

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Called by Ray Tune."""
        super().on_trial_add(tune_controller, trial)
        row = self._rows.get(trial.config["job"]["trial"])
        points = [point for point in row.points if self._goal.metric in point.measures] if row else []
        if points:
            state, last = self._trial_state[trial], points[-1]
            state.last_score = self._metric_op * last.measures[self._goal.metric]
            state.last_train_time = state.last_perturbation_time = last.step

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        """Called by Ray Tune."""
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == _PAUSE or trial.status == trial.PAUSED:
            self._stop_requests.end.remote(trial.config["job"]["trial"], _PAUSED)
        return decision

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> Any:
        config, operations = super()._get_new_config(trial, trial_to_clone)
        # Ray takes the donor's whole configuration, its name included.
        return {"job": {**trial.config["job"], "settings": config["job"]["settings"]}}, operations

    def _within(self, config: dict[str, Any]) -> dict[str, Any]:
        settings = dict(config["job"]["settings"])
        for name, knob in self._knobs.items():
            if knob.kind != "choice":
                settings[name] = knob.snap(settings[name])
        return {"job": {**config["job"], "settings": settings}}

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _StandIn:
    """A trial of an earlier process, of which schedulers only use the id."""

    def __init__(self, name: str) -> None:
        self.trial_id = name
