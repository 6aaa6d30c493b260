"""Training of any stage with Ray Train: one driver, one worker loop (pipelines.training.worker)."""

import contextlib
import errno
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback  # it has no public name

from objgan.errors import InputError
from objgan.sections import ComputeConfig
from pipelines.runs.status import LiveStatus, RunStatus, ended_as, one_line
from pipelines.runtime.console import ProgressView
from pipelines.runtime.events import Listener, Recorder
from pipelines.runtime.prometheus import RunMetrics
from pipelines.runtime.ray_session import check_resources
from pipelines.runtime.worker_starts import on_own_node
from pipelines.storage.checkpoints import FINISHED, finished_checkpoint
from pipelines.storage.lease import Lease, LeaseLost
from pipelines.storage.retry import StorageRefused, Work, only_logged
from pipelines.storage.storage import Storage
from pipelines.tracking.tracker import Tracking
from pipelines.training.coordinator import RunCoordinator, RunEvents
from pipelines.training.draining import OwnNode
from pipelines.training.job import OpenRun, TrainJob, check_folder, claim_folder
from pipelines.training.supervisor import (
    GRACE_S,
    INTERRUPTED,
    Controlled,
    FailureReports,
    Preempted,
    ReportListener,
    Supervisor,
    abandon,
)
from pipelines.training.worker import WorkerArgs, train_worker

logger = logging.getLogger(__name__)
_RAY = ".ray"
_MEETING_S = 600
"""Seconds that a worker waits for the others within a step."""
_TIDY_S = 5.0


class TrainingStopped(RuntimeError):
    """The run stopped for a reason that a retry would only repeat."""


@dataclass(frozen=True)
class Trained:
    """A finished run: its best checkpoint by the stage's held-out objective, and that checkpoint's measures."""

    checkpoint: Path
    step: int
    measures: dict[str, float]


def train(
    run: OpenRun, lease: Lease | None = None, listener: ReportListener | None = None, tracking: Tracking | None = None
) -> Trained:
    """Train a stage, resume the same job, or return the result of a finished run.

    Args:
        run: from `open_run`, which checks the job
        lease: the caller's lease of the run; None: it is acquired here
        listener: receives events during training, and may request a stop
        tracking: the MLflow run to report to

    Raises:
        InputError: the resources do not fit, another driver holds the run, or it has become a run of something else;
            nothing was started.
        TrainingStopped: too many losses or gradients were not finite.
        Preempted: a stop was requested; a checkpoint is written.
        Stalled: no progress for too long.
        OSError: no space left; the last good checkpoint exists.
    """
    job, store = run.job, run.store
    check_folder(run)  # the run of another command may have begun and finished here since `open_run`
    if done := _finished(run):
        logger.info(f"{job.stage}: finished before, at step {done.step} ({store})")
        return done
    use_gpu = check_resources(job.config.compute)
    with contextlib.nullcontext(lease) if lease is not None else Lease.acquire(store) as held:
        claim_folder(run)
        run.checkpoints.clean()
        tracking = tracking or Tracking()
        status = _live_status(job, held, tracking)
        try:
            with Work() as work:
                done = _train(run, use_gpu, _Driver(held, status, listener, tracking), work)
        except BaseException as error:
            if not held.lost.is_set():  # the status is the other driver's now
                _note_end(status, error)
            raise
        status.end("finished")
        return done


@dataclass(frozen=True)
class _Driver:
    """What a driver holds and reports to."""

    lease: Lease
    status: LiveStatus
    listener: ReportListener | None
    tracking: Tracking


def _train(run: OpenRun, use_gpu: bool, driver: _Driver, work: Work) -> Trained:
    """Have the workers train, and pick the best checkpoint.

    Raises:
        Preempted: it was asked to stop before the last step.
    """
    store = driver.lease.storage
    try:
        reason = _supervise(run.job, use_gpu, driver, work)
    finally:
        # Nobody needs what Ray Train left there. Where another driver holds the run now, it is that driver's.
        if not driver.lease.lost.is_set():
            with only_logged(f"cannot remove {store}/{_RAY}; `runs gc` does later"):
                store.patient(_TIDY_S).delete(_RAY)
    if reason is not None and (step := _step_of(run)) < run.steps:
        text = f"{run.job.stage}: {reason}; checkpoint at step {step} in {store}"
        raise Preempted(text, reason, 130 if reason == INTERRUPTED else 143)
    return _finish(run)


def _supervise(job: TrainJob, use_gpu: bool, driver: _Driver, work: Work) -> str | None:
    coordinator, view = on_own_node(RunCoordinator), ProgressView(job.stage)
    lease, listener, last = driver.lease, driver.listener, driver.status.status.checkpoint
    metrics = RunMetrics(job.run, job.stage, job.training.batch_size, None if last is None else last.time)
    listeners: list[Listener] = [driver.status, metrics.take, view.show]
    if lease.storage.local is not None:
        listeners.append(Recorder(lease.storage.local / "progress.jsonl"))
    if listener is not None:
        listeners.append(listener.event)
    # A sweep starts its trials again on another machine; nobody does so with the driver of a run.
    wish = OwnNode().wish if listener is None else listener.wish
    watch = Supervisor(coordinator, job.config.compute, lease.lost, listeners, wish, metrics.tick)
    try:
        worker_args = WorkerArgs(_absolute(job), coordinator, lease.token, driver.tracking)
        reason = watch.run(_trainer(worker_args, use_gpu, lease.storage).fit)
    except Exception:
        if listener is not None:  # a trial of a sweep, whose process lives on
            abandon(coordinator)
        raise
    finally:
        work.advanced = watch.latest.advanced
        view.close()
        ray.kill(coordinator)
    _raise_failure(watch.latest, lease.storage)
    return reason


