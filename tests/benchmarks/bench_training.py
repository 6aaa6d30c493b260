"""Training with Ray as a whole: two workers of one thread against one of two; what starting and losing one costs."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from objgan.config import Config
from objgan.train_state import TrainState
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.sample import make_sample
from pipelines.recipes import resolve
from pipelines.runtime.ray_session import ray_session
from pipelines.training.driver import train
from pipelines.training.job import OpenRun, TrainJob, open_run
from pipelines.workflow.run import sample_source
from tests.benchmarks.measure import Measurement
from tests.tools.training import kill_a_worker_after, lines

IMAGES, ROUNDS = 200, 3
TINY = ("encoders.training.steps=2", "encoders.training.checkpoint_every=2", "encoders.training.picture_every=2")


def bench_workers(scratch: Path) -> Iterator[Measurement]:
    """Samples a second of stage `images`, recipe `tiny` in groups of 4: both forms in turn, medians of log intervals.

    Goal: two workers reach at least 0.9 of one process with two threads.
    """
    rates: dict[str, list[float]] = {"1 worker, 2 threads": [], "2 workers, 1 thread": []}
    with ray_session():
        job = _images_job(scratch)
        for number in range(ROUNDS):
            for name, workers, threads in (("1 worker, 2 threads", 1, 2), ("2 workers, 1 thread", 2, 1)):
                changed = _compute(job.config, workers=workers, threads=threads)
                folder = scratch / f"{workers}-{number}"
                train(open_run(replace(job, config=changed, folder=folder)))
                told = [line["values"]["samples_per_s"] for line in lines(folder) if "values" in line]
                rates[name] += told[1:]
    one = statistics.median(rates["1 worker, 2 threads"])
    for name, found in rates.items():
        middle = statistics.median(found)
        yield Measurement(
            f"images, tiny: {name}",
            8 / middle,
            8 / max(found),
            len(found),
            8,
            "samples",
            note=f"{middle / one:.2f} of 1",
        )


def bench_overheads(scratch: Path) -> Iterator[Measurement]:
    """From the call to the first step; a checkpoint; from a worker's death to the next step."""
    with ray_session():
        job = _images_job(scratch)
        starts, deaths, commits = [], [], []
        for number in range(ROUNDS):
            folder = scratch / f"run-{number}"
            killer = kill_a_worker_after(folder, 10)
            began = time.time()
            train(open_run(replace(job, config=_compute(job.config, workers=1, threads=2), folder=folder)))
            killer.join(1)
            told = lines(folder)
            steps = [line for line in told if "values" in line]
            starts.append(steps[0]["time"] - began - steps[0]["values"]["seconds_per_step"])
            died = next(line["time"] for line in told if "failed" in line)
            deaths.append(next(line["time"] for line in steps if line["time"] > died) - died)
            commits += [line["seconds"] for line in told if "checkpoint" in line and "seconds" in line]
    for name, found in (
        ("start to first step", starts),
        ("a worker's death to the next step", deaths),
        ("a checkpoint, beside training", commits),
    ):
        yield Measurement(f"images, tiny: {name}", statistics.median(found), min(found), len(found), 1, "times")


def _images_job(scratch: Path) -> TrainJob:
    """Stage `images` on the drawn sample, 40 steps, behind untrained encoders."""
    from objgan.checkpoint import save_checkpoint

    settings = [*TINY, "images.training.group=4", "images.training.steps=40", "images.training.checkpoint_every=10"]
    settings += [
        "images.training.picture_every=40",
        "images.training.log_every=5",
        "images.training.validation_samples=4",
    ]
    config = resolve("tiny", None, settings)
    make_sample(scratch / "coco", IMAGES, 0)
    prepare(sample_source(scratch / "coco"), scratch / "data", config, run_here)
    first = TrainJob("encoders", config, scratch / "data", scratch / "encoders")
    save_checkpoint(scratch / "encoders", TrainState(OpenRun(first).new_stage()))
    return TrainJob("images", config, scratch / "data", scratch / "images", {"encoders": scratch / "encoders"})


def _compute(config: Config, **changes: int) -> Config:
    return config.model_copy(update={"compute": config.compute.model_copy(update=changes)})
