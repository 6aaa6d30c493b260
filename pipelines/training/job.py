"""One stage's training: its specification (`TrainJob`), its opened run (`OpenRun`), and the checks before a start."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from objgan.checkpoint import load_inference, read_state
from objgan.config import STAGES, Config, flatten
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.files import read_json
from objgan.json_input import OWN
from objgan.sections import BoxesTraining, TrainingConfig
from objgan.stages import build_stage, stage_class
from objgan.stages.base import Stage
from pipelines.data.loading.batch_plan import BatchPlan
from pipelines.data.loading.data_folder import REMOTE_WINDOW, is_remote, open_data
from pipelines.data.loading.reader import ShardReader
from pipelines.storage.checkpoints import CheckpointStore, finished_checkpoint
from pipelines.storage.storage import RUNS, Storage

# They change what a person sees or how long a run lives, not what it learns.
_NEUTRAL = ("log_every", "picture_every", "keep_checkpoints", "max_failures", "max_skipped")
VALIDATION_BATCH = 50
SETTINGS_FILE = "settings.json"


class HeldOutJudges(Protocol):
    """Judges that a stage is not trained with, for more held-out measures. It is sent to the workers."""

    def identity(self) -> Mapping[str, str]:
        """Checksums of the judges, independent of their place."""

    def check(self, run: "OpenRun") -> None:
        """Check that the judges fit the run.

        Raises:
            InputError: they do not.
        """

    def open(self, run: "OpenRun", stage: Stage, split: str = "validation") -> "OpenJudges":
        """Load them on the stage's device, for the images of a split.

        Raises:
            InputError: they do not fit the run.
        """


class OpenJudges(Protocol):
    """Loaded judges; the images of the split come in batches."""

    batches: int

    def measure(self, stage: Stage, number: int) -> Any:
        """What the judges see in a batch of images by the stage's networks, picklable."""

    def scores(self, parts: Sequence[Any]) -> dict[str, float]:
        """The measures by name, from all batches in their order."""


@dataclass(frozen=True)
class TrainJob:
    """The specification of one stage's training: settings, data, earlier stages' checkpoints, and where the run lives.

    data:      a prepared folder, or the URI of one
    storage:   where the run lives instead, if not in `folder`: a URI (`s3://bucket/runs/first/boxes`); `folder` then
               takes the finished checkpoint
    init_from: checkpoint of the same stage whose weights a new run starts with; unlike a resume, at step 0
    judges:    judges that add held-out measures
    """

    stage: str
    config: Config
    data: Path | str
    folder: Path
    needs: Mapping[str, Path] = field(default_factory=dict)
    """Checkpoint folder by stage name."""
    storage: str | None = None
    init_from: Path | None = None
    judges: HeldOutJudges | None = None

    @property
    def run(self) -> str:
        """The run that this stage is part of: ID of `runs/ID/STAGE`, OUT of `OUT/STAGE-IDENTITY`."""
        return self.folder.resolve().parent.name

    @property
    def training(self) -> TrainingConfig:
        """The stage's training settings."""
        training: TrainingConfig = getattr(self.config, self.stage).training
        return training

    @property
    def window(self) -> int | None:
        """Shards whose samples are shuffled together; None: all."""
        return self.training.window or (REMOTE_WINDOW if is_remote(self.data) else None)

    def steps_per_epoch(self, rows: int) -> float:
        """Steps of one pass over a training split of this many rows."""
        return rows / self.training.batch_size

    def total_steps(self, rows: int) -> int:
        """Optimiser steps of the whole training."""
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


class OpenRun:
    """A job's storage, checkpoints and data; every process opens them once.

    Raises:
        InputError: the storage or the data cannot be opened.
    """

    def __init__(self, job: TrainJob) -> None:
        self.job, self.store = job, Storage(job.storage or job.folder)
        self.checkpoints = CheckpointStore(self.store, job.training.keep_checkpoints, stage_class(job.stage).objective)
        """The newest checkpoints and the best by the stage's objective are kept."""
        self.data = open_data(job.data, job.config.compute)
        self._readers: dict[str, ShardReader] = {}

    def reader(self, split: str) -> ShardReader:
        """The samples of a split, with the columns that the stage reads.

        Raises:
            InputError: the data lack a column, or the split is empty.
        """
        job = self.job
        if split not in self._readers:
            columns, training, share = stage_class(job.stage).columns, job.training, 0.0
            if isinstance(training, BoxesTraining) and split == "train":
                share = training.stated_captions
            self._readers[split] = ShardReader(self.data, split, columns, job.config, training.max_words, share)
        return self._readers[split]

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.job.total_steps(len(self.reader("train")))

    def domain(self) -> Domain:
        """Vocabulary, classes and statistics of the data."""
        return Domain.load(self.data.domain())

    def new_stage(self) -> Stage:
        """The stage with untrained networks, and the frozen networks of earlier stages.

        Raises:
            InputError: a checkpoint is broken or of another stage.
        """
        helpers: dict[str, nn.Module] = {}
        for stage, folder in self.job.needs.items():
            _check_stage(folder, stage)
            helpers |= load_inference(folder)
        return build_stage(self.job.stage, self.job.config, self.domain(), helpers)


