"""A step of stage `images` at published sizes, without a data set: random weights, drawn pixels and layouts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from objgan.batch import Batch, Sample, collate
from objgan.config import Config
from objgan.domain import Domain, LayoutStatistics
from objgan.geometry import ellipses
from objgan.stages.encoders import build_image_encoder, build_text_encoder
from objgan.stages.images import ImagesStage
from objgan.train_state import TrainState
from objgan.vocabulary import Vocabulary

WORDS = 500
LAYERS = (
    "images.shared_trunk=false",
    "images.object_layers=[3,4]",
    "images.discriminator_layers=4",
    "images.roi_size=5",
    "images.training.warmup=0",
)
"""Recipe `tiny` with the published layers."""


@dataclass(frozen=True)
class Scenes:
    """What a drawn batch holds: `samples` pictures with so many small and large objects each, of `classes` classes."""

    samples: int = 2
    small: int = 3
    large: int = 3
    classes: int = 80


def drawn_state(
    config: Config, scenes: Scenes, prepare: Callable[[ImagesStage], None] = lambda stage: None
) -> TrainState:
    """The stage and its optimisers; text and image encoder (Inception-v3 for `paper`) with random, frozen weights.

    `prepare` gets the stage before the optimisers are made.
    """
    torch.manual_seed(0)
    domain = drawn_domain(scenes.classes, config.data.vector_channels)
    helpers: dict[str, nn.Module] = {
        "text_encoder": build_text_encoder(config, domain),
        "image_encoder": build_image_encoder(config, domain),
    }
    stage = ImagesStage(config, domain, helpers)
    prepare(stage)
    return TrainState(stage)


def drawn_domain(classes: int, channels: int, most: int = WORDS) -> Domain:
    """`most` words w0, w1, ... with random vectors; the first ones are the classes' names."""
    words = ("<pad>", "<unk>", *(f"w{n}" for n in range(max(most, classes))))
    vectors = np.random.default_rng(0).standard_normal((len(words), channels)).astype(np.float32)
    vectors[:2] = 0
    statistics = LayoutStatistics((0.5, 0.5, 0.3, 1.0), (0.2, 0.2, 0.2, 0.5), (9,) * classes, (1,), (2,) * classes, 9)
    return Domain(Vocabulary(words, vectors), words[2 : 2 + classes], statistics)


def drawn_batch(config: Config, scenes: Scenes) -> Batch:
    """Objects are ellipses of two fifths (large) and a fifth (small) of the side, the large ones first.

    Padded to `data.max_objects`, as the reader's batches are.
    """
    draw, side = torch.Generator().manual_seed(0), config.data.image_size
    sides = torch.tensor([0.4] * scenes.large + [0.2] * scenes.small)
    return collate(
        [_drawn_sample(number, config, scenes.classes, sides, draw, side) for number in range(scenes.samples)],
        max_words=config.images.training.max_words,
        max_objects=config.data.max_objects,
    )


def _drawn_sample(
    number: int, config: Config, classes: int, sides: torch.Tensor, draw: torch.Generator, side: int
) -> Sample:
    corners = torch.rand(len(sides), 2, generator=draw) * (1 - sides[:, None])
    boxes = torch.cat([corners, sides[:, None].expand(-1, 2)], -1)
    return Sample(
        image_id=number,
        words=torch.randint(2, WORDS, (config.images.training.max_words,), generator=draw).numpy(),
        labels=torch.randint(0, classes, (len(sides),), generator=draw).numpy(),
        boxes=boxes.numpy(),
        masks=ellipses(boxes, config.data.mask_size).to(torch.uint8).numpy() * 255,
        image=torch.randint(0, 256, (3, side, side), generator=draw, dtype=torch.uint8).numpy(),
    )
