"""A finished model without training, for tests and benchmarks that need any model."""

from pathlib import Path

import numpy as np
import torch

from objgan.domain import Domain, LayoutStatistics
from objgan.generation import ObjGAN
from objgan.stages import NETWORKS, build_network
from objgan.vocabulary import Vocabulary
from pipelines.recipes import resolve


def write_model(folder: Path, seed: int = 0) -> Path:
    """A model of recipe `tiny` that knows 3 classes and 12 words, with weights as they are drawn."""
    words = ("<pad>", "<unk>", "a", "two", "red", "kite", "kites", "boat", "stop", "sign", "above", "on", "the", "sea")
    config = resolve("tiny", None, ())
    vectors = np.random.default_rng(7).standard_normal((len(words), config.data.vector_channels)).astype(np.float32)
    vectors[:2] = 0
    statistics = LayoutStatistics(
        mean=(0.5, 0.5, 0.3, 1.2),
        std=(0.2, 0.25, 0.15, 0.6),
        class_counts=(40, 30, 20),
        object_counts=(2, 20, 18, 0, 0, 0, 0, 0, 0),
        class_caps=(2, 2, 3),
        images=40,
    )
    domain = Domain(Vocabulary(words, vectors), ("kite", "boat", "stop sign"), statistics)
    torch.manual_seed(seed)
    ObjGAN(config, domain, {name: build_network(name, config, domain) for name in NETWORKS}).save(folder)
    return folder
