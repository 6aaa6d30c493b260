"""The drawn sample, the trainings on it and the evaluation, for the sections `sample_images` and `ablation`.

Everything is made when it is first asked for, and kept; a killed training goes on.
"""

import math
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from objgan.config import Config
from objgan.domain import Domain
from pipelines.data.prepare.convert import run_here as prepare_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.sample import make_sample
from pipelines.evaluation.evaluate import EvaluationResult, evaluate, run_here, save
from pipelines.evaluation.judge_training import judge_jobs, keep
from pipelines.evaluation.judges import SECOND_ENCODERS, JudgePaths
from pipelines.evaluation.protocols import PROTOCOLS, Protocol
from pipelines.evaluation.worker import Evaluation, OpenEvaluation
from pipelines.models.registry import assemble
from pipelines.recipes import resolve
from pipelines.training.job import OpenRun, TrainJob, needed_stages
from pipelines.workflow.run import sample_source
from tests.benchmarks.learn.fit import Fitted, fit
from tests.benchmarks.learn.rows import Log, Row
from tests.tools.logged import logged

RECIPE = "tiny"
SETTINGS: tuple[str, ...] = (
    "encoders.training.steps=800",
    "encoders.training.checkpoint_every=200",
    "encoders.training.cooldown=0.3",
    "encoders.training.validation_samples=400",
    "boxes.training.steps=2000",
    "boxes.training.checkpoint_every=250",
    "boxes.training.validation_samples=400",
    "boxes.training.cooldown=0.3",
    "images.training.cooldown=0.3",
)
"""What differs from the recipe, for all stages."""
PICTURES = 4000
_CHECKED: set[Path] = set()
EARLIER = ("encoders", "boxes", "shapes")


@dataclass(frozen=True)
class SampleRuns:
    """Folders: `out`/data (the sample), `out`/sample_images/CELL (a training each), `out`/judges."""

    out: Path
    settings: tuple[str, ...] = SETTINGS
    pictures: int = PICTURES
    protocol: Protocol = field(default_factory=lambda: PROTOCOLS["test"])

    @property
    def config(self) -> Config:
        """The settings of the full model, seed 0."""
        return resolve(RECIPE, None, self.settings)

    def folder(self, cell: str) -> Path:
        """Where a cell of `sample_images` keeps its run."""
        return self.out / "sample_images" / cell

    @property
    def prepared(self) -> Path:
        """Where the prepared sample is or will be."""
        return self.out / "data" / "prepared"

    def data(self, log: Log) -> Path:
        """The prepared sample; an unfinished one is finished, a finished one checked once a process."""
        if self.prepared not in _CHECKED:
            coco = self.out / "data" / "coco"
            make_sample(coco, self.pictures, 0)
            with logged(log):
                prepare(sample_source(coco), self.prepared, self.config, prepare_here)
            _CHECKED.add(self.prepared)
        return self.prepared

    def domain(self, log: Log) -> Domain:
        """Vocabulary and classes of the sample."""
        return Domain.load(self.data(log) / "domain")

    def stage(self, name: str, log: Log) -> Fitted:
        """One of the stages before the images, trained."""
        return fit(self.run(name, self.config, self.folder(name), log), log)

    def run(self, name: str, config: Config, folder: Path, log: Log) -> OpenRun:
        """A stage's training, with the earlier stages that it needs trained."""
        needs = {earlier: self.stage(earlier, log).checkpoint for earlier in needed_stages(config, name)}
        return OpenRun(TrainJob(name, config, self.data(log), folder, needs))

    def judge(self, name: str, log: Log) -> Fitted:
        """One of the judges (`pipelines.evaluation.judges`), trained, and kept where the evaluation looks for it."""
        jobs, skipped = judge_jobs(self.config, self.data(log), self.judges)
        if name not in jobs:
            raise RuntimeError(f"{name}: {skipped}")
        fitted = fit(OpenRun(jobs[name]), log)
        if not (self.judges / name).is_dir():
            keep(fitted.checkpoint, self.judges / name)
        return fitted

    @property
    def judges(self) -> Path:
        """Where the judges are or will be."""
        return self.out / "judges"

    def images(self, config: Config, folder: Path, minutes: float | None, log: Log) -> Fitted:
        """The image stage at these settings, for so many minutes of steps (None: for its steps)."""
        return fit(self.run("images", config, folder, log), log, minutes)

    def measure(self, config: Config, images: Path, folder: Path, log: Log) -> EvaluationResult:
        """Evaluate the model made of an image stage's checkpoint and the other stages; keeps both in `folder`."""
        checkpoints = {name: self.stage(name, log).checkpoint for name in EARLIER} | {"images": images}
        assemble(config, self.prepared, checkpoints, folder)
        judges = JudgePaths(self.judges if (self.judges / SECOND_ENCODERS).is_dir() else None)
        evaluation = Evaluation(folder / "model", self.prepared, self.protocol, judges=judges)
        with logged(log):
            measured = evaluate(OpenEvaluation(evaluation), run_here)
        save(measured, folder / "evaluation")
        return measured


def timed(fitted: Fitted) -> Row:
    """What every row of a training says."""
    return {"seconds": round(fitted.seconds, 1), "step": fitted.step, "threads": torch.get_num_threads()}


def figures(measured: EvaluationResult) -> dict[str, dict[str, Any]]:
    """Name without the protocol -> value, interval, number of samples, ceiling; NaN as None."""
    end = f"_{measured.protocol}"
    return {
        name.removesuffix(end): {
            "value": _number(one.value),
            "interval": None if one.interval is None else [_number(bound) for bound in one.interval],
            "count": one.count,
            "ceiling": _number(one.ceiling),
        }
        for name, one in measured.scores.items()
    }


def per_image(measured: EvaluationResult, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Each named measure's figures by image: {"ids": [...], "values": [...]}, ordered by id; NaN as None."""
    end, table = f"_{measured.protocol}", measured.samples.to_pydict()
    found: dict[str, dict[str, Any]] = {}
    for measure, image, value in zip(table["measure"], table["image_id"], table["value"], strict=True):
        name = measure.removesuffix(end)
        if name in names:
            kept = found.setdefault(name, {"ids": [], "values": []})
            kept["ids"].append(image)
            kept["values"].append(_number(value))
    return found


def clock(run: Any) -> tuple[Any, float]:
    """What `run()` gives, and the seconds that it took."""
    began = time.perf_counter()
    result = run()
    return result, time.perf_counter() - began


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), 5)
