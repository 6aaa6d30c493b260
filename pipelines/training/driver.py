"""Training of any stage with Ray Train: one driver, one worker loop (pipelines.training.worker)."""

import contextlib
import errno
import json
from dataclasses import dataclass, replace
from pathlib import Path

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from objgan.checkpoint import read_state
from objgan.config import Config
from objgan.errors import InputError
from objgan.files import read_json
from objgan.sections import TrainingConfig
from objgan.stages import stage_class
from pipelines.runs.status import LiveStatus, RunStatus, ended_as, one_line
from pipelines.runtime.console import Log, ProgressView
from pipelines.runtime.events import Listener, Recorder
from pipelines.runtime.prometheus import RunMetrics
from pipelines.runtime.ray_session import check_resources
from pipelines.storage.checkpoints import FINISHED, finished_checkpoint
from pipelines.storage.lease import Lease, LeaseLost
from pipelines.storage.retry import StorageRefused, Work, only_logged
from pipelines.storage.storage import Storage
from pipelines.training.draining import OwnNode
from pipelines.training.job import TrainJob, check_folder, claim_folder
from pipelines.training.supervisor import (
    GRACE_S,
    INTERRUPTED,
    Controlled,
    FailureReports,
    Preempted,
    ReportListener,
    RunEvents,
    Supervisor,
    abandon,
    make_coordinator,
)
from pipelines.training.worker import WorkerArgs, train_worker

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


def train(job: TrainJob, log: Log, lease: Lease | None = None, listener: ReportListener | None = None) -> Trained:
    """Train a stage, or go on where the same job was stopped, or return what it left when it is finished.

    lease:   under which the caller holds the run; None: it is taken here
    watcher: looks on while steps are done, and may ask for an end

    Raises:
        InputError: data, settings, checkpoints or resources do not fit; nothing was started. Or another driver holds
            the run.
        TrainingStopped: too many losses or gradients were not finite.
        Preempted: it was asked to stop, and left a checkpoint.
        Stalled: nothing happened for too long.
        OSError: no space left; the last good checkpoint is there.
    """
    job = _absolute(job)
    check_job(job)
    store = job.store()
    if done := _finished(job, store):
        log(f"{job.stage}: finished before, at step {done.step} ({store})")
        return done
    use_gpu = check_resources(job.config.compute)
    with contextlib.nullcontext(lease) if lease is not None else Lease.acquire(store, log=log) as held:
        claim_folder(job)
        job.checkpoints(log).clean()
        status = _live_status(job, held, log)
        try:
            with Work() as work:
                done = _train(job, use_gpu, _Driver(held, status, log, listener), work)
        except BaseException as error:
            if not held.lost.is_set():  # the status is the other driver's now
                _note_end(status, error)
            raise
        status.end("finished")
        return done


@dataclass(frozen=True)
class _Driver:
    """What a driver holds and listens with."""

    lease: Lease
    status: LiveStatus
    log: Log
    listener: ReportListener | None


def _train(job: TrainJob, use_gpu: bool, driver: _Driver, work: Work) -> Trained:
    """Have the workers train, and pick the best checkpoint.

    Raises:
        Preempted: it was asked to stop before the last step.
    """
    store = driver.lease.storage
    try:
        reason = _supervise(job, use_gpu, driver, work)
    finally:
        # Nobody needs what Ray Train left there. Where another driver holds the run now, it is that driver's.
        if not driver.lease.lost.is_set():
            with only_logged(f"cannot remove {store}/{_RAY}; `runs gc` does later", driver.log):
                store.patient(_TIDY_S, log=lambda text: None).delete(_RAY)
    if reason is not None and _step_of(job) < _total(job):
        text = f"{job.stage}: {reason}; checkpoint at step {_step_of(job)} in {store}"
        raise Preempted(text, reason, 130 if reason == INTERRUPTED else 143)
    return _finish(job, store)


def _supervise(job: TrainJob, use_gpu: bool, driver: _Driver, work: Work) -> str | None:
    coordinator, view = make_coordinator(), ProgressView(job.stage, driver.log)
    lease, listener, last = driver.lease, driver.listener, driver.status.status.checkpoint
    metrics = RunMetrics(job.run, job.stage, job.training.batch_size, None if last is None else last.time)
    listeners: list[Listener] = [driver.status, metrics.take, view.show]
    if lease.storage.local is not None:
        listeners.append(Recorder(lease.storage.local / "progress.jsonl", driver.log))
    if listener is not None:
        listeners.append(listener.event)
    # A sweep starts its trials again on another machine; nobody does so with the driver of a run.
    wish = OwnNode().wish if listener is None else listener.wish
    watch = Supervisor(coordinator, job.config.compute, lease.lost, listeners, wish, metrics.tick)
    try:
        reason = watch.run(_trainer(WorkerArgs(job, coordinator, lease.token), use_gpu, lease.storage).fit)
    except Exception:
        if listener is not None:  # a trial of a sweep, whose process lives on
            abandon(coordinator)
        raise
    finally:
        work.advanced = watch.latest.advanced
        view.close()
        ray.kill(coordinator)
    _raise_failure(watch.latest, job)
    return reason


