"""The training loop of one Ray Train worker: it knows nothing of the model, and serves every stage."""

import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from objgan.batch import Batch
from objgan.checkpoint import resume, save_checkpoint
from objgan.config import flatten
from objgan.errors import InputError
from objgan.files import write_atomically
from objgan.stages import build_stage
from objgan.train_state import TrainState
from objgan.training import StepContext, check_finite, step_seed, train_step
from pipelines.jobs import VALIDATION_BATCH, TrainJob
from pipelines.reader import evaluation_batches, loader
from pipelines.tracking import NullTracker

_PICTURED = 4


def train_worker(settings: dict[str, Any]) -> None:
    """Entry point of a worker. A fault that a retry would only repeat is left in `failure.json`, not raised."""
    job: TrainJob = settings["job"]
    try:
        _Loop(job).run()
    except (FloatingPointError, InputError) as error:
        write_atomically(job.folder / "failure.json", json.dumps({"error": type(error).__name__, "text": str(error)}))


class _Loop:
    """State of one worker between steps."""

    def __init__(self, job: TrainJob) -> None:
        context = ray.train.get_context()
        self.job, self.training = job, getattr(job.config, job.stage).training
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        # Ray gives a worker of one CPU one thread; where it is alone on the machine, the other cores would be idle.
        share = (os.cpu_count() or 1) // context.get_local_world_size()
        torch.set_num_threads(job.config.compute.threads or max(1, share))
        # Every worker starts from the same weights: they are a function of the seed, not of the rank.
        torch.manual_seed(step_seed(job.config.seed, 0, -1))
        stage = build_stage(job.stage, job.config, job.domain(), job.helpers())
        self.state = TrainState(stage, self.device)
        self.train_reader, self.validation_reader = job.reader("train"), job.reader("validation")
        self.steps = job.total_steps
        self.context = StepContext(job.config.seed, self.rank, job.steps_per_epoch, self._precision(), self.steps)
        self.tracker = job.tracking.tracker() if self.rank == 0 else NullTracker()
        self.tracker.parameters(flatten(job.config))
        self._restore()

    def run(self) -> None:
        """All steps that are left, with a line every `log_every` and a checkpoint every `checkpoint_every`."""
        interval = _Interval(self.training.batch_size)
        batches = self._batches()
        while self.state.step < self.steps:
            with interval.waiting():
                batch = next(batches).to(self.device, non_blocking=True)
            interval.add(train_step(self.state, batch, self.context))
            step, last = self.state.step, self.state.step == self.steps
            if step % self.training.log_every == 0 or last:
                self._log(interval)
            if step % self.training.picture_every == 0 or last:
                self._pictures()
            if step % self.training.checkpoint_every == 0 or last:
                self._checkpoint()
                interval.restart()

    def _batches(self) -> Iterator[Batch]:
        return loader(
            self.train_reader,
            self.training.batch_size,
            seed=self.job.config.seed,
            start=self.state.step,
            stop=self.steps,
            rank=self.rank,
            world=self.world,
        )

    def _precision(self) -> torch.dtype:
        wanted = self.job.config.compute.precision
        automatic = wanted == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if wanted == "bfloat16" or automatic else torch.float32

    def _restore(self) -> None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            resume(Path(folder), self.state)
        self._tell({"resumed": self.state.step})

    def _log(self, interval: "_Interval") -> None:
        values = interval.finish()
        for name, value in values.items():
            if "/" in name:
                check_finite(self.state, {name: torch.tensor(value)})
        self._tell({"step": self.state.step, "steps": self.steps, "values": values})
        if self.rank == 0:
            self.tracker.metrics(values, self.state.step)

    def _checkpoint(self) -> None:
        measures = self._validate()
        if self.rank == 0:
            self.tracker.metrics({f"validation/{k}": v for k, v in measures.items()}, self.state.step)
        self._tell({"step": self.state.step, "steps": self.steps, "measures": measures})
        report = {"step": self.state.step, **measures}
        name = f"step_{self.state.step:08d}"
        if self.rank == 0:
            with tempfile.TemporaryDirectory() as aside:
                save_checkpoint(Path(aside) / name, self.state, {"measures": measures})
                checkpoint = ray.train.Checkpoint.from_directory(Path(aside) / name)
                ray.train.report(report, checkpoint=checkpoint, checkpoint_dir_name=name)
        else:
            ray.train.report(report, checkpoint_dir_name=name)
        # report() returns before the controller has the checkpoint: a death right now would lose it.
        ray.train.get_all_reported_checkpoints(consistency_mode=ray.train.CheckpointConsistencyMode.COMMITTED)

    def _validate(self) -> dict[str, float]:
        """Held-out measures, batches dealt out over the workers; a batch's noise depends on its number alone."""
        values: dict[str, list[float]] = {}
        batches = evaluation_batches(
            self.validation_reader, VALIDATION_BATCH, self.job.config.seed, self.training.validation_samples
        )
        with torch.no_grad(), self.state.evaluation() as stage:
            for number, batch in enumerate(batches):
                if number % self.world == self.rank:
                    torch.manual_seed(step_seed(self.job.config.seed, number, -2))
                    for name, value in stage.measure(batch.to(self.device)).items():
                        values.setdefault(name, []).extend(value.float().tolist())
        return _mean(_gather(values))

    def _pictures(self) -> None:
        if self.rank != 0:
            return
        batch = next(iter(evaluation_batches(self.validation_reader, _PICTURED, self.job.config.seed, _PICTURED)))
        with torch.no_grad(), self.state.evaluation() as stage:
            torch.manual_seed(step_seed(self.job.config.seed, 0, -3))
            pictures = stage.pictures(batch.to(self.device))
        folder = self.job.folder / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in pictures.items():
            image.save(folder / f"{name}_{self.state.step:07d}.png")
            self.tracker.picture(name, image, self.state.step)

    def _tell(self, line: dict[str, Any]) -> None:
        """One line for whoever watches the run."""
        if self.rank == 0:
            with (self.job.folder / "progress.jsonl").open("a") as file:
                file.write(json.dumps({"time": time.time(), **line}) + "\n")


class _Interval:
    """Means over the steps since the last log line, kept on the device until then."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._steps, self._waited, self._began = 0, 0.0, time.perf_counter()

    def waiting(self) -> "_Interval":
        return self

    def __enter__(self) -> None:
        self._since = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._waited += time.perf_counter() - self._since

    def add(self, metrics: dict[str, torch.Tensor]) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._steps += 1

    def finish(self) -> dict[str, float]:
        values = {name: (total / self._counts[name]).item() for name, total in self._sums.items()}
        seconds = max(time.perf_counter() - self._began, 1e-9)
        values["seconds_per_step"] = seconds / max(self._steps, 1)
        values["samples_per_s"] = self._steps * self._batch_size / seconds
        values["data_wait_share"] = self._waited / seconds
        self.restart()
        return values


def _gather(values: dict[str, list[float]]) -> dict[str, list[float]]:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, values)
    return {name: [v for part in parts for v in part.get(name, [])] for name in sorted({n for p in parts for n in p})}


def _mean(values: dict[str, list[float]]) -> dict[str, float]:
    """Mean of what applies (NaN: does not); a measure that applied nowhere is left out."""
    kept = {name: [v for v in row if not math.isnan(v)] for name, row in values.items()}
    return {name: sum(row) / len(row) for name, row in kept.items() if row}