def _live_status(job: TrainJob, lease: Lease, tracking: Tracking) -> LiveStatus:
    """The status of this command, which begins with the checkpoint that an earlier one left."""
    before = None
    with contextlib.suppress(InputError):
        before = RunStatus.load(lease.storage)
    status = RunStatus("running", job.stage, mlflow_run=tracking.run, command=lease.info.command)
    if before is not None:
        status = replace(status, step=before.step, steps=before.steps, checkpoint=before.checkpoint)
    return LiveStatus(lease.storage, status)


def _absolute(job: TrainJob) -> TrainJob:
    """The job with absolute paths: workers have their own working directory."""
    needs = {stage: folder.resolve() for stage, folder in job.needs.items()}
    init_from = None if job.init_from is None else job.init_from.resolve()
    data = job.data.resolve() if isinstance(job.data, Path) else job.data
    return replace(job, data=data, folder=job.folder.resolve(), needs=needs, init_from=init_from)


class _Trainer(TorchTrainer):
    """A trainer without the actor that splits Ray Data sets between workers: ours read the shards themselves."""

    def _create_default_callbacks(self) -> list[Any]:
        return [call for call in super()._create_default_callbacks() if not isinstance(call, DatasetsCallback)]


def _trainer(worker_args: WorkerArgs, use_gpu: bool, store: Storage) -> TorchTrainer:
    compute, training = worker_args.job.config.compute, worker_args.job.training
    workers = compute.workers if compute.max_workers is None else (compute.workers, compute.max_workers)
    place = store.child(_RAY)
    return _Trainer(
        train_worker,
        train_loop_config={"worker_args": worker_args},
        torch_config=TorchConfig(timeout_s=_MEETING_S),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=use_gpu,
            resources_per_worker=worker_resources(compute, use_gpu),
            elastic_resize_monitor_interval_s=compute.resize_every,
        ),
        run_config=ray.train.RunConfig(
            # A new name each time: checkpoints are ours, and Ray Train would go on with what an older driver left.
            name=worker_args.token,
            storage_path=place.path,
            storage_filesystem=None if store.local else place.filesystem,
            callbacks=[FailureReports(worker_args.coordinator), Controlled(worker_args.coordinator)],
            failure_config=ray.train.FailureConfig(
                max_failures=training.max_failures,
                max_preemption_failures=-1,
                # The first worker alone writes the checkpoint. It needs no worker that is gone to commit it, and may
                # still write when the machine that was announced is gone.
                relax_collectives_on_preemption=True,
                preemption_grace_s=GRACE_S,
            ),
        ),
    )


def worker_resources(compute: ComputeConfig, use_gpu: bool) -> dict[str, float] | None:
    """What Ray reserves for a worker; None: a whole GPU, or a CPU."""
    return {"GPU": compute.gpus_per_worker} if use_gpu and compute.gpus_per_worker < 1 else None


def _finish(run: OpenRun) -> Trained:
    """Record the best checkpoint in `finished.json`, which also marks the run as finished."""
    newest, best = run.checkpoints.newest(), run.checkpoints.best()
    if newest is None:
        raise RuntimeError(f"stage {run.job.stage}: the run ended without a checkpoint in {run.store}")
    name, measures = best or (newest[0], {})
    done = {"checkpoint": name, "step": int(name.rsplit("_", 1)[-1]), "measures": measures}
    run.store.write(FINISHED, json.dumps(done, indent=1) + "\n")
    trained = _finished(run)
    assert trained is not None
    return trained


def _finished(run: OpenRun) -> Trained | None:
    """The result of a finished run; its checkpoint is downloaded if it is in an object store."""
    done = finished_checkpoint(run.store)
    if done is None:
        return None
    name, step, measures = done
    return Trained(run.store.download(name, run.job.folder.resolve() / name), step, measures)


def _step_of(run: OpenRun) -> int:
    newest = run.checkpoints.newest()
    return 0 if newest is None else int(newest[0].rsplit("_", 1)[-1])


def _note_end(status: LiveStatus, error: BaseException) -> None:
    """The last word in `status.json` of a run that did not finish. It is never an error itself."""
    if isinstance(error, Preempted):
        status.end("preempted", reason=error.reason)
        return
    # Terminated a second time: nothing of the last steps was kept.
    state, reason = ended_as(error, terminated="stopped")
    status.end(state, one_line(error, state), reason)


def _raise_failure(latest: RunEvents, store: Storage) -> None:
    failure = latest.failure
    if failure is None:
        return
    if failure.number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise OSError(failure.number, failure.text, str(store))
    known = {one.__name__: one for one in (StorageRefused, LeaseLost)} | {"FloatingPointError": TrainingStopped}
    raise known.get(failure.kind, InputError)(failure.text)
