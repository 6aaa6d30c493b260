"""Layouts of real captions, against training marginals, the nearest caption's layout, and a logistic regression."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from objgan.batch import Batch
from objgan.checkpoint import load_inference
from objgan.config import Config
from objgan.layout import Layout
from objgan.metrics.bootstrap import Interval, mean_interval, paired_difference
from objgan.metrics.layouts import best_iou, count_error, label_f1
from objgan.networks.box_generator import BoxGenerator
from objgan.vocabulary import PAD
from pipelines.data.loading.reader import evaluation_batch
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import Options as PrepareOptions
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.data.prepare.vector_sources import default_vectors
from pipelines.recipes import resolve
from pipelines.training.job import OpenRun, TrainJob
from tests.benchmarks.learn.baselines import LabelRegression, captioned, marginal_layouts, nearest_layouts, set_f1
from tests.benchmarks.learn.fit import fit
from tests.benchmarks.learn.rows import Cell, Log, Options, Row
from tests.tools.logged import logged

NAME = "real_boxes"
TITLE = "Boxes: real captions to layouts"

_MEASURES = ("label_f1", "count_error", "best_iou")
_BASELINES = {
    "marginals": "(a) training marginals",
    "nearest": "(b) layout of the nearest training caption (TF-IDF)",
    "regression": "(c) labels by logistic regression on words",
}
SETTINGS = (
    "compute.threads=1",
    "data.max_objects=10",
    "boxes.word_dropout=0.05",
    "boxes.dropout=0.3",
    "boxes.mixture_temperature=0.1",
    "boxes.training.count_weight=1.0",
    "boxes.training.batch_size=64",
    "boxes.training.stated_captions=0.5",
    "boxes.training.steps=1800",
    "boxes.training.checkpoint_every=300",
    "boxes.training.cooldown=0.5",
    "boxes.training.validation_samples=500",
)
"""Over recipe `tiny`; chosen on the validation split."""


def cells(options: Options) -> list[Cell]:
    """A cell a baseline and one a seed of the generator, all on the test split."""
    baselines = [Cell(key, partial(_baseline, options, key)) for key in _BASELINES]
    return [*baselines, *(Cell(f"ours_{seed}", partial(_ours, options, seed)) for seed in range(options.seeds))]


def table(rows: dict[str, Row]) -> str:
    """Means with intervals, and what the generator (mean over its seeds, image by image) is above the baselines."""
    seeds = {key: row for key, row in rows.items() if key.startswith("ours_")}
    lines = [
        "Test split, one fixed caption an image, at most 10 objects; differences are generator - baseline, by image. "
        "Best IoU is over true objects whose class was predicted.",
        "",
        "| method | images | label F1 | count error | best IoU | seconds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_line(title, rows[key]) for key, title in _BASELINES.items() if key in rows]
    lines += [_line(f"box generator, seed {row['seed']}", row) for row in seeds.values()]
    if not seeds:
        return "\n".join(lines)
    ours = _over_seeds(seeds)
    lines.append(_line(f"box generator, mean of {len(seeds)} seeds", ours))
    lines += [_difference(f"generator - {title}", ours, rows[key]) for key, title in _BASELINES.items() if key in rows]
    return "\n".join(lines)


def _over_seeds(seeds: Mapping[str, Row]) -> Row:
    measures = {}
    for name in _MEASURES:
        values = torch.stack([_values(row, name) for row in seeds.values()])
        measures[name] = [None if math.isnan(value) else value for value in values.nanmean(0).tolist()]
    return {"measures": measures, "seconds": sum(row["seconds"] for row in seeds.values()) / len(seeds)}


def _line(title: str, row: Row) -> str:
    figures = [_text(mean_interval(_values(row, name))) if name in row["measures"] else "" for name in _MEASURES]
    images = len(row["measures"]["label_f1"])
    return f"| {title} | {images} | {' | '.join(figures)} | {row['seconds']:.0f} |"


def _difference(title: str, ours: Row, theirs: Row) -> str:
    figures = [
        _text(paired_difference(_values(ours, name), _values(theirs, name)), signed=True)
        if name in theirs["measures"]
        else ""
        for name in _MEASURES
    ]
    return f"| {title} | | {' | '.join(figures)} | |"


def _values(row: Row, name: str) -> Tensor:
    return torch.tensor([math.nan if value is None else value for value in row["measures"][name]])


def _text(figure: Interval, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{figure.value:{sign}.3f} [{figure.low:{sign}.3f}, {figure.high:{sign}.3f}]"


def open_run(options: Options, seed: int, folder: Path, log: Log, more: Sequence[str] = ()) -> OpenRun:
    """A training on the real captions; `more`: settings over this section's."""
    annotations, data = options.coco / "annotations", options.out / NAME / "data"
    config = resolve("tiny", None, [*SETTINGS, f"seed={seed}", *more])
    source = CocoSource(None, annotations / "boxes.json", annotations / "boxes_captions.json")
    with logged(log):
        prepare(source, data, config, run_here, PrepareOptions(vectors=default_vectors("en")))
    return OpenRun(TrainJob("boxes", config, data, folder))


