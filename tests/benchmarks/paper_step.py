"""A step of stage `images` at published sizes, without a data set: random weights, drawn pixels and layouts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from objgan.batch import Batch
from objgan.config import Config
from objgan.domain import Domain, LayoutStatistics
from objgan.geometry import ellipses
from objgan.layout import Layout
from objgan.stages.encoders import build_image_encoder, build_text_encoder
from objgan.stages.images import ImagesStage
from objgan.train_state import TrainState
from objgan.vocabulary import Vocabulary

WORDS = 500


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


def drawn_domain(classes: int, channels: int) -> Domain:
    """Words w0, w1, ... with random vectors; the first ones are the classes' names."""
    words = ("<pad>", "<unk>", *(f"w{n}" for n in range(max(WORDS, classes))))
    vectors = np.random.default_rng(0).standard_normal((len(words), channels)).astype(np.float32)
    vectors[:2] = 0
    statistics = LayoutStatistics((0.5, 0.5, 0.3, 1.0), (0.2, 0.2, 0.2, 0.5), (9,) * classes, (1,), (2,) * classes, 9)
    return Domain(Vocabulary(words, vectors), words[2 : 2 + classes], statistics)


def drawn_batch(config: Config, scenes: Scenes) -> Batch:
    """Objects are ellipses of a fifth (small) and two fifths (large) of the side, the large ones first."""
    draw, images = torch.Generator().manual_seed(0), config.images
    objects, size, side = scenes.small + scenes.large, scenes.samples, config.data.image_size
    sides = torch.tensor([0.4] * scenes.large + [0.2] * scenes.small)[None, :, None].expand(size, -1, 2)
    corners = torch.rand(size, objects, 2, generator=draw) * (1 - sides)
    boxes = torch.cat([corners, sides], -1)
    word_count = torch.full((size,), images.training.max_words)
    return Batch(
        image_ids=torch.arange(size),
        words=torch.randint(2, WORDS, (size, images.training.max_words), generator=draw),
        word_count=word_count,
        layout=Layout(
            labels=torch.randint(0, scenes.classes, (size, objects), generator=draw),
            boxes=boxes,
            count=torch.full((size,), objects),
            masks=ellipses(boxes, config.data.mask_size).to(torch.uint8) * 255,
        ),
        images=torch.randint(0, 256, (size, 3, side, side), generator=draw, dtype=torch.uint8),
    )
