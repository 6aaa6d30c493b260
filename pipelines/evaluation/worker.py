"""One process of an evaluation: it opens model, data and judges, and measures one task (a batch) at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from objgan.generation import ObjGAN
from objgan.layout import Layout
from objgan.metrics.masks import ClassMeanMasks, mask_iou
from objgan.stages import STAGE_CLASSES, build_stage
from objgan.stages.base import Stage
from objgan.training import step_seed
from pipelines.data.loading.reader import ShardReader, evaluation_batch, evaluation_batches
from pipelines.evaluation.captions_and_layouts import open_sources
from pipelines.evaluation.judges import JudgePaths, Judges
from pipelines.evaluation.prompts_file import NO_PROMPTS, PromptsFile
from pipelines.evaluation.protocols import PROTOCOLS, Place, Protocol
from pipelines.evaluation.rows import RowMeasurer
from pipelines.evaluation.scores import SampleMetrics
from pipelines.evaluation.stated_prompts import StatedPrompts
from pipelines.evaluation.synthesis import Prompts, Synthesis, read_prompts
from pipelines.training.job import VALIDATION_BATCH

ROWS, DIVERSITY, PROMPTS = "rows", "diversity", "prompts"


@dataclass(frozen=True)
class Evaluation:
    """The specification: a model folder on prepared data (a folder or a URI) under a protocol, with judges.

    batch:   images generated at a time; like `workers`, it affects only the time, not the metrics
    prompts: whose layouts are measured, too
    """

    model: Path
    data: Path | str
    protocol: Protocol = PROTOCOLS["test"]
    seed: int = 0
    workers: int = 1
    judges: JudgePaths = field(default_factory=JudgePaths)
    batch: int = 25
    prompts: PromptsFile = NO_PROMPTS


@dataclass(frozen=True)
class EvaluationTask:
    """Batch `number` of a stage, of `ROWS`, of `DIVERSITY` or of `PROMPTS`."""

    kind: str
    number: int


class OpenEvaluation:
    """An evaluation's model, data and judges; every process opens them once.

    Raises:
        InputError: no model or data; data, judges or prompts of other classes than the model; a prompt that the model
            cannot read.
    """

    def __init__(self, evaluation: Evaluation, device: str = "auto") -> None:
        self.evaluation, self.model = evaluation, ObjGAN.load(evaluation.model, device)
        self.sources = open_sources(evaluation.data, evaluation.protocol.split, self.model)
        self.judges = Judges(evaluation.judges, self.model)
        self.synthesis = Synthesis(self.model, evaluation.seed)
        self.places = evaluation.protocol.places(len(self.sources.rows))
        """The images of a row."""
        self.stated = StatedPrompts(evaluation.prompts, self.model)

    def prompts(self, places: Sequence[Place]) -> Prompts:
        """The captions at these places, on the model's device."""
        words = self.model.domain.vocabulary.words
        prompts = read_prompts(self.sources.rows, places, self.evaluation.seed, words)
        return replace(prompts, batch=prompts.batch.to(self.model.device))

    def tasks(self) -> list[EvaluationTask]:
        """All batches: the generated images first, because they take longest."""
        protocol, size, rows = self.evaluation.protocol, self.evaluation.batch, len(self.places)
        counts = {
            ROWS: _batches(rows, size),
            DIVERSITY: _batches(min(rows, protocol.diverse_captions), size),
            PROMPTS: _batches(len(self.stated), VALIDATION_BATCH),
            **{name: _batches(protocol.limit(len(r)), VALIDATION_BATCH) for name, r in self.sources.stages.items()},
        }
        return [EvaluationTask(kind, number) for kind, count in counts.items() for number in range(count)]


