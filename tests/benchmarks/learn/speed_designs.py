"""Section `speed_designs`: do the cheaper forms of the image stage learn as well, at equal steps?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from objgan.checkpoint import load_inference
from objgan.config import Config, build_config
from objgan.metrics.distances import frechet_distance
from objgan.stages.base import Stage
from objgan.stages.images import ImagesStage
from objgan.training import step_seed
from pipelines.data.loading.reader import evaluation_batches
from pipelines.evaluation.judges import SECOND_ENCODERS
from pipelines.training.job import VALIDATION_BATCH, OpenRun
from tests.benchmarks.learn.fit import fit
from tests.benchmarks.learn.rows import Cell, Log, Options, Row
from tests.benchmarks.learn.sample_runs import SampleRuns, timed
from tests.benchmarks.published_form import double_object_images

NAME = "speed_designs"
TITLE = "Cheaper forms of the image stage, at equal steps"
STEPS = 300
DEFAULT = "default"


@dataclass(frozen=True)
class Design:
    """A form of the image stage: settings under `images`, others of its training, what is changed beyond settings."""

    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    adapt: Callable[[Stage], None] = lambda stage: None


_OWN_TRUNKS = {"shared_trunk": False}
DESIGNS: Mapping[str, Design] = {
    DEFAULT: Design("A + B: object-wise discriminators at the image's own size (the default)", _OWN_TRUNKS),
    "doubled": Design("A, and these at twice the size, as published", _OWN_TRUNKS, adapt=double_object_images),
    "shared_trunk": Design("C: A + B, one trunk for layout and objects", {"shared_trunk": True}),
    "fast": Design(
        "D: C, and the last scale's residual block at half resolution",
        {"shared_trunk": True, "half_resolution_blocks": 1},
    ),
    "groups": Design("A + B in groups of half a batch", _OWN_TRUNKS, {"group": 4}),
}
MEASURES = {
    "object_colour_distance": "objects' colour distance",
    "r1_teacher_of_pool": "own caption first of 50 (teacher)",
    "teacher_similarity": "similarity to the caption (teacher)",
    "fd_encoder": "FD (second encoders)",
}
"""On the test split, from true layouts; less is better of the first and of the last."""
LESS_IS_BETTER = ("object_colour_distance", "fd_encoder")


def cells(options: Options) -> list[Cell]:
    """A cell a design and seed; seed by seed, so that what is there after any time can be compared."""
    return [
        Cell(f"{name}_{seed}", partial(run, SampleRuns(options.out), name, seed, STEPS))
        for seed in range(options.seeds)
        for name in DESIGNS
    ]


def run(runs: SampleRuns, name: str, seed: int, steps: int, folder: Path, log: Log) -> Row:
    """Train a design, then measure its images."""
    design, config = DESIGNS[name], design_config(runs.config, name, seed, steps)
    run = runs.run("images", config, folder, log)
    fitted = fit(run, log, adapt=design.adapt)
    judge = runs.judge(SECOND_ENCODERS, log).checkpoint
    return timed(fitted) | {"design": name, "seed": seed, "figures": measure(run, fitted.checkpoint, judge)}


def design_config(config: Config, name: str, seed: int, steps: int) -> Config:
    """The settings of a design for a run of so many steps."""
    values = config.model_dump() | {"seed": seed}
    values["images"] |= DESIGNS[name].settings
    values["images"]["training"] |= {
        **DESIGNS[name].training,
        "steps": steps,
        "epochs": None,
        "checkpoint_every": 10 * steps,
    }
    return build_config(values)


@torch.no_grad()
def measure(run: OpenRun, checkpoint: Path, judge: Path) -> dict[str, float]:
    """Means over the test split of the stage's own measures, and the Fréchet distance of the judge's features."""
    stage = run.new_stage()
    assert isinstance(stage, ImagesStage)
    stage.networks.update(load_inference(checkpoint))
    eye = load_inference(judge)["image_encoder"].eval()
    stage.eval()
    found: dict[str, list[torch.Tensor]] = {name: [] for name in (*MEASURES, "real", "fake")}
    reader = run.reader("test")
    for number, batch in enumerate(evaluation_batches(reader, VALIDATION_BATCH, 0, len(reader))):
        torch.manual_seed(step_seed(0, number, -2))
        for name, value in stage.measure(batch).items():
            found[name].append(value)
        images = stage(batch).generated.images[-1]
        found["fake"].append(eye(images)[1])
        found["real"].append(eye(batch.pixels(images.shape[-1]))[1])
    joined = {name: torch.cat(values) for name, values in found.items() if values}
    figures = {name: float(values.nanmean()) for name, values in joined.items() if name in MEASURES}
    return figures | {"fd_encoder": frechet_distance(joined["real"].numpy(), joined["fake"].numpy())}


def table(rows: dict[str, Row]) -> str:
    """Means and ranges over seeds, then every design's difference to the default, seed by seed."""
    named = {name: {row["seed"]: row for row in rows.values() if row["design"] == name} for name in DESIGNS}
    steps = sorted({row["step"] for row in rows.values()})
    lines = [
        f"Recipe `tiny` with the settings of `sample_runs.py`, {' or '.join(map(str, steps))} steps of 8 pictures; "
        "test split, from true layouts. Mean over seeds (lowest to highest).",
        "",
        f"| design | seeds | {' | '.join(MEASURES.values())} | seconds of training (one run) |",
        "|" + " --- |" * (len(MEASURES) + 3),
    ]
    for name, ours in named.items():
        if ours:
            figures = [_spread([row["figures"][measure] for row in ours.values()]) for measure in MEASURES]
            seconds = np.mean([row["seconds"] for row in ours.values()])
            lines.append(f"| {DESIGNS[name].title} | {len(ours)} | {' | '.join(figures)} | {seconds:.0f} |")
    return "\n".join([*lines, "", *_against_default(named)])


def _against_default(named: Mapping[str, Mapping[int, Row]]) -> list[str]:
    lines = [
        "Against the default, with the same seed: mean difference (each seed's), and with how many seeds better.",
        "",
    ]
    for name, ours in named.items():
        seeds = sorted(set(ours) & set(named[DEFAULT]))
        if name == DEFAULT or not seeds:
            continue
        for measure, title in MEASURES.items():
            gaps = [ours[s]["figures"][measure] - named[DEFAULT][s]["figures"][measure] for s in seeds]
            better = sum((gap < 0) == (measure in LESS_IS_BETTER) for gap in gaps if gap)
            each = ", ".join(f"{gap:+.3f}" for gap in gaps)
            lines.append(f"- {name}, {title}: {np.mean(gaps):+.3f} ({each}); better with {better} of {len(seeds)}")
    return lines


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
