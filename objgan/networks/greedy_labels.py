"""Which label comes next at label temperature 0: the most likely, or what counts and sets of classes are best with."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GreedyRule:
    """What label temperature 0 means.

    median_end:  end at the median number of objects, not where the end is the most likely single label: the median
                 has the least expected absolute error
    named_first: probability that the bag of labels must give to a class so that it comes before any repeated class; 0:
                 no such rule
    """

    median_end: bool = False
    named_first: float = 0.0


class GreedyLabels:
    """The labels of B captions one after the other; keeps how likely each picture is not to have ended yet."""

    def __init__(self, rule: GreedyRule, bag: Tensor | None) -> None:
        """`bag`: logits [B, C] of which classes appear at all; without it there is no `named_first`."""
        self.rule, self.alive, self.over = rule, torch.ones(()), torch.zeros((), dtype=torch.bool)
        self.named = None if bag is None or not rule.named_first else bag.float().sigmoid() >= rule.named_first

    def next(self, logits: Tensor, used: Tensor) -> Tensor:
        """Logits [B, C + 1], -inf for what may not come, and how often each class came, [B, C] -> int64 [B]."""
        logits = logits.float()
        end, label = logits.shape[1] - 1, logits.argmax(-1)
        ended = label == end
        if self.rule.median_end:
            self.alive = self.alive.to(logits.device) * (1 - logits.softmax(-1)[:, end])
            # Where the end may not come yet, it comes as soon as it may.
            self.over = self.over.to(logits.device) | ((self.alive < 0.5) & (logits[:, end] > -math.inf))
            ended, label = self.over, logits[:, :end].argmax(-1)
        if self.named is not None:
            # Where the end is the likeliest, `label` is no class; what is gathered there is not used.
            repeats = used.gather(1, label.clamp_max(end - 1)[:, None])[:, 0] > 0
            missing = self.named & (used == 0) & (logits[:, :end] > -math.inf)
            likeliest = logits[:, :end].masked_fill(~missing, -math.inf).argmax(-1)
            label = torch.where(repeats & missing.any(1), likeliest, label)
        return label.masked_fill(ended, end)
