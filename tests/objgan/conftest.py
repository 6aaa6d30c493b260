"""A hand-made domain, small settings and small batches, for the tests of networks and stages."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from objgan.batch import Batch
from objgan.config import Config, build_config
from objgan.domain import Domain, LayoutStatistics
from objgan.generation import ObjGAN
from objgan.geometry import clip_xywh, ellipses
from objgan.layout import Layout
from objgan.stages import NETWORKS, build_network
from objgan.vocabulary import Vocabulary

CLASSES = ("kite", "boat", "person", "stop sign", "sheep")
WORDS = (
    *("<pad>", "<unk>", "a", "two", "red", "blue", "kite", "kites", "boat", "boats", "person", "people"),
    *("stop", "sign", "sheep", "above", "beside", "on", "the", "sea"),
)
MAX_WORDS, MAX_OBJECTS, IMAGE_SIDE, MASK_SIDE = 8, 4, 64, 32

MakeBatch = Callable[..., Batch]


@pytest.fixture
def tiny_config() -> Config:
    """T 8, R 4, D 32, image scales 32 and 64, widths 8 to 16, masks of side 32."""
    return build_config(
        {
            "recipe": "test",
            "data": {
                "image_size": IMAGE_SIDE,
                "mask_size": MASK_SIDE,
                "max_objects": MAX_OBJECTS,
                "max_words": MAX_WORDS,
                "vector_channels": 16,
            },
            "encoders": {
                "channels": 32,
                "embedding": 16,
                "backbone": "small",
                "small_width": 8,
                "training": {"batch_size": 4, "max_words": MAX_WORDS},
            },
            "boxes": {
                "hidden": 32,
                "label_embedding": 16,
                "coordinate_embedding": 8,
                "training": {"batch_size": 4, "max_words": MAX_WORDS},
            },
            "shapes": {
                "width": 16,
                "class_embedding": 8,
                "noise": 4,
                "discriminator_width": 8,
                "training": {"batch_size": 4, "max_words": MAX_WORDS},
            },
            "images": {
                "sizes": (32, 64),
                "width": 8,
                "discriminator_width": 8,
                "noise": 10,
                "condition": 10,
                "word_channels": 16,
                "first_blocks": 1,
                "next_blocks": 1,
                "training": {"batch_size": 4, "max_words": MAX_WORDS},
            },
        }
    )


@pytest.fixture(scope="session")
def domain() -> Domain:
    """5 classes; 20 words (with <pad> and <unk>) whose vectors have 16 channels, zero for those two."""
    vectors = np.random.default_rng(7).standard_normal((len(WORDS), 16)).astype(np.float32)
    vectors[:2] = 0
    statistics = LayoutStatistics(
        mean=(0.5, 0.5, 0.3, 1.2),
        std=(0.2, 0.25, 0.15, 0.6),
        class_counts=(40, 30, 20, 5, 5),
        object_counts=(2, 20, 18, 8, 2),
        class_caps=(2, 2, 3, 2, 4),
        images=50,
    )
    return Domain(Vocabulary(WORDS, vectors), CLASSES, statistics)


@pytest.fixture
def model(tiny_config: Config, domain: Domain) -> ObjGAN:
    """A finished model with weights as they are drawn."""
    torch.manual_seed(0)
    return ObjGAN(tiny_config, domain, {name: build_network(name, tiny_config, domain) for name in NETWORKS})


@pytest.fixture(scope="session")
def make_batch() -> MakeBatch:
    """make_batch(size=3, counts=None, seed=0, images=True, masks=True) -> Batch, the same for the same arguments.

    `counts` gives each picture's number of objects (default: 1 to R, in turn). Padding is zero, as `collate` leaves it.
    """
    return _make_batch


def _make_batch(
    size: int = 3, counts: Sequence[int] | None = None, seed: int = 0, images: bool = True, masks: bool = True
) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    word_count = torch.randint(1, MAX_WORDS + 1, (size,), generator=draw)
    words = torch.randint(2, len(WORDS), (size, MAX_WORDS), generator=draw)
    words *= torch.arange(MAX_WORDS) < word_count[:, None]
    count = torch.tensor([1 + i % MAX_OBJECTS for i in range(size)] if counts is None else list(counts))
    pixels = torch.randint(0, 256, (size, 3, IMAGE_SIDE, IMAGE_SIDE), generator=draw, dtype=torch.uint8)
    return Batch(
        image_ids=torch.arange(100, 100 + size),
        words=words,
        word_count=word_count,
        layout=_make_layout(count, draw, masks),
        images=pixels if images else None,
    )


def _make_layout(count: torch.Tensor, draw: torch.Generator, masks: bool) -> Layout:
    size = len(count)
    sides = 0.1 + 0.5 * torch.rand(size, MAX_OBJECTS, 2, generator=draw)
    corners = torch.rand(size, MAX_OBJECTS, 2, generator=draw) * (1 - sides)
    order = sides.prod(-1).argsort(1, descending=True)[..., None].expand(-1, -1, 4)
    boxes = clip_xywh(torch.cat([corners, sides], -1)).gather(1, order)
    labels = torch.randint(0, len(CLASSES), (size, MAX_OBJECTS), generator=draw)
    valid = torch.arange(MAX_OBJECTS) < count[:, None]
    boxes, labels = boxes * valid[..., None], labels * valid
    shapes = ellipses(boxes, MASK_SIDE).to(torch.uint8) * 255 * valid[..., None, None].to(torch.uint8)
    return Layout(labels=labels, boxes=boxes, count=count, masks=shapes if masks else None)
