"""The training loop of one Ray Train worker: it knows nothing of the model, and serves every stage."""

import logging
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective
import ray.train.torch
import torch
from ray.train.v2._internal.execution.context import get_train_context

from objgan.batch import Part
from objgan.checkpoint import load_weights, read_state, resume, snapshot
from objgan.config import flatten
from objgan.cores import available_cores
from objgan.errors import InputError
from objgan.runtime import autocast_dtype, prepare_networks
from objgan.train_state import TrainState
from objgan.training import StepContext, not_finite, step_seed, train_step
from pipelines.data.loading.batch_plan import epoch_position
from pipelines.data.loading.reader import loader
from pipelines.runtime.events import Began, Logged, Saved, Skipped, Stopping, Validated, Warned
from pipelines.storage.checkpoints import CheckpointWriter
from pipelines.storage.lease import LeaseLost, fence
from pipelines.storage.retry import is_full
from pipelines.tracking.mlflow_tracker import Tracker
from pipelines.tracking.tracker import Tracking
from pipelines.training.job import OpenRun, TrainJob
from pipelines.training.replay import save_replay
from pipelines.training.reporting import Forward, ProgressReporter, ThroughputMeter, give_up, system_metrics
from pipelines.training.step_numbers import MetricAccumulator, StepNumbers
from pipelines.training.validation import draw_pictures, judge, validate

_ANSWER_S = 30.0


@dataclass(frozen=True)
class WorkerArgs:
    """A worker's arguments.

    coordinator: the actor `RunCoordinator`
    token:       of the driver's lease
    """

    job: TrainJob
    coordinator: Any
    token: str
    tracking: Tracking


def train_worker(settings: dict[str, Any]) -> None:
    """Entry point of a worker. An error that a retry would only repeat is reported to the driver.

    Where it may have struck one worker alone it is raised, too: Ray then ends the others' waiting, and the workers that
    it starts instead see that the run was given up.
    """
    worker_args: WorkerArgs = settings["worker_args"]
    if ray.get(worker_args.coordinator.given_up.remote(), timeout=_ANSWER_S):
        return
    ours, forward, loop = logging.getLogger("pipelines"), Forward(worker_args.coordinator), None
    ours.setLevel(logging.INFO)
    ours.addHandler(forward)
    try:
        loop = _Loop(worker_args)
        loop.run()
    except FloatingPointError as error:
        # All workers read the same numbers and come here together; the first one knows where the batch was kept.
        if ray.train.get_context().get_world_rank() == 0:
            give_up(worker_args.coordinator, error, 0 if loop is None else loop.state.step)
    except (InputError, LeaseLost, OSError) as error:
        if isinstance(error, OSError) and not is_full(error):
            raise
        give_up(worker_args.coordinator, error, 0 if loop is None else loop.state.step)
        if ray.train.get_context().get_world_size() > 1:
            raise
    finally:
        ours.removeHandler(forward)  # a process that Ray uses again would report each line twice


