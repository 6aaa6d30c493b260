"""Training of any stage with Ray Train: one driver, one worker loop (pipelines.worker)."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import ray.train
from ray.train.torch import TorchTrainer

from objgan.checkpoint import read_state
from objgan.errors import InputError
from objgan.files import read_json, write_atomically
from objgan.stages import stage_class
from pipelines.jobs import TrainJob, check_folder, claim_folder, finished
from pipelines.progress import Log, watch
from pipelines.session import check_resources
from pipelines.worker import train_worker


class TrainingStopped(RuntimeError):
    """The run stopped for a reason that a retry would only repeat."""


@dataclass(frozen=True)
class Trained:
    """A finished run: its best checkpoint by the stage's held-out objective, and that checkpoint's measures."""

    checkpoint: Path
    step: int
    measures: dict[str, float]


def train(job: TrainJob, log: Log) -> Trained:
    """Train a stage, or go on where the same job was stopped, or return what it left when it is finished.

    Raises:
        InputError: data, settings, checkpoints or resources do not fit; nothing was started.
        TrainingStopped: a loss or gradient was not finite.
    """
    job = _absolute(job)
    check_job(job)
    if done := finished(job.folder):
        log(f"{job.stage}: finished before, at step {done['step']} ({job.folder})")
        return Trained(job.folder / done["checkpoint"], done["step"], done["measures"])
    use_gpu = check_resources(job.config.compute)
    claim_folder(job)
    (job.folder / "failure.json").unlink(missing_ok=True)
    with watch(job.folder / "progress.jsonl", job.stage, log):
        result = _trainer(job, use_gpu).fit()
    _raise_failure(job.folder / "failure.json")
    return _finish(job, result)


def _absolute(job: TrainJob) -> TrainJob:
    """Workers have a working directory of their own."""
    needs = {stage: folder.resolve() for stage, folder in job.needs.items()}
    return replace(job, data=job.data.resolve(), folder=job.folder.resolve(), needs=needs)


def check_job(job: TrainJob) -> None:
    """Find what is wrong with a job before anything starts; needs no Ray.

    Raises:
        InputError: data, settings, the run's folder or earlier checkpoints do not fit.
    """
    check_folder(job)
    training = getattr(job.config, job.stage).training
    workers = job.config.compute.workers
    if training.batch_size % workers:
        raise InputError(
            f"{job.stage}.training.batch_size={training.batch_size} cannot be dealt out to {workers} workers: "
            f"use a multiple"
        )
    least = stage_class(job.stage).least_batch
    if training.batch_size // workers < least:
        raise InputError(
            f"{job.stage}.training.batch_size={training.batch_size} leaves {workers} workers less than {least} samples "
            f"each: use at least {least * workers}"
        )
    job.reader("train")
    job.reader("validation")
    _check_needs(job)


def _check_needs(job: TrainJob) -> None:
    for stage, folder in job.needs.items():
        there = read_state(folder)["stage"]
        if there != stage:
            raise InputError(f"checkpoint: {folder} is of stage {there}, not {stage}")
        theirs = read_json(folder / "domain" / "vocabulary.json", "vocabulary of the checkpoint")
        if theirs != read_json(job.data / "domain" / "vocabulary.json", "vocabulary of the data"):
            raise InputError(f"checkpoint: {folder} was trained on data with another vocabulary than {job.data}")


def _trainer(job: TrainJob, use_gpu: bool) -> TorchTrainer:
    training = getattr(job.config, job.stage).training
    name, mode = stage_class(job.stage).objective
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=ray.train.ScalingConfig(num_workers=job.config.compute.workers, use_gpu=use_gpu),
        run_config=ray.train.RunConfig(
            name=job.folder.name,
            storage_path=str(job.folder.parent),
            failure_config=ray.train.FailureConfig(max_failures=training.max_failures, max_preemption_failures=-1),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=training.keep_checkpoints, checkpoint_score_attribute=name, checkpoint_score_order=mode
            ),
        ),
    )


def _finish(job: TrainJob, result: ray.train.Result) -> Trained:
    """Pick the best checkpoint and say so in `finished.json`, which also marks the run as finished."""
    name, mode = stage_class(job.stage).objective
    sign = 1 if mode == "max" else -1
    scored = [
        (sign * metrics[name], checkpoint, metrics)
        for checkpoint, metrics in result.best_checkpoints
        if name in metrics
    ]
    if not scored and result.checkpoint is None:
        raise RuntimeError(f"stage {job.stage}: the run ended without a checkpoint in {job.folder}")
    _, checkpoint, metrics = max(scored, key=lambda item: item[0]) if scored else (0, result.checkpoint, result.metrics)
    measures = {key: value for key, value in metrics.items() if isinstance(value, float)}
    done = {"checkpoint": Path(checkpoint.path).name, "step": metrics["step"], "measures": measures}
    write_atomically(job.folder / "finished.json", json.dumps(done, indent=1) + "\n")
    return Trained(job.folder / done["checkpoint"], done["step"], measures)


def _raise_failure(path: Path) -> None:
    if path.exists():
        failure = read_json(path, "failure of the run")
        raise (InputError if failure["error"] == "InputError" else TrainingStopped)(failure["text"])
