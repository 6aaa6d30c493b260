"""Held-out measures of a finished model, by a pool of Ray Data actors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import ray.data
import torch
from PIL import Image
from torch import Tensor

from objgan.errors import InputError
from objgan.files import folder_aside, write_atomically
from objgan.generation import ObjGAN
from objgan.layout import Layout
from objgan.metrics.masks import ClassMeanMasks, mask_iou
from objgan.stages import STAGE_CLASSES, build_stage
from objgan.stages.base import Stage
from objgan.training import step_seed
from pipelines.jobs import VALIDATION_BATCH
from pipelines.progress import Log
from pipelines.reader import ShardReader, evaluation_batch, evaluation_batches
from pipelines.shards import load_manifest

_PICTURED = 4


@dataclass(frozen=True)
class Evaluation:
    """What to measure: a model folder on the `split` of prepared data, at most `samples` images a stage."""

    model: Path
    data: Path
    split: str = "test"
    samples: int = 1000
    seed: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Measured:
    """Means and numbers of samples by `stage/measure`, values by sample, and pictures by `stage/name`."""

    means: dict[str, float]
    counts: dict[str, int]
    samples: pa.Table
    pictures: dict[str, Image.Image]
    skipped: dict[str, str]

    def text(self) -> str:
        """A table for people."""
        rows = [f"{name:<40} {value:>9.4f}  n={self.counts[name]}" for name, value in self.means.items()]
        return "\n".join(rows + [f"{name:<40}   skipped  {why}" for name, why in self.skipped.items()])


def evaluate(what: Evaluation, log: Log) -> Measured:
    """Measure every stage that the data can show; the number of workers changes nothing.

    Raises:
        InputError: no model, no data, or nothing that can be measured.
    """
    model = ObjGAN.load(what.model, device="cpu")
    readers, skipped = _readers(what, model)
    if not readers:
        raise InputError(f"evaluate: nothing to measure in {what.data}: {'; '.join(skipped.values())}")
    tasks = [
        {"stage": name, "number": number}
        for name, reader in readers.items()
        for number in range(_batches(min(len(reader), what.samples)))
    ]
    log(f"evaluate: {len(tasks)} batches of up to {VALIDATION_BATCH} on {what.workers} worker(s)")
    table = _measure(what, tasks)
    means, counts = _summary(table)
    pictures = {
        f"{name}/{title}": image
        for name, reader in readers.items()
        for title, image in _pictures(model, name, reader, what.seed).items()
    }
    return Measured(means, counts, table, pictures, skipped)


def save(measured: Measured, folder: Path) -> None:
    """Write `measures.json`, `samples.parquet` and the pictures."""
    facts = {"measures": measured.means, "samples": measured.counts, "skipped": measured.skipped}
    write_atomically(folder / "measures.json", json.dumps(facts, indent=1) + "\n")
    with folder_aside(folder / "details") as aside:
        parquet.write_table(measured.samples, aside / "samples.parquet")
        for name, image in measured.pictures.items():
            image.save(aside / f"{name.replace('/', '_')}.png")


class _Measurer:
    """One actor: the model loaded once, then a batch of one stage at a time."""

    def __init__(self, what: Evaluation) -> None:
        self._what = what
        model = ObjGAN.load(what.model, device="auto")
        self._device = next(model.networks["text_encoder"].parameters()).device
        self._readers, _ = _readers(what, model)
        self._stages = {name: stage_of(model, name) for name in self._readers}
        self._class_means = _class_means(what, model) if "shapes" in self._readers else None

    def __call__(self, task: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        name, number = str(task["stage"][0]), int(task["number"][0])
        batch = evaluation_batch(self._readers[name], number, VALIDATION_BATCH, self._what.seed, self._what.samples)
        torch.manual_seed(step_seed(self._what.seed, number, -2))
        with torch.no_grad():
            measures = self._stages[name].measure(batch.to(self._device))
        if name == "shapes" and self._class_means is not None:
            measures["mask_iou_class_mean"] = _class_mean_iou(self._class_means, batch.layout)
        ids = batch.image_ids.numpy()
        return {
            "measure": np.repeat([f"{name}/{measure}" for measure in measures], len(ids)),
            "image_id": np.tile(ids, len(measures)),
            "value": np.concatenate([value.float().cpu().numpy() for value in measures.values()]),
        }


def _class_means(what: Evaluation, model: ObjGAN) -> ClassMeanMasks:
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


def stage_of(model: ObjGAN, name: str) -> Stage:
    """A stage around a finished model's networks, to measure with; its other networks are untrained and unused."""
    stage = build_stage(name, model.config, model.domain, model.networks)
    for network in stage.inference:
        stage.networks[network] = model.networks[network]
    stage.eval()
    return stage


def _readers(what: Evaluation, model: ObjGAN) -> tuple[dict[str, ShardReader], dict[str, str]]:
    """A reader for every stage that the data have columns for, and why not for the others."""
    load_manifest(what.data)
    readers, skipped = {}, {}
    for name, cls in STAGE_CLASSES.items():
        words = getattr(model.config, name).training.max_words
        try:
            readers[name] = ShardReader(what.data, what.split, cls.columns, model.config, words)
        except InputError as error:
            skipped[name] = str(error)
    return readers, skipped


def _measure(what: Evaluation, tasks: list[dict[str, Any]]) -> pa.Table:
    rows = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
        _Measurer, fn_constructor_args=(what,), batch_size=1, compute=ray.data.ActorPoolStrategy(size=what.workers)
    )
    table = pa.Table.from_pandas(rows.to_pandas(), preserve_index=False)
    return table.sort_by([("measure", "ascending"), ("image_id", "ascending")])


def _summary(table: pa.Table) -> tuple[dict[str, float], dict[str, int]]:
    """Mean and number of the samples that each measure applies to (NaN: it does not)."""
    names = np.array(table["measure"].to_pylist())
    values = table["value"].to_numpy()
    means, counts = {}, {}
    for name in dict.fromkeys(names):
        row = values[(names == name) & ~np.isnan(values)]
        if len(row):
            means[str(name)], counts[str(name)] = float(row.mean()), len(row)
    return means, counts


def _pictures(model: ObjGAN, name: str, reader: ShardReader, seed: int) -> dict[str, Image.Image]:
    batch = evaluation_batch(reader, 0, min(_PICTURED, len(reader)), seed, _PICTURED)
    torch.manual_seed(step_seed(seed, 0, -3))
    with torch.no_grad():
        return stage_of(model, name).pictures(batch)


def _batches(samples: int) -> int:
    return -(-samples // VALIDATION_BATCH)