class _Loop:
    """State of one worker between steps."""

    def __init__(self, worker_args: WorkerArgs) -> None:
        context = ray.train.get_context()
        job, self._coordinator = worker_args.job, worker_args.coordinator
        self.job, self.training = job, job.training
        self.opened = OpenRun(job)
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        self.readers = {split: self.opened.reader(split) for split in ("train", "validation")}
        rows = len(self.readers["train"])
        self.steps, self.rows = job.total_steps(rows), rows
        found = self._newest()
        self.threads = _set_threads(job.config.compute.threads, found, context.get_local_world_size())
        self.state = self._build()
        self.judges = None if job.judges is None else job.judges.open(self.opened, self.state.stage)
        dtype = autocast_dtype(job.config.compute, self.device)
        epoch = job.steps_per_epoch(rows)
        self.context = StepContext(job.config.seed, self.training.groups, epoch, dtype, self.steps)
        if found is not None:
            self.state.skipped = int(resume(found, self.state).get("skipped", 0))
        elif job.init_from is not None:
            load_weights(job.init_from, self.state)
        self.reporter = self._reporter(worker_args, found)
        self.writer = CheckpointWriter(self.opened.checkpoints, partial(self._before_commit, worker_args.token))
        self.interval, self.accumulator = ThroughputMeter(self.training.batch_size), MetricAccumulator()
        self._noticed = False

    def run(self) -> None:
        """All steps that are left, with a line every `log_every` and a checkpoint every `checkpoint_every`."""
        try:
            self._steps()
        finally:
            self.reporter.close()

    def _steps(self) -> None:
        parts, stopped = self._parts(), self.state.step >= self.steps
        while not stopped:
            with self.interval:
                batch = next(parts)
            self.accumulator.add(train_step(self.state, batch, self.context, attention=self._wants_attention()))
            self.interval.count()
            self.reporter.step = step = self.state.step
            last = step == self.steps
            due = {what for what in ("log", "picture", "checkpoint") if last or step % self._every(what) == 0}
            stopped = self._read(bool(due)) or last
            if "log" in due:
                self._log()
            if "picture" in due:
                draw_pictures(self.state, self.readers["validation"], self.reporter.picture if not self.rank else None)
            if "checkpoint" in due:
                self._checkpoint(self._validate())
            elif stopped:
                self._checkpoint({})
            if due & {"picture", "checkpoint"}:
                self.interval.restart()
        self._leave()

    def _newest(self) -> Path | None:
        """The newest whole checkpoint; the first worker looks, so that all take the same."""
        store = self.opened.checkpoints
        found = store.newest() if self.rank == 0 else None
        name = ray.train.collective.broadcast_from_rank_zero(found[0] if found else None)
        if name is None:
            return None
        return found[1] if found else store.fetch(name)

    def _build(self) -> TrainState:
        job = self.job
        # Every worker starts from the same weights: they are a function of the seed, not of the rank.
        torch.manual_seed(step_seed(job.config.seed, 0, -1))
        stage = self.opened.new_stage()
        prepare_networks(stage, job.config.compute, self.device)
        return TrainState(stage, self.device)

    def _reporter(self, worker_args: WorkerArgs, found: Path | None) -> ProgressReporter:
        job, first = self.job, self.rank == 0
        checkpoint = None if found is None else found.name
        began = Began(self.state.step, self.steps, self.world, self.state.skipped, checkpoint)
        reporter = ProgressReporter(worker_args.coordinator, self.opened.store, Tracker(), began, loud=first)
        if first:
            reporter.tracker = worker_args.tracking.tracker()
            reporter.tracker.parameters(flatten(job.config))
            manifest = self.opened.data.manifest
            reporter.tracker.dataset(manifest["digest"], str(job.data), manifest["rows"])
        return reporter

    def _parts(self) -> Iterator[list[Part]]:
        order = self.job.plan(self.rows, self.state.step, self.rank, self.world)
        for parts in loader(self.readers["train"], order):
            yield [Part(part.group, part.batch.to(self.device, non_blocking=True)) for part in parts]

    def _every(self, what: str) -> int:
        return int(getattr(self.training, f"{what}_every"))

    def _validate(self) -> dict[str, float]:
        measures = validate(self.state, self.readers["validation"], self.rank, self.world)
        return measures if self.judges is None else measures | judge(self.state, self.judges, self.rank, self.world)

    def _read(self, everything: bool) -> bool:
        """Process the results of steps; whether the run is to stop here."""
        stop = False
        for numbers in self.accumulator.read(everything):
            self.interval.add(numbers)
            if numbers.skipped:
                self._skip(numbers)
            if numbers.attention:
                stop = self._listen() or stop
        return stop

    def _skip(self, numbers: StepNumbers) -> None:
        self.state.skipped += 1
        phase, term = (not_finite(numbers.values) or "?/?").split("/", 1)
        where = f"stage {self.job.stage}, phase {phase}, step {numbers.step}: {term}"
        self.reporter.report(Skipped(numbers.step, self.state.skipped, f"{phase}/{term}"))
        if self.state.skipped <= self.training.max_skipped:
            return
        if self.rank == 0:
            saved = save_replay(self.opened, self.state, numbers.step)
            where += f" is not finite; look into it with train {self.job.stage} --replay {shlex.quote(saved)}"
        raise FloatingPointError(
            f"{where} ({self.state.skipped} steps were left out, {self.training.max_skipped} are allowed)"
        )

    def _wants_attention(self) -> bool:
        """Only the first worker asks; what follows is decided by all at one step."""
        if self.rank:
            return False
        return self.reporter.reason is not None or (_preemption_is_announced() and not self._noticed)

    def _listen(self) -> bool:
        """All workers meet: is a machine about to be taken away, does the driver want to stop?"""
        state = (self.reporter.reason, _preemption_is_announced())
        reason, announced = ray.train.collective.broadcast_from_rank_zero(state)
        if announced and not self._noticed:
            self._noticed = True
            self.reporter.report(Warned(f"a machine is about to be taken away: checkpoint at step {self.state.step}"))
            self._checkpoint({})
            self.writer.wait()
        if reason is not None:
            self.reporter.report(Stopping(self.state.step, reason))
        return reason is not None

    def _log(self) -> None:
        pace = self.interval.pace()
        values = self.interval.finish()
        step, skipped = self.state.step, self.state.skipped
        self.reporter.report(Logged(step, self.steps, values, skipped, pace))
        if self.rank == 0:
            rates = {f"learning_rate/{name}": rate for name, rate in self.state.learning_rates().items()}
            self.reporter.metrics(values | rates | {"skipped": skipped} | system_metrics(self.opened.store.local), step)

    def _checkpoint(self, measures: dict[str, float]) -> None:
        """A copy is made now, and written while training goes on."""
        if self.rank:
            return
        step = self.state.step
        if measures:
            self.reporter.metrics({f"validation/{name}": value for name, value in measures.items()}, step)
            self.reporter.report(Validated(step, self.steps, measures))
        epoch, sample = epoch_position(step, self.training.batch_size, self.rows)
        extra = {
            "measures": measures,
            "position": {"epoch": epoch, "sample": sample},
            "rng": {"seed": self.job.config.seed, "of": "seed, step, group, phase"},
            "threads": self.threads,
            "workers": self.world,
            "groups": self.training.groups,
            "skipped": self.state.skipped,
        }
        self.writer.submit(snapshot(self.state, extra), measures, partial(self._written, step))

    def _before_commit(self, token: str) -> None:
        """In the writer's thread: is the run still ours, and is all that was reported up to here safe?"""
        fence(self.opened.store, token)
        self.reporter.tracker.flush()

    def _written(self, step: int, name: str) -> None:
        seconds = self.writer.last_seconds or 0.0
        self.reporter.report(Saved(step, name, seconds))
        self.reporter.metrics({"checkpoint_seconds": seconds}, step)

    def _leave(self) -> None:
        self.writer.wait()
        # The first worker's last checkpoint is committed before any worker says that it is done.
        ray.train.collective.barrier()


def _preemption_is_announced() -> bool:
    """Whether Ray announced to this worker that a machine of the run is about to be taken away.

    `ray.train.get_preemption_info` asks the same and makes all workers meet. With `relax_collectives_on_preemption` the
    others leave that meeting before the worker that is about to go has arrived, and it waits there for the rest of the
    notice, so that no step is finished and no wish to stop is heard.
    """
    return get_train_context().preemption_context.preemption_info is not None


def _set_threads(wanted: int, checkpoint: Path | None, neighbours: int) -> int:
    """Threads of this worker: as set, else as before, else its share of the available cores; sums depend on them."""
    before = None if checkpoint is None else read_state(checkpoint).get("threads")
    # Ray gives a worker of one CPU one thread; where it is alone on the machine, the other cores would be idle.
    threads = wanted or int(before or max(1, available_cores() // neighbours))
    torch.set_num_threads(threads)
    return threads
