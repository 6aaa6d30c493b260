"""Numbers of objects for each class, from what a `CountHead` predicts of them, and what they let a decoder draw."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_QUADRATURE = np.polynomial.legendre.leggauss(32)
"""Nodes and weights over [-1, 1]."""
_UNCERTAIN = 0.3
"""Probability from which a further object may come; at 0.15 vague captions get better totals, and stated ones worse."""


def plan_counts(counts: Tensor) -> Tensor:
    """Numbers of objects int64 [B, C], from logits [B, C, R + 1] as in `CaptionFeatures.counts`.

    The classes are the set with the highest expected F1. Each has the median of its number; where that is uncertain,
    the likeliest further objects come, up to the median of the number of all objects. Classes count as independent.
    """
    counts = counts.double()
    presence, fewest = counts[..., 0].sigmoid(), at_least(counts)
    chosen = best_set(presence)
    further = fewest[..., 1:].masked_fill(~chosen[..., None], 0.0)
    room = median_total(presence, fewest) - chosen.sum(1)
    rank = further.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(1).view_as(further)
    more = (further >= 0.5) | ((further >= _UNCERTAIN) & (rank < room[:, None, None]))
    return chosen + more.sum(-1)


def likely_or_named(counts: Tensor, bounds: tuple[Tensor, Tensor], presence: float) -> Tensor:
    """Logits [B, C, R + 1] without the classes that a caption does not name and whose presence is under `presence`.

    bounds: int64 [B, C] twice, the fewest and the most objects of each class (`Statements.bounds`); a caption that
            states no object, or only what is absent, keeps all classes
    """
    fewest, most = bounds
    named = (fewest > 0) | (most < counts.shape[-1] - 1)
    unlikely = (fewest > 0).any(1, keepdim=True) & ~named & (counts[..., 0].sigmoid() < presence)
    return torch.cat([counts[..., :1].masked_fill(unlikely[..., None], -math.inf), counts[..., 1:]], -1)


def at_least(counts: Tensor) -> Tensor:
    """Logits [..., R + 1] -> the probability of at least 1, 2, ... R objects where there is one, [..., R]."""
    return counts[..., 1:].softmax(-1).flip(-1).cumsum(-1).flip(-1)


def best_set(presence: Tensor) -> Tensor:
    """Probabilities [B, C] of independent classes -> the set with the highest expected F1, bool [B, C].

    It has the likeliest classes. With k of them, F1 = 2 (true among the k) / (k + all true), and
    1 / (1 + s) = the integral of t^s over [0, 1], so that expectations over the others are products.
    """
    nodes, weights = (torch.from_numpy(values).to(presence) / 2 for values in _QUADRATURE)
    nodes = nodes + 0.5
    sorted_presence, order = presence.sort(dim=1, descending=True, stable=True)
    others = 1 - sorted_presence[..., None] * (1 - nodes)  # [B, C, Q]
    size = torch.arange(1, presence.shape[1] + 1).to(presence)
    terms = nodes ** size[:, None] * (sorted_presence[..., None] / others).cumsum(1) * others.prod(1, keepdim=True)
    expected = torch.cat([(1 - presence).prod(1, keepdim=True), 2 * terms @ weights], 1)  # of 0, 1, ... C classes
    ranks = torch.arange(presence.shape[1], device=presence.device) < expected.argmax(1, keepdim=True)
    return torch.zeros_like(ranks).scatter(1, order, ranks)


def median_total(presence: Tensor, fewest: Tensor) -> Tensor:
    """Median of the number of all objects, int64 [B]; at most R. `presence` [B, C], `fewest` [B, C, R] (`at_least`).

    From the values of its generating function at roots of unity.
    """
    most = fewest.shape[-1]
    size = 8 * most  # totals beyond this would count as small ones
    numbers, places = torch.arange(1, most + 1), torch.arange(size)
    angles = torch.outer(numbers, places).to(fewest) * (2 * torch.pi / size)
    powers = torch.polar(torch.ones_like(angles), angles)  # [R, size]
    number = fewest - functional.pad(fewest[..., 1:], (0, 1))
    values = 1 - presence[..., None] + presence[..., None] * (number.to(powers.dtype) @ powers)
    shares = torch.fft.fft(values.prod(1), dim=1).real / size
    median: Tensor = (shares.cumsum(1) < 0.5).sum(1)
    return median.clamp_max(most)


def allowed_labels(logits: Tensor, missing: Tensor, room: Tensor, left: int) -> Tensor:
    """Label logits [B, C + 1], -inf for what may not come next.

    missing: int64 [B, C], objects of each class that have to come; they come before the end, and nothing else comes
             where they need all of the room
    room:    int64 [B, C], objects of each class that may come
    left:    objects that may come in all
    """
    total = missing.clamp_min(0).sum(1, keepdim=True)
    full = (room <= 0) | ((missing <= 0) & (total >= left) & (total > 0))
    return logits.masked_fill(torch.cat([full, total > 0], 1), -math.inf)
