"""TrainJob: everything that one stage's training needs, ready to send to workers."""

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
from objgan.files import read_json, write_atomically
from objgan.stages import stage_class
from pipelines.reader import ShardReader
from pipelines.tracking import Tracking

# They change what a person sees or how long a run lives, not what it learns.
_NEUTRAL = ("log_every", "picture_every", "keep_checkpoints", "max_failures")
VALIDATION_BATCH = 50


@dataclass(frozen=True)
class TrainJob:
    """One stage, its settings, its data, the earlier stages' checkpoints, and the folder that everything lands in."""

    stage: str
    config: Config
    data: Path
    folder: Path
    needs: Mapping[str, Path] = field(default_factory=dict)
    """Checkpoint folder by stage name."""
    tracking: Tracking = field(default_factory=Tracking)

    def reader(self, split: str) -> ShardReader:
        """The samples of a split, with the columns that the stage asks for.

        Raises:
            InputError: the data lack a column, or the split is empty.
        """
        words = getattr(self.config, self.stage).training.max_words
        return ShardReader(self.data, split, stage_class(self.stage).columns, self.config, words)

    def domain(self) -> Domain:
        """Vocabulary, classes and statistics of the data."""
        return Domain.load(self.data / "domain")

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

    @property
    def total_steps(self) -> int:
        """Optimiser steps in all."""
        training = getattr(self.config, self.stage).training
        return int(training.steps or training.epochs * self.steps_per_epoch)

    @property
    def steps_per_epoch(self) -> float:
        """Steps in a pass over the training split."""
        return len(self.reader("train")) / getattr(self.config, self.stage).training.batch_size


def stage_settings(config: Config, stage: str) -> dict[str, Any]:
    """The settings that decide what a stage learns, by dotted name."""
    names = ("data", stage)
    flat = flatten(config.model_dump(mode="json", include={"seed", *names}))
    return {name: value for name, value in flat.items() if name.rsplit(".", 1)[-1] not in _NEUTRAL}


def check_folder(job: TrainJob) -> None:
    """See that the run's folder is new, or was begun with the same settings.

    Raises:
        InputError: the folder holds a run of other settings; it names them.
    """
    path = job.folder / "settings.json"
    if not path.exists():
        return
    ours, theirs = stage_settings(job.config, job.stage), read_json(path, "settings of the run")
    changed = [f"{k}: {theirs.get(k)} -> {ours.get(k)}" for k in theirs | ours if theirs.get(k) != ours.get(k)]
    if changed:
        raise InputError(
            f"{job.folder} was begun with other settings ({'; '.join(changed[:4])}): use them or another --run"
        )


def claim_folder(job: TrainJob) -> None:
    """Write down the settings that this folder is for from now on."""
    text = json.dumps(stage_settings(job.config, job.stage), indent=1) + "\n"
    write_atomically(job.folder / "settings.json", text)


def finished(folder: Path) -> dict[str, Any] | None:
    """What a finished run left: checkpoint name, step and measures; None while it is not finished."""
    path = folder / "finished.json"
    return read_json(path, "finished run") if path.exists() else None
