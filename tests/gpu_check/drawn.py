"""Random batches of a recipe's sizes, and stages with random weights: no data set, no checkpoint."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from objgan.attributes import COLOURS, SCENES
from objgan.batch import Part, Sample, collate
from objgan.config import Config
from objgan.domain import Domain
from objgan.geometry import ellipses
from objgan.runtime import prepare_networks
from objgan.sections import ComputeConfig, TrainingConfig
from objgan.stages import STAGE_CLASSES, build_stage, stage_class
from objgan.stages.encoders import build_image_encoder, build_text_encoder
from objgan.stages.judge import JudgeStage
from objgan.train_state import TrainState
from tests.benchmarks.paper_step import drawn_domain
from tests.gpu_check.forms import Form

STAGES = (*STAGE_CLASSES, JudgeStage.name)
CLASSES = 80
_WORDS = {"tiny": 500}
_MANY_WORDS = 20_000
"""As COCO's captions have."""
_EMPTY = 7
"""One picture of this number has no object."""


@dataclass(frozen=True)
class Pace:
    """How long to measure: `repeats` of `steps` steps each, on batches of `samples` (None: the recipe's)."""

    repeats: int
    steps: int
    samples: int | None


def as_it_is(state: TrainState) -> None:
    """No change."""


@dataclass(frozen=True)
class Case:
    """A stage of a recipe on a device. samples: of a batch that is only compared; spoil: changes each state (tests)."""

    recipe: str
    stage: str
    config: Config
    device: torch.device
    samples: int
    pace: Pace
    spoil: Callable[[TrainState], None] = as_it_is

    def state(self, form: Form) -> TrainState:
        """A fresh one, with the same random weights in every form."""
        state = drawn_state(self.config, self.stage, form.compute, self.device)
        self.spoil(state)
        return state

    def few(self, step: int = 0) -> list[Part]:
        """A small batch on the device."""
        return moved(drawn_parts(self.config, self.stage, step, self.samples), self.device)

    def many(self) -> list[Part]:
        """A batch to time, in main memory."""
        return drawn_parts(self.config, self.stage, 0, self.pace.samples)


def moved(parts: Sequence[Part], device: torch.device) -> list[Part]:
    """A batch on the device, as a worker brings it there."""
    return [Part(part.group, part.batch.to(device, non_blocking=True)) for part in parts]


def training_of(config: Config, stage: str) -> TrainingConfig:
    """The stage's training settings."""
    training: TrainingConfig = getattr(config, stage).training
    return training


def domain_of(config: Config) -> Domain:
    """As many words as a data set of the recipe has, 80 classes."""
    return drawn_domain(CLASSES, config.data.vector_channels, _WORDS.get(config.recipe, _MANY_WORDS))


def drawn_state(config: Config, stage: str, compute: ComputeConfig, device: torch.device) -> TrainState:
    """The stage as a worker makes it, with the same random weights whatever it runs on and however."""
    torch.manual_seed(0)
    domain = domain_of(config)
    builders = {"text_encoder": build_text_encoder, "image_encoder": build_image_encoder}
    helpers: dict[str, nn.Module] = {name: builders[name](config, domain) for name in stage_class(stage).needed(config)}
    built = build_stage(stage, config, domain, helpers)
    prepare_networks(built, compute, device)
    return TrainState(built, device)


def drawn_parts(config: Config, stage: str, step: int, samples: int | None = None) -> list[Part]:
    """The groups of a step's batch in main memory; `samples`: one group of that size instead."""
    training, columns = training_of(config, stage), stage_class(stage).columns
    size = samples or training.batch_size // training.groups
    draw = np.random.default_rng((step, STAGES.index(stage)))
    return [
        Part(
            group,
            collate(
                [_drawn_sample(config, columns, draw, number) for number in range(size)],
                training.max_words,
                config.data.max_objects,
            ),
        )
        for group in range(1 if samples else training.groups)
    ]


def _drawn_sample(config: Config, columns: Iterable[str], draw: np.random.Generator, number: int) -> Sample:
    """Words and objects in random numbers, noise for an image; some classes come twice."""
    data = config.data
    objects = 0 if number % _EMPTY == _EMPTY - 1 else int(draw.integers(1, data.max_objects + 1))
    sides = np.sort(draw.uniform(0.06, 0.7, objects))[::-1].astype(np.float32)
    sides = np.stack([sides, sides * draw.uniform(0.7, 1.3, objects)], 1).clip(0.05, 0.95).astype(np.float32)
    boxes = np.concatenate([draw.random((objects, 2), np.float32) * (1 - sides), sides], 1)
    images, masks, attributes = (name in columns for name in ("image", "masks", "attributes"))
    return Sample(
        image_id=int(draw.integers(2**31)),
        words=draw.integers(2, _WORDS.get(config.recipe, _MANY_WORDS), int(draw.integers(4, data.max_words + 1))),
        labels=draw.choice(np.arange(12), objects).astype(np.int64),
        boxes=boxes,
        masks=_masks(boxes, data.mask_size, draw) if masks else None,
        image=_image(data.image_size, draw) if images else None,
        colours=draw.integers(-1, len(COLOURS), objects) if attributes else None,
        scene=int(draw.integers(-1, len(SCENES))) if attributes else None,
    )


def _image(side: int, draw: np.random.Generator) -> np.ndarray:
    """Coloured patches under noise: of noise alone, all images look alike to an encoder, and gradients cancel out."""
    patches = np.kron(draw.integers(0, 224, (3, 4, 4)) * draw.random((3, 1, 1)), np.ones((1, side // 4, side // 4)))
    return (patches + draw.integers(0, 32, (3, side, side))).astype(np.uint8)


def _masks(boxes: np.ndarray, size: int, draw: np.random.Generator) -> np.ndarray:
    """Ellipses with holes. Generators start from ellipses: a discriminator could not distinguish true ones from them,
    and its gradients would be the small rest of a difference.
    """
    kept = np.kron(draw.random((len(boxes), 8, 8)) < 0.7, np.ones((1, size // 8, size // 8)))
    masks: np.ndarray = (ellipses(torch.from_numpy(boxes), size).numpy() * kept * 255).astype(np.uint8)
    return masks