def _live_status(job: TrainJob, lease: Lease, log: Log) -> LiveStatus:
    """The status of this command, which begins with the checkpoint that an earlier one left."""
    before = None
    with contextlib.suppress(InputError):
        before = RunStatus.load(lease.storage)
    status = RunStatus("running", job.stage, mlflow_run=job.tracking.run, command=lease.info.command)
    if before is not None:
        status = replace(status, step=before.step, steps=before.steps, checkpoint=before.checkpoint)
    return LiveStatus(lease.storage, status, lambda text: log(f"{job.stage}: {text}"))


def _absolute(job: TrainJob) -> TrainJob:
    """Workers have a working directory of their own."""
    needs = {stage: folder.resolve() for stage, folder in job.needs.items()}
    init_from = None if job.init_from is None else job.init_from.resolve()
    data = job.data.resolve() if isinstance(job.data, Path) else job.data
    return replace(job, data=data, folder=job.folder.resolve(), needs=needs, init_from=init_from)


def check_job(job: TrainJob) -> None:
    """Find what is wrong with a job before anything starts; needs no Ray.

    Raises:
        InputError: data, settings, the run's place or earlier checkpoints do not fit.
    """
    check_groups(job.config, job.stage)
    check_folder(job)
    job.open_data().check_room(job.window)
    job.reader("train")
    job.reader("validation")
    _check_checkpoints(job)


def check_groups(config: Config, stage: str) -> None:
    """See that a stage's batch has groups enough for the workers, and large enough ones.

    Raises:
        InputError: it does not; it says what would.
    """
    training: TrainingConfig = getattr(config, stage).training
    name, least = f"{stage}.training", stage_class(stage).least_batch
    workers, size = config.compute.most_workers, training.batch_size // training.groups
    if workers > training.groups:
        fitting = [
            n for n in range(least, size + 1) if training.batch_size % n == 0 and training.batch_size // n >= workers
        ]
        way = (
            f"--set {name}.group={max(fitting)}"
            if fitting
            else f"--set {name}.batch_size={2 * least * workers} and a group"
        )
        raise InputError(
            f"{name}: {workers} workers share {training.groups} group{'s' if training.groups > 1 else ''} of {size} "
            f"samples, and a group is never divided: use fewer workers, or {way} (which changes what is learned, "
            f"whatever the number of workers)"
        )
    if size < least:
        raise InputError(f"{name}.group={size} is under {least}, the fewest samples that stage {stage} compares")


def _check_checkpoints(job: TrainJob) -> None:
    data = job.open_data()
    vocabulary = read_json(data.domain() / "vocabulary.json", "vocabulary of the data")
    given = dict(job.needs) | ({} if job.init_from is None else {job.stage: job.init_from})
    for stage, folder in given.items():
        there = read_state(folder)["stage"]
        if there != stage:
            raise InputError(f"checkpoint: {folder} is of stage {there}, not {stage}")
        if vocabulary != read_json(folder / "domain" / "vocabulary.json", "vocabulary of the checkpoint"):
            raise InputError(f"checkpoint: {folder} was trained on data with another vocabulary than {data}")


def _trainer(worker_args: WorkerArgs, use_gpu: bool, store: Storage) -> TorchTrainer:
    compute, training = worker_args.job.config.compute, worker_args.job.training
    workers = compute.workers if compute.max_workers is None else (compute.workers, compute.max_workers)
    place = store.child(_RAY)
    return TorchTrainer(
        train_worker,
        train_loop_config={"worker_args": worker_args},
        torch_config=TorchConfig(timeout_s=_MEETING_S),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=use_gpu, elastic_resize_monitor_interval_s=compute.resize_every
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


def _finish(job: TrainJob, store: Storage) -> Trained:
    """Pick the best checkpoint and say so in `finished.json`, which also marks the run as finished."""
    checkpoints = job.checkpoints()
    newest, best = checkpoints.newest(), checkpoints.best()
    if newest is None:
        raise RuntimeError(f"stage {job.stage}: the run ended without a checkpoint in {store}")
    name, measures = best or (newest[0], {})
    done = {"checkpoint": name, "step": int(name.rsplit("_", 1)[-1]), "measures": measures}
    store.write(FINISHED, json.dumps(done, indent=1) + "\n")
    found = _finished(job, store)
    assert found is not None
    return found


def _finished(job: TrainJob, store: Storage) -> Trained | None:
    """What a finished run left, its checkpoint fetched where it is elsewhere."""
    done = finished_checkpoint(store)
    if done is None:
        return None
    name, step, measures = done
    return Trained(store.download(name, job.folder / name), step, measures)


def _total(job: TrainJob) -> int:
    return job.total_steps(len(job.reader("train")))


def _step_of(job: TrainJob) -> int:
    newest = job.checkpoints().newest()
    return 0 if newest is None else int(newest[0].rsplit("_", 1)[-1])


def _note_end(status: LiveStatus, error: BaseException) -> None:
    """The last word in `status.json` of a run that did not finish. It is never an error itself."""
    if isinstance(error, Preempted):
        status.end("preempted", reason=error.reason)
        return
    # Terminated a second time: nothing of the last steps was kept.
    state, reason = ended_as(error, terminated="stopped")
    status.end(state, one_line(error, state), reason)


def _raise_failure(latest: RunEvents, job: TrainJob) -> None:
    failure = latest.failure
    if failure is None:
        return
    if failure.number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise OSError(failure.number, failure.text, str(job.store()))
    known = {one.__name__: one for one in (StorageRefused, LeaseLost)} | {"FloatingPointError": TrainingStopped}
    raise known.get(failure.kind, InputError)(failure.text)