class Measurer:
    """Measures one task at a time. The result is a function of the task alone."""

    def __init__(self, opened: OpenEvaluation) -> None:
        self._opened, self._evaluation = opened, opened.evaluation
        self._stages = {name: stage_of(opened.model, name) for name in opened.sources.stages}
        self._class_means = class_means(opened) if "shapes" in self._stages else None
        self._rows = RowMeasurer(opened.synthesis, opened.judges, self._evaluation.protocol)

    @torch.no_grad()
    def __call__(self, task: EvaluationTask) -> SampleMetrics:
        """Measure one batch."""
        samples = SampleMetrics()
        if task.kind in (ROWS, DIVERSITY):
            prompts = self._opened.prompts(self._places(task))
            measure = self._rows.rows if task.kind == ROWS else self._rows.diversity
            samples.add(measure(prompts), prompts.keys)
        elif task.kind == PROMPTS:
            places = self._numbers(task)
            metrics = self._opened.stated.measure(places, self._evaluation.seed)
            samples.add(metrics, [(place + 1, 0) for place in places])
        else:
            self._stage(task, samples)
        return samples

    def image_ids(self, task: EvaluationTask) -> list[int]:
        """The images of a batch; of prompts, their numbers in the file, from 1."""
        if task.kind == PROMPTS:
            return [place + 1 for place in self._numbers(task)]
        if task.kind in (ROWS, DIVERSITY):
            return [self._opened.sources.rows.image_id(place.index) for place in self._places(task)]
        reader = self._opened.sources.stages[task.kind]
        end = min((task.number + 1) * VALIDATION_BATCH, self._evaluation.protocol.limit(len(reader)))
        return [reader.image_id(index) for index in range(task.number * VALIDATION_BATCH, end)]

    def _numbers(self, task: EvaluationTask) -> range:
        """The prompts of a batch."""
        end = min((task.number + 1) * VALIDATION_BATCH, len(self._opened.stated))
        return range(task.number * VALIDATION_BATCH, end)

    def _places(self, task: EvaluationTask) -> list[Place]:
        size, places = self._evaluation.batch, self._opened.places
        if task.kind == DIVERSITY:
            places = places[: self._evaluation.protocol.diverse_captions]
        return places[task.number * size : (task.number + 1) * size]

    def _stage(self, task: EvaluationTask, samples: SampleMetrics) -> None:
        reader, seed = self._opened.sources.stages[task.kind], self._evaluation.seed
        limit = self._evaluation.protocol.limit(len(reader))
        batch = evaluation_batch(reader, task.number, VALIDATION_BATCH, seed, limit)
        torch.manual_seed(step_seed(seed, task.number, -2))
        metrics = self._stages[task.kind].measure(batch.to(self._opened.model.device))
        if task.kind == "shapes" and self._class_means is not None:
            metrics["mask_iou_class_mean"] = _class_mean_iou(self._class_means, batch.layout)
        keys = [(image_id, 0) for image_id in batch.image_ids.tolist()]
        samples.add({f"{task.kind}/{name}": value for name, value in metrics.items()}, keys)


def stage_of(model: ObjGAN, name: str) -> Stage:
    """A stage with a finished model's networks, for its metrics; its other networks are untrained and unused."""
    stage = build_stage(name, model.config, model.domain, model.networks)
    for network in stage.inference:
        stage.networks[network] = model.networks[network]
    stage.eval()
    return stage


def class_means(opened: OpenEvaluation) -> ClassMeanMasks:
    """The mean mask of each class over the training split: the baseline of the shape generator."""
    model = opened.model
    words = model.config.shapes.training.max_words
    reader = ShardReader(opened.sources.data, "train", STAGE_CLASSES["shapes"].columns, model.config, words)
    means = ClassMeanMasks(len(model.domain.classes))
    for batch in evaluation_batches(reader, VALIDATION_BATCH, opened.evaluation.seed, len(reader)):
        means.add(batch.layout)
    return means


def _class_mean_iou(means: ClassMeanMasks, layout: Layout) -> Tensor:
    """[B]: mask IoU of the class means in the true boxes."""
    return mask_iou(means.paste(layout.boxes, layout.labels, layout.soft_masks.shape[-1]), layout)


def _batches(samples: int, size: int) -> int:
    return -(-samples // size)
