"""One optimiser step of every stage with the recipe `tiny`, on drawn pictures: what `make demo` is made of."""

from collections.abc import Iterator
from pathlib import Path

import torch

from objgan.checkpoint import save_checkpoint
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step
from pipelines.data.loading.batch_plan import BatchPlan
from pipelines.data.loading.reader import loader
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.sample import make_sample
from pipelines.recipes import resolve
from pipelines.training.job import OpenRun, TrainJob, needed_stages
from pipelines.workflow.run import sample_source
from tests.benchmarks.measure import Measurement, time_calls

IMAGES = 120


def bench_steps(scratch: Path) -> Iterator[Measurement]:
    """Forward, all phases, moving average; the batch is read beforehand."""
    config = resolve("tiny", None, [])
    make_sample(scratch / "coco", IMAGES, 0)
    prepare(sample_source(scratch / "coco"), scratch / "data", config, run_here)
    checkpoints: dict[str, Path] = {}
    for name in ("encoders", "boxes", "shapes", "images"):
        needs = {stage: checkpoints[stage] for stage in needed_stages(config, name)}
        run = OpenRun(TrainJob(name, config, scratch / "data", scratch / name, needs))
        torch.manual_seed(0)
        state = TrainState(run.new_stage())
        save_checkpoint(scratch / name, state)
        checkpoints[name] = scratch / name
        training = getattr(config, name).training
        size = training.batch_size
        parts = next(loader(run.reader("train"), BatchPlan(size, 0, 0, 1, groups=training.groups)))
        context = StepContext(seed=0)
        yield time_calls(
            f"{name}: a step of {size} samples",
            lambda state=state, parts=parts, context=context: train_step(state, parts, context),
            size,
            "samples",
        )
