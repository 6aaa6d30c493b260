"""Held-out measures and pictures of a run in training, from its moving averages."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image

from objgan.averaging import world_size
from objgan.train_state import TrainState
from objgan.training import step_seed
from pipelines.data.loading.reader import ShardReader, evaluation_batch
from pipelines.training.job import VALIDATION_BATCH, OpenJudges

_PICTURED = 4


def validate(state: TrainState, reader: ShardReader, rank: int, world: int) -> dict[str, float]:
    """Means of the stage's measures, batches dealt out over the workers; a batch's noise depends on its number alone.

    Every worker gets the same numbers.
    """
    config = state.stage.config
    values: dict[str, list[float]] = {}
    limit = min(state.stage.training_config.validation_samples, len(reader))
    with torch.no_grad(), state.evaluation() as stage:
        for number in range(rank, -(-limit // VALIDATION_BATCH), world):
            batch = evaluation_batch(reader, number, VALIDATION_BATCH, config.seed, limit)
            torch.manual_seed(step_seed(config.seed, number, -2))
            for name, value in stage.measure(batch.to(state.device)).items():
                values.setdefault(name, []).extend(value.float().tolist())
    return _mean(_gather(values))


def judge(state: TrainState, judges: OpenJudges, rank: int = 0, world: int = 1) -> dict[str, float]:
    """The judges' measures of the stage's images, batches dealt out over the workers as in `validate`.

    Every worker gets the same numbers.
    """
    with torch.no_grad(), state.evaluation() as stage:
        own = [(number, judges.measure(stage, number)) for number in range(rank, judges.batches, world)]
    parts = sorted((part for each in _all(own) for part in each), key=lambda part: int(part[0]))
    return judges.scores([part for _, part in parts])


def draw_pictures(state: TrainState, reader: ShardReader, take: Callable[[str, Image.Image, int], None] | None) -> None:
    """The stage's pictures of the same few captions every time, handed to `take` (None: this worker draws none)."""
    if take is None:
        return
    seed = state.stage.config.seed
    batch = evaluation_batch(reader, 0, _PICTURED, seed, _PICTURED)
    with torch.no_grad(), state.evaluation() as stage:
        torch.manual_seed(step_seed(seed, 0, -3))
        pictures = stage.pictures(batch.to(state.device))
    for name, image in pictures.items():
        take(name, image, state.step)


def _gather(values: dict[str, list[float]]) -> dict[str, list[float]]:
    parts = _all(values)
    return {name: [v for part in parts for v in part.get(name, [])] for name in sorted({n for p in parts for n in p})}


def _all(own: Any) -> list[Any]:
    """What each worker has, by rank."""
    if world_size() == 1:
        return [own]
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, own)
    return parts


def _mean(values: dict[str, list[float]]) -> dict[str, float]:
    """Mean of what applies (NaN: does not); a measure that applied nowhere is left out."""
    kept = {name: [v for v in row if not math.isnan(v)] for name, row in values.items()}
    return {name: sum(row) / len(row) for name, row in kept.items() if row}
