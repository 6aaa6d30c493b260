"""The options of `python -m tune`: a frozen class for each command, whose docstring is the command's help."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from pipelines.cli.options import (
    DataOptions,
    DryRunOptions,
    SettingsOptions,
    StorageOptions,
    count,
    file,
    from_zero,
    whole,
)
from pipelines.command_line import option, repeated
from tune.sweep.sweep import Search

_MOST_GPUS = 10_000
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float:
    """`90s`, `15m`, `2h`, `1d` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip().lower())
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time: write 90s, 15m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]


def hours(text: str) -> float:
    """A number of hours, over 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: give a number of hours over 0")
    return value


def quantile(text: str) -> float:
    """A share over 0 and at most 0.5."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value <= 0.5:
        raise argparse.ArgumentTypeError(f"{text}: give a share over 0 and at most 0.5")
    return value


def gpus(text: str) -> float:
    """A share of a GPU, over 0, or a whole number of GPUs."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GPUs") from None
    if not 1e-4 <= value <= _MOST_GPUS or (value > 1 and value % 1):
        raise argparse.ArgumentTypeError(f"{text}: give a share over 0 and up to 1, or a whole number")
    return value


def seeds(text: str) -> int:
    """A number of seeds, from which an interval can be computed; or 0."""
    if (value := whole(text, 0)) == 1:
        raise argparse.ArgumentTypeError("one seed has no interval: use 2 or more")
    return value


class SweepOptions(DryRunOptions, StorageOptions, DataOptions):
    """Search the settings of one or more stages. Every trial is an ordinary training run.

    examples:
      python -m tune boxes --data data/prepared --trials 8 --dry-run
      python -m tune boxes --data data/prepared --time-budget 2h --confirm 3 --export-recipe best.yaml
      python -m tune --resume sweep-boxes --trials 32
      python -m tune space boxes --out my-space.yaml   (the default search space, for --space)
      python -m tune show sweep-boxes                  (trials, curves and the best settings of a sweep)
    """

    stages: Sequence[str] = option(
        (), "inputs", "encoders, boxes, shapes, images, judge; the last one is measured", flag="STAGE", nargs="*"
    )
    encoders: Path | None = file("inputs", "checkpoint of stage encoders (default: none)", "DIR")
    judges: Path | None = file(
        "inputs",
        "output of `judges`, for metrics of stage images by judges that no generator is trained with (default: none)",
        "DIR",
    )
    run: str | None = option(None, "outputs", "name, stored as STORAGE/ID (default: sweep-STAGE)", metavar="ID")
    resume: str | None = option(
        None, "outputs", "resume a sweep; its budget may be raised (default: begin a sweep)", metavar="RUN"
    )
    space: Path | None = file("search", "YAML search space; with --resume, other ranges (default: that of the stages)")
    search: Search = option(
        "random",
        "search",
        "choice of settings: at random, by a model of Optuna (tpe, cmaes, gp; optuna means tpe), evenly spread (qmc), "
        "or all combinations (grid: a range then needs a step)",
        choices=get_args(Search),
    )
    baseline: bool = option(True, "search", "begin with the recipe's own settings, as trial 0 (default: on)")
    start_from: str | None = option(
        None,
        "search",
        "try these settings first: a YAML file (a mapping, or a list of them) or the five best trials of a sweep "
        "STORAGE/RUN (default: none)",
        metavar="FILE|RUN",
    )
    scheduler: Literal["asha", "median", "pbt", "none"] | None = option(
        None,
        "search",
        "which trials stop early: asha (successive halving), median (worse than the median), none; pbt stops none, but "
        "bad trials continue from the weights of good ones with changed settings (default: asha; with several metrics, "
        "none)",
        choices=("asha", "median", "pbt", "none"),
    )
    pbt_quantile: float = option(
        0.25, "search", "share of a population that pbt replaces, at most 0.5", quantile, metavar="SHARE"
    )
    pbt_interval: int | None = option(
        None, "search", "steps between replacements by pbt (default: at every report)", count, metavar="STEPS"
    )
    metric: Sequence[str] = repeated(
        "search",
        "held-out metric (default: the stage's objective); may be given again, for a Pareto front, of which the first "
        "metric decides the best trial",
        str,
        metavar="NAME",
    )
    mode: str | None = option(
        None, "search", "whether lower or higher is better (default: known for each metric)", choices=("min", "max")
    )
    require: Sequence[str] = repeated(
        "search",
        "bound that the best trial keeps, like 'best_iou >= 0.24'; may be given again (default: none)",
        str,
        metavar="BOUND",
    )
    seed: int = option(0, "search", "random seed of the search", from_zero, metavar="S")
    trials: int | None = option(None, "budget", "number of trials (default: 16; of a grid, all)", count, metavar="N")
    max_concurrent: int | None = option(None, "budget", "trials at a time (default: all that fit)", count, metavar="M")
    time_budget: float | None = option(
        None, "budget", "of the sweep: 90s, 15m, 2h or 1d (default: no limit)", duration, metavar="TIME"
    )
    gpu_hours: float | None = option(
        None, "budget", "GPU hours (without GPUs, CPU hours) of all trials (default: no limit)", hours, metavar="H"
    )
    stop_at: float | None = option(
        None,
        "budget",
        "end when the metric is at least (max) or at most (min) this (default: no target)",
        float,
        metavar="VALUE",
    )
    trial_retries: int | None = option(
        None,
        "budget",
        "retries of a trial after an infrastructure failure: workers that did not start, a lost node, unreachable "
        "storage (default: 2); a trial that fails more often is left for --resume",
        from_zero,
        metavar="N",
    )
    confirm: int = option(
        0, "best trial", "train its settings and the recipe's with N other seeds, and compare", seeds, metavar="N"
    )
    export_recipe: Path | None = file("best trial", "write all its settings, for --config (default: only best.yaml)")
    register: str | None = option(
        None,
        "best trial",
        "register it as challenger: the model NAME if all stages exist, else NAME-STAGE (default: do not register)",
        metavar="NAME",
    )
    rest: str | None = option(
        None, "best trial", "STORAGE/RUN with the other stages, for --register (default: none)", metavar="RUN"
    )
    workers: int | None = option(None, "compute", "training workers of each trial (default: 1)", count, metavar="N")
    gpus_per_trial: float | None = option(
        None,
        "compute",
        "GPUs of each trial: a share (0.25: four trials on one GPU), or a whole number, one for each training worker "
        "(default: one for each worker, if there are GPUs)",
        gpus,
        metavar="GPUS",
    )
    address: str | None = option(None, "compute", "Ray cluster (default: Ray on this machine only)", metavar="URL")


class ShowOptions(StorageOptions):
    """Show the trials of a sweep, running or not, and its best settings.

    examples:
      python -m tune show sweep-boxes
    """

    run: str = option("", "inputs", "name of the sweep", flag="RUN")
    follow: bool = option(
        False, "output format", "show the table again at every change until the sweep ends; with --pictures, the plots"
    )
    export_recipe: Path | None = file("outputs", "write the best settings, for --config (default: do not write)")
    pictures: bool = option(False, "outputs", "draw the plots, trials.csv and best.yaml of the trials so far")
    json: bool = option(False, "output format", "print JSON")


class SpaceOptions(SettingsOptions):
    """Print the default search space of stages as YAML, to edit and pass to --space.

    examples:
      python -m tune space boxes --out my-space.yaml
    """

    stages: Sequence[str] = option((), "inputs", "encoders, boxes, shapes, images, judge", flag="STAGE", nargs="+")
    out: Path | None = file("outputs", "file to write (default: print it)")
    population: bool = option(False, "inputs", "the space of --scheduler pbt: rates and weights")
