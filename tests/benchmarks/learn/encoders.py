"""Retrieval by the encoders: is an image's own caption found among those of all held-out images?"""

import math
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from objgan.batch import collate
from objgan.checkpoint import load_inference
from objgan.config import Config
from objgan.losses.damsm import Gammas, sentence_scores, word_scores
from objgan.metrics.bootstrap import mean_interval
from objgan.metrics.retrieval import recall
from objgan.networks.encoders import TextFeatures
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.recipes import resolve
from pipelines.training.job import OpenRun, TrainJob
from tests.benchmarks.learn.fit import fit
from tests.benchmarks.learn.image_folds import FOLDS, FoldRun
from tests.benchmarks.learn.rows import Cell, Log, Options, Row
from tests.benchmarks.learn.sample_runs import SampleRuns
from tests.tools.logged import logged

NAME = "encoders"
TITLE = "Encoders: captions found by images, and images by captions"

_RANKS = (1, 5, 10)
_REAL_SETTINGS = (
    "encoders.training.steps=300",
    "encoders.training.checkpoint_every=50",
    "encoders.training.validation_samples=400",
)
_DATA = {"sample": "drawn sample, test split", "real": f"real COCO, {FOLDS} folds"}


def cells(options: Options) -> list[Cell]:
    """A cell a seed on the drawn sample, one a fold of the real images."""
    drawn = [Cell(f"sample_{seed}", partial(_sample, options, seed)) for seed in range(options.seeds)]
    return drawn + [Cell(f"real_{fold}", partial(_fold, options, fold)) for fold in range(FOLDS)]


def table(rows: dict[str, Row]) -> str:
    """R@1, 5, 10 with intervals over queries (seeds are averaged query by query) and chance."""
    lines = [
        "Recipe `tiny`, small backbone from scratch; mean of both directions; the pool is the whole held-out part.",
        "",
        "| data | pool | scores | R@1 | R@5 | R@10 | seconds of training (one run) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, title in _DATA.items():
        found = [row for key, row in rows.items() if key.startswith(name)]
        if found:
            lines += _lines(f"{title} ({len(found)} {'seeds' if name == 'sample' else 'folds'})", found, name)
    return "\n".join(lines)


def _lines(title: str, rows: list[Row], name: str) -> list[str]:
    pool = sum(row["pool"] for row in rows) / len(rows)
    seconds = sum(row["seconds"] for row in rows) / len(rows)
    lines = []
    for kind in ("sentences", "words"):
        figures = []
        for k in _RANKS:
            values = [torch.tensor(row["recall"][kind][str(k)]) for row in rows]
            # The seeds ask the same queries, the folds each their own.
            joined = torch.stack(values).mean(0) if name == "sample" else torch.cat(values)
            one = mean_interval(joined)
            figures.append(f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]")
        lines.append(f"| {title} | {pool:.0f} | {kind} | {' | '.join(figures)} | {seconds:.0f} |")
    chances = " | ".join(f"{min(1.0, k / pool):.3f}" for k in _RANKS)
    return [*lines, f"| | {pool:.0f} | chance | {chances} | |"]


def _sample(options: Options, seed: int, folder: Path, log: Log) -> Row:
    runs = SampleRuns(options.out)
    config = runs.config.model_copy(update={"seed": seed})
    # Seed 0 is the training that the image stage builds on.
    where = folder if seed else runs.folder("encoders")
    return _measure(OpenRun(TrainJob("encoders", config, runs.data(log), where)), log)


def _fold(options: Options, fold: int, folder: Path, log: Log) -> Row:
    config, annotations = resolve("tiny", None, _REAL_SETTINGS), options.coco / "annotations"
    source = CocoSource(options.coco / "images", annotations / "instances.json", annotations / "captions.json")
    data = options.out / NAME / "coco"
    with logged(log):
        prepare(source, data, config, run_here)
    return _measure(FoldRun(TrainJob("encoders", config, data, folder), fold), log)


def _measure(run: OpenRun, log: Log) -> Row:
    fitted = fit(run, log)
    scores = _scores(run, fitted.checkpoint)
    found = {kind: {str(k): _recall(table, k) for k in _RANKS} for kind, table in scores.items()}
    log(", ".join(f"{kind} R@1 {sum(of['1']) / len(of['1']):.3f}" for kind, of in found.items()))
    pool = len(next(iter(scores.values())))
    return {"recall": found, "pool": pool, "seconds": fitted.seconds, "step": fitted.step, "seed": run.job.config.seed}


def _recall(scores: Tensor, k: int) -> list[float]:
    by_image, by_caption = recall(scores, k)
    values: list[float] = ((by_image + by_caption) / 2).tolist()
    return [0.0 if math.isnan(value) else value for value in values]


@torch.no_grad()
def _scores(run: OpenRun, checkpoint: Path) -> dict[str, Tensor]:
    """[N, N], image by caption, over the held-out part: every image once, with one fixed caption."""
    networks, reader, config = load_inference(checkpoint), run.reader("test"), run.job.config
    samples = [reader.evaluation_sample(index, 0) for index in range(len(reader))]
    batch = collate(samples, reader.max_words, config.data.max_objects)
    text: TextFeatures = networks["text_encoder"](batch.words, batch.word_count)
    images = batch.pixels(config.data.image_size)
    parts = [networks["image_encoder"](images[k : k + 50]) for k in range(0, len(images), 50)]
    regions, vector = (torch.cat(one) for one in zip(*parts, strict=True))
    words = [word_scores(regions[k : k + 50], text, _gammas(config)) for k in range(0, len(images), 50)]
    return {"sentences": sentence_scores(vector, text), "words": torch.cat(words)}


def _gammas(config: Config) -> Gammas:
    return Gammas(config.encoders.gamma1, config.encoders.gamma2, config.encoders.gamma3)