def needed_stages(config: Config, stage: str) -> tuple[str, ...]:
    """Earlier stages whose networks this one is built on."""
    return ("encoders",) if stage_class(stage).needed(config) else ()


def stage_settings(config: Config, stage: str) -> dict[str, Any]:
    """The settings that decide what a stage learns, by dotted name."""
    names = ("data", stage)
    flat = flatten(config.model_dump(mode="json", include={"seed", *names}))
    return {name: value for name, value in flat.items() if name.rsplit(".", 1)[-1] not in _NEUTRAL}


def _facts(run: OpenRun) -> dict[str, Any]:
    """Everything that a run is a function of."""
    job, facts = run.job, stage_settings(run.job.config, run.job.stage)
    facts["data"] = run.data.manifest["digest"]
    # What null means depends on where the data lie; the order that it means is what counts.
    facts[f"{job.stage}.training.window"] = job.window
    facts["needs"] = {stage: identity(folder) for stage, folder in job.needs.items()}
    facts["init_from"] = None if job.init_from is None else identity(job.init_from)
    facts["judges"] = None if job.judges is None else dict(job.judges.identity())
    return facts


def identity(checkpoint: Path) -> str:
    """A checkpoint's own sums of all its files, summed up: the same wherever it lies."""
    sums = read_json(checkpoint / "state.json", "checkpoint", OWN).get("sha256")
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def open_run(job: TrainJob) -> OpenRun:
    """Open a job's run and check everything that can be checked before it starts; needs no Ray.

    Raises:
        InputError: data, settings, the run's place or earlier checkpoints do not fit.
    """
    check_groups(job.config, job.stage)
    if job.stage in STAGES and job.stage not in job.config.stages:
        raise InputError(f"{job.stage}: not trained, because data.shapes={job.config.data.shapes} stands in for masks")
    run = OpenRun(job)
    check_folder(run)
    run.data.check_room(job.window)
    run.reader("train"), run.reader("validation")
    _check_checkpoints(run)
    if job.judges is not None:
        job.judges.check(run)
    return run


def claim_folder(run: OpenRun) -> None:
    """Record what this place is for from now on.

    Raises:
        InputError: the place holds a run of something else; it names what.
    """
    check_folder(run)
    run.store.write(SETTINGS_FILE, json.dumps(_facts(run), indent=1) + "\n")


def check_folder(run: OpenRun) -> None:
    """Check that this place is new, or holds a run of the same settings, data and earlier checkpoints.

    Raises:
        InputError: the place holds a run of something else; it names what.
    """
    theirs = run.store.json(SETTINGS_FILE)
    if theirs is None:
        return
    ours = json.loads(json.dumps(_facts(run)))
    changed = [f"{k}: {theirs.get(k)} -> {ours.get(k)}" for k in theirs | ours if theirs.get(k) != ours.get(k)]
    if changed:
        raise InputError(
            f"{run.store} was begun differently ({'; '.join(changed[:4])}): undo that or use another --run"
        )


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


def _check_checkpoints(run: OpenRun) -> None:
    job, data = run.job, run.data
    given = dict(job.needs) | ({} if job.init_from is None else {job.stage: job.init_from})
    vocabulary = read_json(data.domain() / "vocabulary.json", "vocabulary of the data")
    for stage, folder in given.items():
        _check_stage(folder, stage)
        if vocabulary != read_json(folder / "domain" / "vocabulary.json", "vocabulary of the checkpoint"):
            raise InputError(f"checkpoint: {folder} was trained on data with another vocabulary than {data}")


def _check_stage(checkpoint: Path, stage: str) -> None:
    actual = read_state(checkpoint)["stage"]
    if actual != stage:
        raise InputError(f"checkpoint: {checkpoint} is of stage {actual}, not {stage}")


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
