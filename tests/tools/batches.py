"""What tests ask of batches and phases."""

from typing import Any

import torch
from torch import Tensor

from objgan.batch import Batch
from objgan.stages.base import Losses, Phase


def word_mask(batch: Batch) -> Tensor:
    """bool [B, T]: which entries are words."""
    return torch.arange(batch.words.shape[1]) < batch.word_count[:, None]


def all_losses(phase: Phase, batch: Batch, outputs: Any) -> Losses:
    """Every loss by name, all pieces with their graphs."""
    losses = phase.losses(batch, outputs)
    pieces = [losses] if isinstance(losses, dict) else losses
    return {name: loss for piece in pieces for name, loss in piece.items()}
