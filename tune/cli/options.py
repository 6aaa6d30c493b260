"""Make a sweep of its options, checked against settings, data and storage before the start."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from objgan.config import Config, build_config
from objgan.errors import InputError, did_you_mean
from objgan.stages import stage_class
from pipelines.cli.options import with_workers
from pipelines.evaluation.image_judges import MEASURES as JUDGED_MEASURES
from pipelines.evaluation.image_judges import STAGE as JUDGED
from pipelines.recipes import merge, parse_assignment, resolve
from pipelines.redaction import HIDDEN, redact
from pipelines.training.job import needed_stages
from tune.cli.arguments import SweepOptions
from tune.cli.first_points import first_points
from tune.space.check import check_space
from tune.space.default_space import default_space
from tune.space.file import read_space
from tune.space.grid import grid
from tune.space.space import Space
from tune.sweep.spec_file import changed, known_sweep, load_sweep
from tune.sweep.sweep import Budget, Goal, Mode, Objective, Requirement, Search, Sweep

_TRIALS = 16


def sweep_of(options: SweepOptions) -> tuple[Sweep, bool]:
    """The sweep that the options describe, and whether it was begun before.

    Raises:
        InputError: a fault that would stop it later.
    """
    if options.resume is not None:
        known = _with_secrets(known_sweep(options.storage, options.resume), options)
        _check_goal(options, known)
        known = replace(known, space=_resumed_space(options, known), judges=_judges(options, known.stage, known.judges))
        budget = _budget(options, known.budget, _grid_trials(known.search, known.space, known.points))
        return replace(known, budget=budget, config=_resumed(options, known.config)), True
    sweep = _new(options)
    before = load_sweep(sweep.store())
    if before is None:
        return sweep, False
    if different := changed(sweep, before):
        raise InputError(
            f"{sweep.store()} was begun differently ({'; '.join(different[:3])}): resume it "
            f"with --resume {sweep.run}, or use another --run"
        )
    return sweep, True


def _with_secrets(known: Sweep, options: SweepOptions) -> Sweep:
    """A sweep with the whole URI of its data: `sweep.json` stores no passwords.

    Raises:
        InputError: the URI is not among the options.
    """
    if HIDDEN not in str(known.data):
        return known
    if redact(str(options.data)) != known.data:
        raise InputError(
            f"--resume {known.run}: the address of its data contains a password, which sweep.json does not store: add "
            f"--data with the whole address ({known.data})"
        )
    return replace(known, data=options.data)


def _new(options: SweepOptions) -> Sweep:
    stages = _stages(options.stages)
    config = resolve(options.recipe, options.config, _assignments(options))
    encoders = _encoders(options.encoders, config, stages)
    judges = _judges(options, stages[-1])
    goal = goal_of(stages[-1], options.metric, options.mode, judged=judges is not None)
    goal = replace(goal, requires=requirements(stages[-1], options.require, judged=judges is not None))
    _check_target(options, goal)
    data = options.data.expanduser().resolve() if isinstance(options.data, Path) else options.data
    storage = options.storage if "://" in options.storage else str(Path(options.storage).expanduser().resolve())
    space = _space(options, config, stages)
    points = first_points(options, space, config, goal)
    if options.scheduler != "pbt" and (options.pbt_interval or options.pbt_quantile != SweepOptions.pbt_quantile):
        raise InputError("--pbt-quantile and --pbt-interval go with --scheduler pbt")
    most = _grid_trials(options.search, space, points)
    return Sweep(
        run=options.run or f"sweep-{'-'.join(stages)}",
        stages=stages,
        config=config,
        data=data,
        storage=storage,
        space=space,
        goal=goal,
        budget=_budget(options, Budget(most or _TRIALS), most),
        search=options.search,
        scheduler=options.scheduler or ("none" if goal.others else "asha"),
        seed=options.seed,
        encoders=encoders,
        points=points,
        pbt_quantile=options.pbt_quantile,
        pbt_interval=options.pbt_interval,
        judges=judges,
    )


def _assignments(options: SweepOptions) -> list[str]:
    """The assignments of `--set`, `--workers` and `--gpus-per-trial`.

    Raises:
        InputError: two of them set the same.
    """
    workers = [] if options.workers is None else [f"compute.workers={options.workers}"]
    words, count = with_workers(options.assignments, workers), options.gpus_per_trial
    if count is None:
        return words
    gpus = ["compute.device=cuda", f"compute.gpus_per_worker={min(count, 1):g}"]
    gpus += [f"compute.workers={count:.0f}"] if count >= 1 else []
    given = {word.partition("=")[0] for word in words}
    if twice := given & {word.partition("=")[0] for word in gpus}:
        option = "--workers" if options.workers and "compute.workers" in twice else f"--set {min(twice)}"
        raise InputError(f"--gpus-per-trial {count:g} and {option} set the same: leave out one of the two")
    return [*words, *gpus]


def _resumed(options: SweepOptions, config: Config) -> Config:
    """The settings of a resumed sweep: only its use of machines may change.

    Raises:
        InputError: other settings were given.
    """
    words = _assignments(options)
    others = [word for word in words if not word.startswith("compute.")]
    if options.config is not None:
        others.append(f"--config {options.config}")
    if others:
        raise InputError(
            f"--resume {options.resume}: {others[0]} would change what the trials learn; a resumed sweep takes "
            f"only --set compute.NAME=VALUE"
        )
    values = config.model_dump()
    for word in words:
        merge(values, parse_assignment(word))
    return build_config(values)


def _resumed_space(options: SweepOptions, known: Sweep) -> Space:
    """The space of a resumed sweep: its ranges may change.

    Raises:
        InputError: other settings, or a search whose trials are counted.
    """
    if options.space is None:
        return known.space
    if known.search == "grid" or known.scheduler == "pbt":
        kind = "grid" if known.search == "grid" else "population"
        raise InputError(f"--resume {known.run} --space {options.space}: a {kind} keeps its ranges: use another --run")
    space = check_space(read_space(options.space), known.config, known.stages, f"--space {options.space}")
    if different := sorted(set(space.knobs) ^ set(known.space.knobs)):
        raise InputError(
            f"--resume {known.run} --space {options.space}: only ranges may change, and {different[0]} is in one of "
            f"the two spaces only: use another --run"
        )
    return space


def _stages(names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        stage_class(name)
    if len(set(names)) < len(names):
        raise InputError(f"stages {' '.join(names)}: a stage is given twice")
    if "encoders" in names[1:]:
        raise InputError(f"stages {' '.join(names)}: encoders come first, because the others need them")
    return tuple(names)


def _encoders(given: Path | None, config: Config, stages: tuple[str, ...]) -> Path | None:
    if "encoders" in stages:
        if given is not None:
            raise InputError("--encoders: the sweep trains its own encoders: leave out one of the two")
        return None
    needing = [stage for stage in stages if needed_stages(config, stage)]
    if needing and given is None:
        raise InputError(
            f"stage {needing[0]} needs encoders: give --encoders DIR (train them with `python -m pipelines train "
            f"encoders`), or sweep `encoders {' '.join(stages)}`"
        )
    return given.expanduser().resolve() if needing and given else None


def _judges(options: SweepOptions, stage: str, before: Path | None = None) -> Path | None:
    if options.judges is None:
        return before
    if stage != JUDGED:
        raise InputError(f"--judges goes with stage {JUDGED}, whose images they measure: leave it out")
    return options.judges.expanduser().resolve()


def _space(options: SweepOptions, config: Config, stages: tuple[str, ...]) -> Space:
    if options.space is None:
        space = default_space(stages, config, population=options.scheduler == "pbt")
        return check_space(space, config, stages, "default space")
    return check_space(read_space(options.space), config, stages, f"--space {options.space}")


def _grid_trials(search: Search, space: Space, points: Sequence[Mapping[str, Any]]) -> int | None:
    """How many trials a grid has, with the first ones; None: the search has no end."""
    return len(points) + len(grid(space, points)) if search == "grid" else None


def _budget(options: SweepOptions, before: Budget, most: int | None) -> Budget:
    given = Budget(
        trials=options.trials or before.trials,
        max_concurrent=options.max_concurrent or before.max_concurrent,
        seconds=options.time_budget or before.seconds,
        gpu_hours=options.gpu_hours or before.gpu_hours,
        retries=before.retries if options.trial_retries is None else options.trial_retries,
        stop_at=before.stop_at if options.stop_at is None else options.stop_at,
    )
    if given.stop_at is not None and not math.isfinite(given.stop_at):
        raise InputError(f"--stop-at {given.stop_at}: give a finite value")
    if given.trials < before.trials and options.resume is not None:
        raise InputError(f"--trials {given.trials}: the sweep was begun with {before.trials}; it never gets fewer")
    if most is not None and given.trials > most:
        raise InputError(f"--trials {given.trials}: the grid has {most} trials: leave out --trials")
    assert given.seconds is None or math.isfinite(given.seconds)
    return given


def goal_of(stage: str, metrics: Sequence[str], mode: str | None, judged: bool = False) -> Goal:
    """The goal of `--metric` and `--mode`; by default the stage's objective. judged: with `--judges`

    Raises:
        InputError: an unknown stage, a name that is none of its held-out metrics (they are listed), a metric that is
            given twice, or a mode for several metrics.
    """
    kind, measures = stage_class(stage), _measures(stage, judged)
    found: list[Objective] = []
    for metric in metrics or [kind.objective[0]]:
        _check_metric(stage, metric, f"--metric {metric}", judged)
        if metric in metrics[len(found) + 1 :]:
            raise InputError(f"--metric {metric} is given twice: leave out one of the two")
        found.append(Objective(metric, "max" if (mode or measures[metric]) == "max" else "min"))
    if mode is not None and len(found) > 1:
        raise InputError(f"--mode {mode} goes with one --metric: leave it out, each metric's direction is known")
    return Goal(found[0].metric, found[0].mode, others=tuple(found[1:]))


def requirements(stage: str, given: Sequence[str], judged: bool = False) -> tuple[Requirement, ...]:
    """The bounds of `--require`. judged: with `--judges`

    Raises:
        InputError: a text of another form, a bound that is not finite, or an unknown metric; the known ones are listed.
    """
    found = []
    for text in given:
        match = re.fullmatch(r"\s*([^\s<>=]+)\s*(>=|<=)\s*([^\s<>=]+)\s*", text)
        try:
            bound = math.nan if match is None else float(match[3])
        except ValueError:
            bound = math.nan
        if match is None or not math.isfinite(bound):
            raise InputError(f"--require {text!r}: write a metric, >= or <=, and a number, like 'best_iou >= 0.24'")
        _check_metric(stage, match[1], f"--require {text!r}", judged)
        found.append(Requirement(match[1], ">=" if match[2] == ">=" else "<=", bound))
    return tuple(found)


def _measures(stage: str, judged: bool) -> Mapping[str, Mode]:
    return {**stage_class(stage).measures, **(JUDGED_MEASURES if judged else {})}


def _check_metric(stage: str, metric: str, where: str, judged: bool) -> None:
    measures = _measures(stage, judged)
    if stage == JUDGED and metric in JUDGED_MEASURES and not judged:
        raise InputError(f"{where}: judges measure it: add --judges DIR, the output of `python -m pipelines judges`")
    if metric not in measures:
        names = ", ".join(f"{name} ({best})" for name, best in measures.items())
        raise InputError(
            f"{where}: not a held-out metric of stage {stage}:{did_you_mean(metric, measures)} Choose one of {names}; "
            f"losses of a GAN do not show which trial is better"
        )


def _check_target(options: SweepOptions, goal: Goal) -> None:
    if goal.others and options.stop_at is not None:
        raise InputError("--stop-at goes with one --metric: use --trials or --time-budget")


def _check_goal(options: SweepOptions, known: Sweep) -> None:
    """A resumed sweep keeps its goal, because its trials kept only their best checkpoints by it."""
    _check_target(options, known.goal)
    stage, judged = known.stage, known.judges is not None
    if options.metric and goal_of(stage, options.metric, options.mode, judged).objectives != known.goal.objectives:
        raise InputError(f"--resume {known.run} --metric {options.metric[0]}: a sweep keeps its metrics: leave it out")
    if options.require and requirements(stage, options.require, judged) != known.goal.requires:
        raise InputError(
            f"--resume {known.run} --require {options.require[0]!r}: a sweep keeps its requirements, because its "
            f"trials keep the checkpoints that are best by them: use another --run"
        )
