"""`train STAGE --profile`: a few steps under torch's profiler, in this process, without touching the run."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from objgan.batch import Part
from objgan.runtime import autocast_dtype, prepare_networks
from objgan.train_state import TrainState
from objgan.training import StepContext, step_seed, train_step
from pipelines.data.loading.reader import loader
from pipelines.training.job import OpenRun

logger = logging.getLogger(__name__)
WARM_UP, STEPS, ROWS = 2, 3, 10


def profile_steps(run: OpenRun, trace: Path) -> str:
    """A table of the `ROWS` most expensive operations of `STEPS` training steps.

    trace: file to write, for chrome://tracing or https://ui.perfetto.dev
    """
    job, compute = run.job, run.job.config.compute
    device = torch.device("cuda" if compute.device != "cpu" and torch.cuda.is_available() else "cpu")
    if compute.threads:
        torch.set_num_threads(compute.threads)
    torch.manual_seed(step_seed(job.config.seed, 0, -1))
    stage = run.new_stage()
    prepare_networks(stage, compute, device)
    state = TrainState(stage, device)
    context = StepContext(job.config.seed, job.training.groups, precision=autocast_dtype(compute, device))
    parts = _parts(run, device)
    for _ in range(WARM_UP):
        train_step(state, next(parts), context)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    logger.info(f"{job.stage}: {STEPS} steps of {job.training.batch_size} samples on {device.type} under the profiler")
    with profile(activities=kinds) as profiler:
        for _ in range(STEPS):
            with record_function("data"):
                batch = next(parts)
            with record_function("step"):
                train_step(state, batch, context)
    trace.parent.mkdir(parents=True, exist_ok=True)
    aside = trace.with_name(f".{trace.name}")
    profiler.export_chrome_trace(str(aside))
    aside.replace(trace)
    by = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return str(profiler.key_averages().table(sort_by=by, row_limit=ROWS, max_name_column_width=44))


def _parts(run: OpenRun, device: torch.device) -> Iterator[list[Part]]:
    reader = run.reader("train")
    order = replace(run.job.plan(len(reader), 0), stop=WARM_UP + STEPS)
    for parts in loader(reader, order):
        yield [Part(part.group, part.batch.to(device, non_blocking=True)) for part in parts]
