"""What a caption says of an object's place, relative to the objects that are placed already."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from objgan.networks.count_head import PASSING

_CHANNELS = 32


@dataclass(frozen=True)
class SaidOfObjects:
    """What a caption says of N objects: of each one's class as in `CaptionFeatures`.

    said: [B, N, P]; onward: [B, N, PASSING]; presence: [B, N], the logit of the class's presence
    """

    said: Tensor
    onward: Tensor
    presence: Tensor


class Relations(nn.Module):
    """Attention of an object over the ones before it, by what the caption says of each.

    Values are the boxes themselves, a projection of what is said, and the words that stand between the two: with the
    sign of their order, and without. For the first object, all are zero.
    """

    def __init__(self, said: int) -> None:
        """`said`: channels of what the caption says of an object (P)."""
        super().__init__()
        self.channels = 4 + _CHANNELS + 2 * PASSING
        self.query = nn.Linear(said, _CHANNELS)
        self.key = nn.Linear(said, _CHANNELS)
        self.value = nn.Linear(said, _CHANNELS)

    def forward(self, own: SaidOfObjects, others: SaidOfObjects, boxes: Tensor, before: Tensor) -> Tensor:
        """What is said of N objects and of M others -> [B, N, V].

        boxes:  of the others, standardised [B, M, 4]
        before: bool [N, M] or [1, N, M], which of the others are placed already
        """
        query, key = self.query(own.said), self.key(others.said)
        scores = torch.einsum("bnc,bmc->bnm", query, key).float() / math.sqrt(_CHANNELS)
        scores = scores + others.presence.float()[:, None]
        # "None of them" is for the first object alone.
        scores = torch.cat([scores.masked_fill(~before, -math.inf), torch.full_like(scores[..., :1], -1e4)], -1)
        weights = scores.softmax(-1)[..., :-1].to(query.dtype)
        between = weights.sum(-1, keepdim=True) * own.onward - weights @ others.onward
        values = weights @ torch.cat([boxes.to(query.dtype), self.value(others.said)], -1)
        # The size alone serves words whose order does not matter: "next to".
        return torch.cat([values, between, between.abs()], -1)
