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
from tune.report.tables import text
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


def here() -> dict[str, float]:
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
    found = []
    for seen in find_runs(Storage(sweep.storage)):
        if seen.stage != stage or seen.status is None or not seen.status.seconds_per_step:
            continue
        if _same_size(seen.storage.json("settings.json"), sweep, stage):
            found.append((seen.status.updated, seen.status.seconds_per_step, seen.name))
    return max(found)[1:] if found else None


def plan_text(sweep: Sweep, cluster: Mapping[str, float], address: str | None, confirm: int = 0) -> tuple[str, bool]:
    """The plan of a sweep, and whether it can run."""
    local = address is None
    room: Allotment | None = None
    try:
        planned = room = plan_resources(sweep, cluster, available_cores() if local else None)
        said = _room_text(planned, cluster, address)
    except InputError as error:
        said = f"no: {error}"
    costs = stage_costs(sweep)
    budget = sweep.budget
    lines = [
        ("sweep", f"{sweep.run} in {Storage(sweep.storage)}, seed {sweep.seed}"),
        ("goal", f"{sweep.goal.metric} ({sweep.goal.mode}), held out, of stage {sweep.stage}"),
        ("search", f"{sweep.search}, scheduler {sweep.scheduler}"),
        ("trials", _trials_text(sweep, room)),
        *(("a trial" if number == 0 else "", _cost_text(cost)) for number, cost in enumerate(costs)),
        ("cost", _total_text(sweep, costs, room)),
        *([("confirm", _confirm_text(confirm, costs, room))] if confirm else []),
        *([("ends", f"after {span(budget.seconds)} at the latest")] if budget.seconds else []),
        *([("ends", f"after {budget.gpu_hours:g} GPU (or CPU) hours at the latest")] if budget.gpu_hours else []),
        ("room", said),
        ("space", f"{len(sweep.space.knobs)} settings (now: as recipe, --config and --set have it)"),
    ]
    table = "\n".join(f"{name:<9}{what}" for name, what in lines)
    return f"{table}\n{_space_text(sweep)}", room is not None


def _space_text(sweep: Sweep) -> str:
    now = flatten(sweep.config)
    rows = [(name, _range(knob), f"now {text(now[name])}", knob.reason) for name, knob in sweep.space.knobs.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )


def _range(knob: Knob) -> str:
    if knob.kind == "choice":
        return f"choice {', '.join(text(value) for value in knob.values)}"
    return f"{knob.kind} {text(knob.low)} to {text(knob.high)}"


def _trials_text(sweep: Sweep, room: Allotment | None) -> str:
    return f"{sweep.budget.trials}{'' if room is None else f', {room.concurrent} at once'}"


def _cost_text(cost: StageCost) -> str:
    said = f"{cost.stage}: {cost.steps} steps of {cost.batch_size} samples, {_count(cost.reports, 'report')}"
    if cost.seconds_per_step is None:
        return f"{said}; duration unknown before a first run"
    return f"{said}; about {span(cost.steps * cost.seconds_per_step)} of steps (as fast as {cost.run})"


def _total_text(sweep: Sweep, costs: list[StageCost], room: Allotment | None) -> str:
    steps = sweep.budget.trials * sum(cost.steps for cost in costs)
    fewer = {"asha": ", fewer by as many as asha stops", "median": ", fewer by as many as median stops"}
    said = f"at most {steps} steps{fewer.get(sweep.scheduler, '')}"
    seconds = _seconds(costs)
    if seconds is None or room is None:
        return said
    kind = "GPU" if room.use_gpu else "CPU"
    total = sweep.budget.trials * seconds
    hours = total * room.workers / 3600
    return f"{said}: {hours:.3g} {kind} hours, {span(total / room.concurrent)}, plus some seconds per trial to start"


def _confirm_text(seeds: int, costs: list[StageCost], room: Allotment | None) -> str:
    seconds = _seconds(costs)
    said = f"{2 * seeds} more complete runs: the best settings and the recipe's with {seeds} other seeds each"
    return said if seconds is None or room is None else f"{said}; {span(2 * seeds * seconds / room.concurrent)}"


def _room_text(room: Allotment, cluster: Mapping[str, float], address: str | None) -> str:
    where = "this machine" if address is None else address
    cpus, gpus = int(cluster.get("CPU", 0)), int(cluster.get("GPU", 0))
    workers = _count(room.workers, "worker")
    there = _count(cpus, "CPU") + (f" and {_count(gpus, 'GPU')}" if gpus else "")
    return f"yes: {_count(room.concurrent, 'trial')} of {workers} at once on {there} of {where}"


def _seconds(costs: list[StageCost]) -> float | None:
    known = [cost.steps * cost.seconds_per_step for cost in costs if cost.seconds_per_step is not None]
    return sum(known) if len(known) == len(costs) else None


def _same_size(theirs: Any, sweep: Sweep, stage: str) -> bool:
    """Whether a run had the same batch, data and networks."""
    if not isinstance(theirs, dict):
        return False
    searched = set(sweep.space.knobs)
    ours = flatten(sweep.config.model_dump(mode="json", include={"data", stage}))
    sizes = [name for name in ours if ".training." not in name or name.endswith(".training.batch_size")]
    return all(theirs.get(name) == ours[name] for name in sizes if name not in searched)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
