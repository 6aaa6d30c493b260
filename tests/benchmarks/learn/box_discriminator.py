"""The box generator with and without its discriminator, at equal steps, on the drawn sample."""

import math
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from objgan.checkpoint import load_inference
from objgan.metrics.bootstrap import mean_interval, paired_difference
from pipelines.data.loading.reader import evaluation_batches
from pipelines.recipes import resolve
from pipelines.training.job import VALIDATION_BATCH, OpenRun, TrainJob
from tests.benchmarks.learn.fit import fit
from tests.benchmarks.learn.rows import Cell, Log, Options, Row
from tests.benchmarks.learn.sample_runs import SampleRuns

NAME = "box_discriminator"
TITLE = "Boxes: adversarial against plain maximum likelihood"

SETTINGS = (
    "boxes.discriminator_width=8",
    "boxes.training.discriminator_lr=2e-3",
    "boxes.training.steps=600",
    "boxes.training.checkpoint_every=600",
    "boxes.training.cooldown=0.5",
)
WEIGHTS = (0.0, 0.05, 0.2)
_MEASURES = ("label_f1", "count_error", "best_iou", "mixture_nll", "named_share")


def cells(options: Options) -> list[Cell]:
    """A cell a weight and seed."""
    return [
        Cell(f"weight_{weight}_seed_{seed}", partial(_run, options, weight, seed))
        for seed in range(options.seeds)
        for weight in WEIGHTS
    ]


def table(rows: dict[str, Row]) -> str:
    """Means over seeds, and the difference to weight 0 by image."""
    lines = [
        "Recipe `tiny`, 600 steps, test split; seeds averaged image by image; in brackets the difference to weight 0.",
        "",
        f"| weight | seeds | {' | '.join(name.replace('_', ' ') for name in _MEASURES)} | seconds (one run) |",
        "|" + "---|" * (len(_MEASURES) + 3),
    ]
    for weight in WEIGHTS:
        found = [row for row in rows.values() if row["weight"] == weight]
        plain = [row for row in rows.values() if row["weight"] == 0 and row["seed"] in {r["seed"] for r in found}]
        if found:
            figures = [_figure(found, plain if weight else [], name) for name in _MEASURES]
            seconds = sum(row["seconds"] for row in found) / len(found)
            lines.append(f"| {weight} | {len(found)} | {' | '.join(figures)} | {seconds:.0f} |")
    return "\n".join(lines)


def _figure(rows: list[Row], plain: list[Row], name: str) -> str:
    values = _values(rows, name)
    text = f"{mean_interval(values).value:.3f}"
    if len(plain) != len(rows):
        return text
    change = paired_difference(values, _values(plain, name))
    return f"{text} ({change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}])"


def _values(rows: list[Row], name: str) -> Tensor:
    return torch.stack([torch.tensor([math.nan if v is None else v for v in r["by_image"][name]]) for r in rows]).mean(
        0
    )


def _run(options: Options, weight: float, seed: int, folder: Path, log: Log) -> Row:
    data = SampleRuns(options.out).data(log)
    config = resolve("tiny", None, [*SETTINGS, f"boxes.training.adversarial_weight={weight}", f"seed={seed}"])
    run = OpenRun(TrainJob("boxes", config, data, folder))
    fitted = fit(run, log)
    found = _measure(run, fitted.checkpoint)
    by_image = {name: [None if math.isnan(v) else round(v, 5) for v in values] for name, values in found.items()}
    return {"weight": weight, "seed": seed, "by_image": by_image, "seconds": fitted.seconds, "step": fitted.step}


@torch.no_grad()
def _measure(run: OpenRun, checkpoint: Path) -> dict[str, list[float]]:
    stage = run.new_stage()
    stage.networks.update(load_inference(checkpoint))
    stage.eval()
    reader = run.reader("test")
    batches = [stage.measure(b) for b in evaluation_batches(reader, VALIDATION_BATCH, 0, len(reader))]
    return {name: torch.cat([batch[name] for batch in batches]).tolist() for name in _MEASURES}
