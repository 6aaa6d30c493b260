"""What a caption says of an object's place, relative to the objects that are placed already."""

import math

import torch
from torch import Tensor, nn

_CHANNELS = 32


class Relations(nn.Module):
    """Attention of an object over the ones before it, by what the caption says of each; or over none of them.

    Values are the boxes themselves and a projection of what is said.
    """

    def __init__(self, said: int) -> None:
        """`said`: channels of what the caption says of an object (P)."""
        super().__init__()
        self.channels = 4 + _CHANNELS
        self.query = nn.Linear(said, _CHANNELS)
        self.key = nn.Linear(said, _CHANNELS)
        self.value = nn.Linear(said, _CHANNELS)

    def forward(self, own: Tensor, others: Tensor, boxes: Tensor, before: Tensor) -> Tensor:
        """What is said of N objects [B, N, P] and of M others [B, M, P] -> [B, N, V].

        boxes:  of the others, standardised [B, M, 4]
        before: bool [N, M] or [1, N, M], which of the others are placed already
        """
        scores = torch.einsum("bnc,bmc->bnm", self.query(own), self.key(others)).float() / math.sqrt(_CHANNELS)
        # A score of zero for "none of them".
        scores = torch.cat([scores.masked_fill(~before, -math.inf), torch.zeros_like(scores[..., :1])], -1)
        weights = scores.softmax(-1)[..., :-1].to(own.dtype)
        return weights @ torch.cat([boxes.to(own.dtype), self.value(others)], -1)
