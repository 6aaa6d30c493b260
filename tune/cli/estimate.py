"""The cost of a sweep, and whether its trials fit: the output of `--dry-run`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from objgan.config import flatten
from objgan.cores import available_cores
from objgan.errors import InputError
from pipelines.runs.listing import find_runs, span
from pipelines.storage.storage import Storage
from pipelines.training.job import OpenRun
from tune.report.tables import aligned, text
from tune.space.space import Knob
from tune.sweep.resources import Allotment, plan_resources
from tune.sweep.sweep import Sweep
from tune.sweep.training_job import job_of


@dataclass(frozen=True)
class StageCost:
    """One stage of a trial: steps, held-out reports, samples a step; if known, seconds a step and of which run."""

    stage: str
    steps: int
    reports: int
    batch_size: int
    seconds_per_step: float | None = None
    run: str | None = None


def own_resources() -> dict[str, float]:
    """Resources of this machine, as Ray detects them."""
    import torch

    return {"CPU": float(available_cores()), "GPU": float(torch.cuda.device_count())}


def stage_costs(sweep: Sweep) -> list[StageCost]:
    """The cost of each stage of a complete trial, with the settings before the search changes them."""
    costs = []
    for stage in sweep.stages:
        job = job_of(sweep, sweep.config, stage, "trials/check")
        steps = OpenRun(job).steps
        reports = math.ceil(steps / job.training.checkpoint_every)
        seconds, run = known_speed(sweep, stage) or (None, None)
        costs.append(StageCost(stage, steps, reports, job.training.batch_size, seconds, run))
    return costs


def known_speed(sweep: Sweep, stage: str) -> tuple[float, str] | None:
    """Seconds of a step of the newest run in the storage with the same sizes, and its name."""
    speeds = []
    for run in find_runs(Storage(sweep.storage)):
        if run.stage != stage or run.status is None or not run.status.seconds_per_step:
            continue
        if _same_size(run.storage.json("settings.json"), sweep, stage):
            speeds.append((run.status.updated, run.status.seconds_per_step, run.name))
    return max(speeds)[1:] if speeds else None


def plan_text(sweep: Sweep, cluster: Mapping[str, float], address: str | None, confirm: int = 0) -> tuple[str, bool]:
    """The plan of a sweep, and whether it can run."""
    allotment: Allotment | None = None
    try:
        allotment = plan_resources(sweep, cluster, available_cores() if address is None else None)
        room = _room_text(allotment, cluster, address)
    except InputError as error:
        room = f"no: {error}"
    costs = stage_costs(sweep)
    budget = sweep.budget
    lines = [
        ("sweep", f"{sweep.run} in {Storage(sweep.storage)}, seed {sweep.seed}"),
        ("goal", f"{_goal_text(sweep)}, held out, of stage {sweep.stage}"),
        *([("requires", " and ".join(map(str, sweep.goal.requires)))] if sweep.goal.requires else []),
        ("search", f"{sweep.search}, scheduler {sweep.scheduler}"),
        ("trials", f"{budget.trials}{'' if allotment is None else f', {allotment.concurrent} at once'}"),
        *([("first", _first_text(len(sweep.points)))] if sweep.points else []),
        *(("a trial" if number == 0 else "", _cost_text(cost)) for number, cost in enumerate(costs)),
        ("cost", _total_text(sweep, costs, allotment)),
        *([("confirm", _confirm_text(confirm, costs, allotment))] if confirm else []),
        *([("ends", f"after {span(budget.seconds)} at the latest")] if budget.seconds else []),
        *([("ends", f"after {budget.gpu_hours:g} GPU (or CPU) hours at the latest")] if budget.gpu_hours else []),
        *([] if budget.stop_at is None else [("ends", f"once {sweep.goal.metric} reaches {budget.stop_at:g}")]),
        ("room", room),
        ("space", f"{len(sweep.space.knobs)} settings (now: as recipe, --config and --set have it)"),
    ]
    table = "\n".join(f"{name:<9}{line}" for name, line in lines)
    return f"{table}\n{_space_text(sweep)}", allotment is not None


def _goal_text(sweep: Sweep) -> str:
    return " and ".join(f"{objective.metric} ({objective.mode})" for objective in sweep.goal.objectives)


def _first_text(count: int) -> str:
    return f"{'trial 0 has' if count == 1 else f'trials 0 to {count - 1} have'} settings of the recipe or --start-from"


def _space_text(sweep: Sweep) -> str:
    now = flatten(sweep.config)
    rows = [(name, _range(knob), f"now {text(now[name])}", knob.reason) for name, knob in sweep.space.knobs.items()]
    return "\n".join(f"  {line}" for line in aligned(rows))


def _range(knob: Knob) -> str:
    if knob.kind == "choice":
        line = f"choice {', '.join(text(value) for value in knob.values)}"
    else:
        line = f"{knob.kind} {text(knob.low)} to {text(knob.high)}"
    line += "" if knob.step is None else f" by {text(knob.step)}"
    when = " and ".join(f"{name} is {' or '.join(map(text, values))}" for name, values in knob.when.items())
    return f"{line} if {when}" if when else line


def _cost_text(cost: StageCost) -> str:
    line = f"{cost.stage}: {cost.steps} steps of {cost.batch_size} samples, {_count(cost.reports, 'report')}"
    if cost.seconds_per_step is None:
        return f"{line}; duration unknown before a first run"
    return f"{line}; about {span(cost.steps * cost.seconds_per_step)} of steps (as fast as {cost.run})"


def _total_text(sweep: Sweep, costs: list[StageCost], allotment: Allotment | None) -> str:
    steps = sweep.budget.trials * sum(cost.steps for cost in costs)
    fewer = {"asha": ", fewer by as many as asha stops", "median": ", fewer by as many as median stops"}
    line = f"at most {steps} steps{fewer.get(sweep.scheduler, '')}"
    seconds = _seconds(costs)
    if seconds is None or allotment is None:
        return line
    kind = "GPU" if allotment.use_gpu else "CPU"
    total = sweep.budget.trials * seconds
    hours, wait = total * allotment.units / 3600, span(total / allotment.concurrent)
    return f"{line}: {hours:.3g} {kind} hours, {wait}, plus some seconds per trial to start"


def _confirm_text(seeds: int, costs: list[StageCost], allotment: Allotment | None) -> str:
    seconds = _seconds(costs)
    line = f"{2 * seeds} more complete runs: the best settings and the recipe's with {seeds} other seeds each"
    if seconds is None or allotment is None:
        return line
    return f"{line}; {span(2 * seeds * seconds / allotment.concurrent)}"


def _room_text(allotment: Allotment, cluster: Mapping[str, float], address: str | None) -> str:
    cpus, gpus = int(cluster.get("CPU", 0)), int(cluster.get("GPU", 0))
    workers = _count(allotment.workers, "worker")
    resources = _count(cpus, "CPU") + (f" and {_count(gpus, 'GPU')}" if gpus else "")
    trials = _count(allotment.concurrent, "trial")
    if allotment.share < 1:
        workers += f" on {allotment.share:g} GPU"
    return f"yes: {trials} of {workers} at once on {resources} of {address or 'this machine'}"


def _seconds(costs: list[StageCost]) -> float | None:
    known = [cost.steps * cost.seconds_per_step for cost in costs if cost.seconds_per_step is not None]
    return sum(known) if len(known) == len(costs) else None


def _same_size(settings: Any, sweep: Sweep, stage: str) -> bool:
    """Whether a run with these settings had the same batch, data and networks."""
    if not isinstance(settings, dict):
        return False
    own = flatten(sweep.config.model_dump(mode="json", include={"data", stage}))
    sizes = [name for name in own if ".training." not in name or name.endswith(".training.batch_size")]
    return all(settings.get(name) == own[name] for name in sizes if name not in sweep.space.knobs)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
