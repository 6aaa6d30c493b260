"""Training of one stage in this process: the product's own step, reader and checkpoints, without Ray's start-up.

A run can be killed and called again: it goes on from its newest checkpoint, with the time that it has had.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from objgan.checkpoint import read_state, resume, save_checkpoint
from objgan.files import read_json, write_atomically
from objgan.stages.base import Stage
from objgan.train_state import TrainState
from objgan.training import StepContext, StepRecord, step_seed, train_step
from pipelines.data.loading.batch_plan import BatchPlan
from pipelines.data.loading.reader import evaluation_batches, loader
from pipelines.training.job import VALIDATION_BATCH, OpenRun, claim_folder

_SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class Fitted:
    """A finished run: the checkpoint to use, its step, and the seconds of training steps that went into the run."""

    checkpoint: Path
    step: int
    seconds: float


def fit(
    run: OpenRun,
    log: Callable[[str], None],
    minutes: float | None = None,
    adapt: Callable[[Stage], None] = lambda stage: None,
) -> Fitted:
    """Train to the end of the job's steps, or for `minutes` of steps (then the rates' cooldown follows the time).

    `adapt` may change the new stage's computation, not its parameters.

    With a `checkpoint_every` under the job's length the best checkpoint by the stage's held-out objective is taken,
    as `train` does; otherwise the last one.

    Raises:
        InputError: the folder holds a run of other settings.
    """
    claim_folder(run)
    job = run.job
    done = job.folder / "fitted.json"
    if done.exists():
        facts = read_json(done, "finished fit")
        return Fitted(job.folder / facts["checkpoint"], facts["step"], facts["seconds"])
    loop = _Run(run, log, minutes, adapt)
    loop.go()
    facts = {"checkpoint": loop.best or "last", "step": loop.best_step, "seconds": loop.seconds}
    write_atomically(done, json.dumps(facts) + "\n")
    return Fitted(job.folder / facts["checkpoint"], facts["step"], facts["seconds"])


class _Run:
    """The loop's state between steps."""

    def __init__(
        self, run: OpenRun, log: Callable[[str], None], minutes: float | None, adapt: Callable[[Stage], None]
    ) -> None:
        job = run.job
        self.job, self.log, self.budget = job, log, None if minutes is None else 60 * minutes
        self.training = getattr(job.config, job.stage).training
        torch.set_num_threads(job.config.compute.threads or torch.get_num_threads())
        torch.manual_seed(step_seed(job.config.seed, 0, -1))
        stage = run.new_stage()
        adapt(stage)
        self.state = TrainState(stage)
        self.reader, self.validation = run.reader("train"), run.reader("validation")
        self.seconds, self.steps = 0.0, run.steps
        self.best: str | None = None
        self.best_step, self.best_value = 0, float("nan")
        if (job.folder / "last" / "state.json").exists():
            self._restore()

    def go(self) -> None:
        """All steps or all of the time; a checkpoint a minute."""
        saved = self.seconds
        # With one thread, the time on its core: what else the machine does then takes nothing from the run.
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        order = BatchPlan(
            self.training.batch_size, self.job.config.seed, self.state.step, 10**9, groups=self.training.groups
        )
        steps = loader(self.reader, order)
        while not self._finished():
            began = clock()
            record = train_step(self.state, next(steps), self._context())
            self.seconds += clock() - began
            if self.state.step % self.training.log_every == 0:
                self._tell(record)
            if self.budget is None and self.state.step % self.training.checkpoint_every == 0:
                self._validate()
            if self.seconds - saved > _SAVE_EVERY_S:
                saved = self.seconds
                self._save("last")
        self._save("last")
        if self.best is None:
            self.best_step = self.state.step

    def _finished(self) -> bool:
        return self.seconds >= self.budget if self.budget is not None else self.state.step >= self.steps

    def _context(self) -> StepContext:
        total = self.steps
        if self.budget is not None and self.seconds > 0:
            total = max(self.state.step + 1, round(self.state.step * self.budget / self.seconds))
        epoch = len(self.reader) / self.training.batch_size
        return StepContext(self.job.config.seed, self.training.groups, epoch, total_steps=total)

    def _tell(self, record: StepRecord) -> None:
        told = ((name, value) for name, value in record.numbers().items() if "/" in name)
        values = " ".join(f"{name.split('/')[-1]} {value:.3f}" for name, value in told)
        self.log(f"{self.job.stage} step {self.state.step} {self.seconds:.0f} s {values}")

    def _validate(self) -> None:
        """Keep the checkpoint with the best objective over the validation split."""
        measure, direction = self.state.stage.objective
        value = self._objective(measure)
        better = value >= self.best_value if direction == "max" else value <= self.best_value
        self.log(f"{self.job.stage} step {self.state.step} validation {measure} {value:.4f}")
        if self.best is None or better:
            self.best, self.best_step, self.best_value = f"step_{self.state.step:08d}", self.state.step, value
            self._save(self.best)

    def _objective(self, measure: str) -> float:
        batches = evaluation_batches(
            self.validation, VALIDATION_BATCH, self.job.config.seed, self.training.validation_samples
        )
        values = []
        with torch.no_grad(), self.state.evaluation() as stage:
            for number, batch in enumerate(batches):
                torch.manual_seed(step_seed(self.job.config.seed, number, -2))
                values.append(stage.measure(batch)[measure])
        return float(torch.cat(values).nanmean())

    def _save(self, name: str) -> None:
        facts = {"seconds": self.seconds, "best": [self.best, self.best_step, self.best_value]}
        save_checkpoint(self.job.folder / name, self.state, facts)

    def _restore(self) -> None:
        folder = self.job.folder / "last"
        resume(folder, self.state)
        facts = read_state(folder)
        self.seconds = facts["seconds"]
        self.best, self.best_step, self.best_value = facts["best"]
        self.log(f"{self.job.stage} goes on at step {self.state.step}")
