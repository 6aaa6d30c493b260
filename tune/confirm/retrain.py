"""The runs of a confirmation in Ray: ordinary training, then measures on the test split, which no choice used."""

import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from objgan.checkpoint import resume
from objgan.config import Config
from objgan.errors import InputError
from objgan.runtime import prepare_networks
from objgan.train_state import TrainState
from objgan.training import step_seed
from pipelines.data.loading.reader import ShardReader, evaluation_batch
from pipelines.storage.lease import Lease
from pipelines.training.driver import train
from pipelines.training.job import VALIDATION_BATCH, OpenRun, open_run
from pipelines.training.validation import judge
from tune.confirm.result import ArmName, Confirmed, Retrained
from tune.report.export import trial_config
from tune.sweep.resources import Allotment
from tune.sweep.results import Trial
from tune.sweep.sweep import Sweep
from tune.sweep.tracking import nested_run
from tune.sweep.training_job import job_of

logger = logging.getLogger(__name__)
_MEASURED = "measured.json"
_MOST_ROWS = 2000
_POLL_S = 1.0
_LEASE_S = 120.0


@dataclass(frozen=True)
class Arm:
    """One run: the settings of `trial` or of the recipe, with the seed in them."""

    name: ArmName
    trial: str
    config: Config

    @property
    def label(self) -> str:
        """The name of the run. It contains the trial, because after more trials another one may be the best."""
        return f"{'default' if self.name == 'default' else self.trial}-{self.config.seed}"

    @property
    def place(self) -> str:
        """The run's folder below the sweep."""
        return f"confirm/{self.label}"


def confirm(sweep: Sweep, trial: Trial, seeds: int, allotment: Allotment) -> Confirmed:
    """Train the trial's settings and the sweep's own with `seeds` other seeds each.

    Needs a running Ray. Finished runs are not repeated; failed runs are logged and left out.
    """
    planned = arms(sweep, trial, seeds, allotment.threads)
    waiting = list(planned)
    done: dict[str, Retrained] = {}
    running: dict[Any, Arm] = {}
    task = ray.remote(num_cpus=0, max_retries=0, resources=allotment.driver)(_retrain)
    try:
        while waiting or running:
            while waiting and len(running) < allotment.concurrent:
                arm = waiting.pop(0)
                running[task.remote(sweep, arm)] = arm
            ended, _ = ray.wait(list(running), num_returns=1, timeout=_POLL_S)
            for task_id in ended:
                arm = running.pop(task_id)
                done[arm.place] = run = _result(task_id, arm)
                value = run.measures.get(sweep.goal.metric, math.nan)
                text = f"failed: {run.error}" if run.error else f"{sweep.goal.metric} {value:.4f} ({run.split} split)"
                logger.info(f"confirm {len(done)}/{len(planned)}: {arm.name}, seed {run.seed}: {text}")
    except BaseException:
        for task_id in running:
            ray.cancel(task_id, force=True)
        raise
    return Confirmed(trial.id, trial.number, sweep.goal, tuple(done[arm.place] for arm in planned))


def arms(sweep: Sweep, trial: Trial, seeds: int, threads: int = 0) -> list[Arm]:
    """All runs, ordered by seed."""
    best, runs = trial_config(sweep, trial), []
    for seed in range(sweep.config.seed + 1, sweep.config.seed + 1 + seeds):
        for name, config in (("best", best), ("default", sweep.config)):
            compute = config.compute.model_copy(update={"threads": threads or config.compute.threads})
            runs.append(Arm(name, trial.id, config.model_copy(update={"seed": seed, "compute": compute})))  # type: ignore[arg-type]
    return runs


def measure_split(run: OpenRun, checkpoint: Path) -> tuple[str, dict[str, float]]:
    """The split and the held-out measures of a checkpoint: the test split, or else the validation split.

    Images, captions and noise are the same for every checkpoint of one stage and data.
    """
    split, reader = _held_out(run)
    stage = run.new_stage()
    device = torch.device("cpu")
    prepare_networks(stage, run.job.config.compute, device)
    state = TrainState(stage, device)
    resume(checkpoint, state)
    values: dict[str, list[float]] = {}
    limit = min(_MOST_ROWS, len(reader))
    with torch.no_grad(), state.evaluation() as evaluated:
        for number in range(-(-limit // VALIDATION_BATCH)):
            batch = evaluation_batch(reader, number, VALIDATION_BATCH, 0, limit)
            torch.manual_seed(step_seed(0, number, -2))
            for name, value in evaluated.measure(batch).items():
                values.setdefault(name, []).extend(value.float().tolist())
    finite = {name: [v for v in row if not math.isnan(v)] for name, row in values.items()}
    measures = {name: sum(row) / len(row) for name, row in finite.items() if row}
    if run.job.judges is not None:
        measures |= judge(state, run.job.judges.open(run, stage, split))
    return split, measures


def _retrain(sweep: Sweep, arm: Arm) -> dict[str, Any]:
    """Ray task: all stages, one after the other, then the measures of the last one."""
    store = sweep.store().child(arm.place)
    if (measured := store.json(_MEASURED)) is not None:
        return dict(measured)
    if arm.config.compute.threads:
        torch.set_num_threads(arm.config.compute.threads)
    tags = {"objgan.confirm": arm.name, "objgan.confirmed_trial": arm.trial, "objgan.seed": str(arm.config.seed)}
    needs = sweep.encoders
    for stage in sweep.stages:
        run = open_run(job_of(sweep, arm.config, stage, arm.place, needs))
        # A worker of a driver that has just been killed may hold the run for a while.
        lease = Lease.acquire(run.store, who=arm.place, wait=_LEASE_S)
        with lease as held, nested_run(sweep, f"confirm-{arm.label}", stage, tags, run.store) as tracking:
            checkpoint = train(run, held, tracking=tracking).checkpoint
        needs = checkpoint if stage == "encoders" else needs
    split, measures = measure_split(run, checkpoint)
    facts = asdict(Retrained(arm.name, arm.config.seed, arm.place, measures, split))
    store.write(_MEASURED, json.dumps(facts, indent=1) + "\n")
    return facts


def _held_out(run: OpenRun) -> tuple[str, ShardReader]:
    try:
        reader = run.reader("test")
        if len(reader):
            return "test", reader
    except InputError:
        pass
    return "validation", run.reader("validation")


def _result(reference: Any, arm: Arm) -> Retrained:
    try:
        return Retrained(**ray.get(reference))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        text = " ".join(str(cause).split())[:300]
        return Retrained(arm.name, arm.config.seed, arm.place, {}, error=f"{type(cause).__name__}: {text}")
