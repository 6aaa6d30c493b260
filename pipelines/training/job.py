"""TrainJob: everything that one stage's training needs, ready to send to workers."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from objgan.checkpoint import load_inference, read_state
from objgan.config import Config, flatten
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.files import read_json
from objgan.json_input import OWN
from objgan.sections import BoxesTraining, TrainingConfig
from objgan.stages import stage_class
from pipelines.data.loading.batch_plan import BatchPlan
from pipelines.data.loading.data_folder import REMOTE_WINDOW, DataFolder, is_remote, open_data
from pipelines.data.loading.reader import ShardReader
from pipelines.runtime.console import Log
from pipelines.storage.checkpoints import CheckpointStore, finished_checkpoint
from pipelines.storage.storage import RUNS, Storage
from pipelines.tracking.tracker import Tracking

# They change what a person sees or how long a run lives, not what it learns.
_NEUTRAL = ("log_every", "picture_every", "keep_checkpoints", "max_failures", "max_skipped")
VALIDATION_BATCH = 50
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class TrainJob:
    """One stage, its settings, its data, the earlier stages' checkpoints, and the folder that everything lands in.

    data:      a prepared folder, or the URI of one
    storage:   where the run lives instead, if not in `folder`: a URI (`s3://bucket/runs/first/boxes`); `folder` then
               takes the finished checkpoint
    init_from: checkpoint of the same stage whose weights a new run starts with; unlike a resume, at step 0
    """

    stage: str
    config: Config
    data: Path | str
    folder: Path
    needs: Mapping[str, Path] = field(default_factory=dict)
    """Checkpoint folder by stage name."""
    tracking: Tracking = field(default_factory=Tracking)
    storage: str | None = None
    init_from: Path | None = None

    def store(self) -> Storage:
        """Where the run lives.

        Raises:
            InputError: it cannot be opened.
        """
        return Storage(self.storage or self.folder)

    def checkpoints(self, log: Log = lambda text: None) -> CheckpointStore:
        """The run's checkpoints: the newest few and the best by the stage's objective are kept."""
        return CheckpointStore(self.store(), self.training.keep_checkpoints, stage_class(self.stage).objective, log)

    @property
    def run(self) -> str:
        """The run that this stage is part of: ID of `runs/ID/STAGE`, OUT of `OUT/STAGE-IDENTITY`."""
        return self.folder.resolve().parent.name

    @property
    def training(self) -> TrainingConfig:
        """The stage's training settings."""
        training: TrainingConfig = getattr(self.config, self.stage).training
        return training

    def reader(self, split: str) -> ShardReader:
        """The samples of a split, with the columns that the stage asks for.

        Raises:
            InputError: the data lack a column, or the split is empty.
        """
        training, share = self.training, 0.0
        if isinstance(training, BoxesTraining) and split == "train":
            share = training.stated_captions
        return ShardReader(self.data, split, stage_class(self.stage).columns, self.config, training.max_words, share)

    def domain(self) -> Domain:
        """Vocabulary, classes and statistics of the data."""
        return Domain.load(self.open_data().domain())

    def open_data(self) -> DataFolder:
        """The prepared data.

        Raises:
            InputError: there are none.
        """
        return open_data(self.data, self.config.compute)

    @property
    def window(self) -> int | None:
        """Shards whose samples are shuffled together; None: all."""
        return self.training.window or (REMOTE_WINDOW if is_remote(self.data) else None)

    def helpers(self) -> dict[str, nn.Module]:
        """Frozen networks of earlier stages.

        Raises:
            InputError: a checkpoint is broken or of another stage.
        """
        networks: dict[str, nn.Module] = {}
        for stage, folder in self.needs.items():
            there = read_state(folder)["stage"]
            if there != stage:
                raise InputError(f"checkpoint: {folder} is of stage {there}, not {stage}")
            networks |= load_inference(folder)
        return networks

    def steps_per_epoch(self, rows: int) -> float:
        """Steps of one pass over a training split of this many rows."""
        return rows / self.training.batch_size

    def total_steps(self, rows: int) -> int:
        """Optimiser steps in all."""
        return int(self.training.steps or (self.training.epochs or 0) * self.steps_per_epoch(rows))

    def plan(self, rows: int, start: int, rank: int = 0, world: int = 1) -> BatchPlan:
        """The samples of every step from `start` to the end, as one of the workers sees them."""
        return BatchPlan(
            self.training.batch_size,
            seed=self.config.seed,
            start=start,
            stop=self.total_steps(rows),
            groups=self.training.groups,
            rank=rank,
            world=world,
            window=self.window,
        )


def needed_stages(config: Config, stage: str) -> tuple[str, ...]:
    """Earlier stages whose networks this one is built on."""
    return ("encoders",) if stage_class(stage).needed(config) else ()


def stage_settings(config: Config, stage: str) -> dict[str, Any]:
    """The settings that decide what a stage learns, by dotted name."""
    names = ("data", stage)
    flat = flatten(config.model_dump(mode="json", include={"seed", *names}))
    return {name: value for name, value in flat.items() if name.rsplit(".", 1)[-1] not in _NEUTRAL}


def _facts(job: TrainJob) -> dict[str, Any]:
    """All that a run is a function of."""
    facts = stage_settings(job.config, job.stage)
    facts["data"] = job.open_data().manifest["digest"]
    # What null means depends on where the data lie; the order that it means is what counts.
    facts[f"{job.stage}.training.window"] = job.window
    facts["needs"] = {stage: identity(folder) for stage, folder in job.needs.items()}
    facts["init_from"] = None if job.init_from is None else identity(job.init_from)
    return facts


def identity(checkpoint: Path) -> str:
    """A checkpoint's own sums of all its files, summed up: the same wherever it lies."""
    sums = read_json(checkpoint / "state.json", "checkpoint", OWN).get("sha256")
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def check_folder(job: TrainJob) -> None:
    """See that the run is new, or was begun with the same settings, data and earlier checkpoints.

    Raises:
        InputError: the place holds a run of something else; it names what.
    """
    store = job.store()
    theirs = store.json(SETTINGS_FILE)
    if theirs is None:
        return
    ours = json.loads(json.dumps(_facts(job)))
    changed = [f"{k}: {theirs.get(k)} -> {ours.get(k)}" for k in theirs | ours if theirs.get(k) != ours.get(k)]
    if changed:
        raise InputError(f"{store} was begun differently ({'; '.join(changed[:4])}): undo that or use another --run")


def claim_folder(job: TrainJob) -> None:
    """Write down what this place is for from now on."""
    job.store().write(SETTINGS_FILE, json.dumps(_facts(job), indent=1) + "\n")


def best_checkpoint(root: Storage, run: str, stage: str, advice: str) -> Path:
    """The checkpoint that a finished stage of a run ended with, fetched where it is elsewhere.

    Raises:
        InputError: the stage has not finished.
    """
    store = root.child(run).child(stage)
    done = finished_checkpoint(store)
    if done is None:
        raise InputError(f"no finished stage {stage} in {store}: {advice}")
    name, _, _ = done
    return store.download(name, RUNS / run / stage / name)
