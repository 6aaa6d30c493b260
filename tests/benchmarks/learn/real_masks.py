"""Shapes in true boxes of real and of drawn pictures, against the box's ellipse and the class's mean mask."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from objgan.checkpoint import load_inference
from objgan.config import Config
from objgan.geometry import ellipses
from objgan.layout import Layout
from objgan.metrics.bootstrap import Interval, mean_interval, paired_difference
from objgan.metrics.masks import ClassMeanMasks, mask_iou
from objgan.networks.shape_generator import ShapeGenerator
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.data.sample import make_sample
from pipelines.recipes import resolve
from pipelines.training.job import OpenRun, TrainJob
from pipelines.workflow.run import sample_source
from tests.benchmarks.learn.fit import fit
from tests.benchmarks.learn.image_folds import FOLDS, FoldRun, whole_layout
from tests.benchmarks.learn.rows import Cell, Log, Options, Row
from tests.tools.logged import logged

NAME = "real_masks"
TITLE = "Shapes: mask IoU in true boxes"

_SAMPLE_IMAGES = 4000
_METHODS = {"network": "shape generator", "ellipse": "ellipse that fills the box", "class_mean": "class's mean mask"}
_DATA = {"real": f"real COCO, {FOLDS} folds", "sample": "drawn sample, test split"}


def cells(options: Options) -> list[Cell]:
    """A cell a fold of the real images, and one for the drawn sample; each with recipe `tiny`."""
    folds = [Cell(f"real_fold{fold}", partial(_fold, options, fold)) for fold in range(FOLDS)]
    return [*folds, Cell("sample", partial(_sample, options))]


def table(rows: dict[str, Row]) -> str:
    """IoU of the three, and what the generator is above the other two."""
    lines = [
        "Recipe `tiny`; mean over images of the mean over an image's objects, at 64 x 64. The class's mean mask is "
        "that of the training images. Real images: each is measured by the network that did not see it.",
        "",
        "| data | images | method | IoU | generator above it, by image | seconds of training (one run) |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in _DATA.items():
        found = [row for key, row in rows.items() if key.startswith(name)]
        if found:
            lines += _lines(title + _missing(name, len(found)), found)
    return "\n".join(lines)


def _missing(name: str, found: int) -> str:
    return f" ({found} of {FOLDS} measured)" if name == "real" and found < FOLDS else ""


def _lines(title: str, rows: list[Row]) -> list[str]:
    figures = {name: _joined(rows, name) for name in _METHODS}
    seconds = sum(row["seconds"] for row in rows) / len(rows)
    lines = []
    for name, method in _METHODS.items():
        mean, cost, above = mean_interval(figures[name]), "", ""
        if name == "network":
            cost = f"{seconds:.0f}"
        else:
            above = _text(paired_difference(figures["network"], figures[name]), signed=True)
        lines.append(f"| {title} | {mean.samples} | {method} | {_text(mean)} | {above} | {cost} |")
    return lines


def _joined(rows: list[Row], name: str) -> Tensor:
    values = [value for row in rows for value in row["iou"][name]]
    return torch.tensor([math.nan if value is None else value for value in values])


def _text(figure: Interval, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{figure.value:{sign}.3f} [{figure.low:{sign}.3f}, {figure.high:{sign}.3f}]"


def _fold(options: Options, fold: int, folder: Path, log: Log) -> Row:
    # A real picture has twice the objects of a drawn one: half the batch is as many objects a step.
    config, coco = resolve("tiny", None, ["compute.threads=1", "shapes.training.batch_size=8"]), options.coco
    annotations = coco / "annotations"
    source = CocoSource(coco / "images", annotations / "instances.json", annotations / "captions.json")
    data = options.out / NAME / "coco"
    with logged(log):
        prepare(source, data, config, run_here)
    return _measure(FoldRun(TrainJob("shapes", config, data, folder), fold), log)


def _sample(options: Options, folder: Path, log: Log) -> Row:
    config = resolve("tiny", None, ["compute.threads=1"])
    drawn, data = options.out / NAME / "drawn-coco", options.out / NAME / "drawn"
    if not (data / "manifest.json").exists():
        make_sample(drawn, _SAMPLE_IMAGES, 0)
        with logged(log):
            prepare(sample_source(drawn), data, config, run_here)
    return _measure(OpenRun(TrainJob("shapes", config, data, folder)), log)


def _measure(run: OpenRun, log: Log) -> Row:
    fitted = fit(run, log)
    generator = load_inference(fitted.checkpoint)["shape_generator"]
    assert isinstance(generator, ShapeGenerator)
    ids, layout = whole_layout(run.reader("test"))
    _, seen = whole_layout(run.reader("train"))
    means = ClassMeanMasks(len(run.domain().classes))
    means.add(seen)
    found = {
        "network": mask_iou(_draw(generator.eval(), ids, layout), layout),
        "ellipse": mask_iou(ellipses(layout.boxes, run.job.config.data.mask_size).float(), layout),
        "class_mean": mask_iou(means.paste(layout.boxes, layout.labels, run.job.config.data.mask_size), layout),
    }
    log(", ".join(f"{name} {values.nanmean():.4f}" for name, values in found.items()))
    return _row(found, fitted.seconds, fitted.step, run.job.config) | {"image_ids": ids.tolist()}


def _row(found: Mapping[str, Tensor], seconds: float, step: int, config: Config) -> dict[str, Any]:
    iou = {name: [None if math.isnan(v) else round(v, 5) for v in values.tolist()] for name, values in found.items()}
    return {"iou": iou, "seconds": seconds, "step": step, "seed": config.seed}


@torch.no_grad()
def _draw(generator: ShapeGenerator, ids: Tensor, layout: Layout) -> Tensor:
    """Masks with noise of the images' ids, as the stage measures them."""
    draws = [torch.randn(generator.noise_shape, generator=torch.Generator().manual_seed(i)) for i in ids.tolist()]
    noise = torch.stack(draws)
    parts = [generator(layout[k : k + 50], noise[k : k + 50]) for k in range(0, len(ids), 50)]
    return torch.cat(parts)
