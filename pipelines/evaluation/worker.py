"""One worker of an evaluation: a task (a batch of one stage, or of generated images) in, findings out."""

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
from pipelines.evaluation.captions_and_layouts import Sources, open_sources
from pipelines.evaluation.judges import JudgePaths, Judges
from pipelines.evaluation.protocols import PROTOCOLS, Place, Protocol
from pipelines.evaluation.rows import RowMeasurer
from pipelines.evaluation.scores import SampleMetrics
from pipelines.evaluation.synthesis import Prompts, Synthesis, read_prompts
from pipelines.training.job import VALIDATION_BATCH

ROWS, DIVERSITY = "rows", "diversity"


@dataclass(frozen=True)
class Evaluation:
    """What to measure: a model folder on prepared data (a folder or a URI) under a protocol, with judges.

    batch: images generated at a time; like `workers`, it changes nothing but the time
    """

    model: Path
    data: Path | str
    protocol: Protocol = PROTOCOLS["test"]
    seed: int = 0
    workers: int = 1
    judges: JudgePaths = field(default_factory=JudgePaths)
    batch: int = 25


@dataclass(frozen=True)
class EvaluationTask:
    """Batch `number` of a stage, of `ROWS` or of `DIVERSITY`."""

    kind: str
    number: int


def tasks_of(what: Evaluation, sources: Sources) -> list[EvaluationTask]:
    """All batches: the generated images first, they take longest."""
    protocol = what.protocol
    rows = len(protocol.places(len(sources.rows)))
    numbers = {
        ROWS: _batches(rows, what.batch),
        DIVERSITY: _batches(min(rows, protocol.diverse_captions), what.batch),
        **{name: _batches(protocol.limit(len(r)), VALIDATION_BATCH) for name, r in sources.stages.items()},
    }
    return [EvaluationTask(kind, number) for kind, count in numbers.items() for number in range(count)]


class Measurer:
    """The model and the judges loaded once, then one task at a time. What a task finds depends on nothing else."""

    def __init__(self, what: Evaluation) -> None:
        self._what = what
        model = ObjGAN.load(what.model, device="auto")
        self._device, self._words = model.device, model.domain.vocabulary.words
        self._sources = open_sources(what.data, what.protocol.split, model)
        self._stages = {name: stage_of(model, name) for name in self._sources.stages}
        self._class_means = class_means(what, model) if "shapes" in self._stages else None
        judges = Judges(what.judges, model)
        self._rows = RowMeasurer(Synthesis(model, what.seed), judges, model.domain, what.protocol)

    @torch.no_grad()
    def __call__(self, task: EvaluationTask) -> SampleMetrics:
        """Measure one batch."""
        found = SampleMetrics()
        if task.kind == ROWS:
            prompts = self._prompts(task)
            found.add(self._rows.rows(prompts), prompts.keys)
        elif task.kind == DIVERSITY:
            prompts = self._prompts(task)
            found.add(self._rows.diversity(prompts), prompts.keys)
        else:
            self._stage(task, found)
        return found

    def image_ids(self, task: EvaluationTask) -> list[int]:
        """The images that a batch is of."""
        if task.kind in (ROWS, DIVERSITY):
            return [self._sources.rows.image_id(place.index) for place in self._places(task)]
        reader = self._sources.stages[task.kind]
        end = min((task.number + 1) * VALIDATION_BATCH, self._what.protocol.limit(len(reader)))
        return [reader.image_id(index) for index in range(task.number * VALIDATION_BATCH, end)]

    def _places(self, task: EvaluationTask) -> list[Place]:
        size, places = self._what.batch, self._what.protocol.places(len(self._sources.rows))
        if task.kind == DIVERSITY:
            places = places[: self._what.protocol.diverse_captions]
        return places[task.number * size : (task.number + 1) * size]

    def _prompts(self, task: EvaluationTask) -> Prompts:
        prompts = read_prompts(self._sources.rows, self._places(task), self._what.seed, self._words)
        return replace(prompts, batch=prompts.batch.to(self._device))

    def _stage(self, task: EvaluationTask, found: SampleMetrics) -> None:
        reader = self._sources.stages[task.kind]
        limit = self._what.protocol.limit(len(reader))
        batch = evaluation_batch(reader, task.number, VALIDATION_BATCH, self._what.seed, limit)
        torch.manual_seed(step_seed(self._what.seed, task.number, -2))
        measures = self._stages[task.kind].measure(batch.to(self._device))
        if task.kind == "shapes" and self._class_means is not None:
            measures["mask_iou_class_mean"] = _class_mean_iou(self._class_means, batch.layout)
        keys = [(image_id, 0) for image_id in batch.image_ids.tolist()]
        found.add({f"{task.kind}/{name}": value for name, value in measures.items()}, keys)


def stage_of(model: ObjGAN, name: str) -> Stage:
    """A stage around a finished model's networks, to measure with; its other networks are untrained and unused."""
    stage = build_stage(name, model.config, model.domain, model.networks)
    for network in stage.inference:
        stage.networks[network] = model.networks[network]
    stage.eval()
    return stage


def class_means(what: Evaluation, model: ObjGAN) -> ClassMeanMasks:
    """The mean mask of each class over the training split: what a shape generator has to beat."""
    cls = STAGE_CLASSES["shapes"]
    words = model.config.shapes.training.max_words
    reader = ShardReader(what.data, "train", cls.columns, model.config, words)
    means = ClassMeanMasks(len(model.domain.classes))
    for batch in evaluation_batches(reader, VALIDATION_BATCH, what.seed, len(reader)):
        means.add(batch.layout)
    return means


def _class_mean_iou(means: ClassMeanMasks, layout: Layout) -> Tensor:
    """[B]: mask IoU of the class means in the true boxes."""
    return mask_iou(means.paste(layout.boxes, layout.labels, layout.soft_masks.shape[-1]), layout)


def _batches(samples: int, size: int) -> int:
    return -(-samples // size)