def _test_batch(run: OpenRun) -> Batch:
    """The test split with the captions of evaluation seed 0, whatever the seed of training."""
    reader = run.reader("test")
    return evaluation_batch(reader, 0, len(reader), 0, len(reader))


def _baseline(options: Options, key: str, folder: Path, log: Log) -> Row:
    run = open_run(options, 0, folder, log)
    began = perf_counter()
    test, domain = _test_batch(run), run.domain()
    words = [ids[ids != PAD].numpy() for ids in test.words]
    train = captioned(run.reader("train"), 0, every_caption=True)
    vocabulary, classes = len(domain.vocabulary), len(domain.classes)
    if key == "marginals":
        found = _measure(marginal_layouts(train.layout, len(words), 0), test.layout, classes)
    elif key == "nearest":
        found = _measure(nearest_layouts(train, words, vocabulary), test.layout, classes)
    else:
        model = LabelRegression(train, vocabulary, classes)
        model.tune(captioned(run.reader("validation"), 0, every_caption=False))
        found = {"label_f1": set_f1(model.label_sets(words), model.true_sets(test.layout))}
    return _row(found, perf_counter() - began, run.job.config, log)


def _ours(options: Options, seed: int, folder: Path, log: Log) -> Row:
    run = open_run(options, seed, folder, log)
    fitted = fit(run, log)
    generator = load_inference(fitted.checkpoint)["box_generator"]
    assert isinstance(generator, BoxGenerator)
    test = _test_batch(run)
    layout = _draw(generator.eval(), test)
    found = _measure(layout, test.layout, generator.classes)
    return _row(found, fitted.seconds, run.job.config, log) | {"step": fitted.step}


@torch.no_grad()
def _draw(generator: BoxGenerator, batch: Batch) -> Layout:
    """Layouts with noise of the images' ids, as the stage measures them."""
    draws = [
        torch.randn(generator.noise_shape, generator=torch.Generator().manual_seed(image))
        for image in batch.image_ids.tolist()
    ]
    return generator.sample_layout(batch.words, batch.word_count, None, torch.stack(draws))


def _measure(ours: Layout, true: Layout, classes: int) -> dict[str, Tensor]:
    return {
        "label_f1": label_f1(ours, true, classes),
        "count_error": count_error(ours, true),
        "best_iou": best_iou(ours, true),
    }


def _row(found: Mapping[str, Tensor], seconds: float, config: Config, log: Log) -> dict[str, Any]:
    log(", ".join(f"{name} {values.nanmean():.4f}" for name, values in found.items()))
    measures = {
        name: [None if math.isnan(value) else round(value, 5) for value in values.tolist()]
        for name, values in found.items()
    }
    return {"measures": measures, "seconds": seconds, "seed": config.seed}
