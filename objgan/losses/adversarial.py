"""Adversarial losses on logits: cross-entropy, non-saturating (Goodfellow et al. 2014), and hinge (Lim & Ye 2017)."""

from typing import Literal

from torch import Tensor
from torch.nn import functional

Adversarial = Literal["bce", "hinge"]


def generator_loss(logits: Tensor, kind: Adversarial, weights: Tensor | None = None) -> Tensor:
    """How far the discriminator is from calling these generated samples real.

    logits:  any shape, of generated samples
    weights: broadcast to logits' shape, >= 0 (a mask of what counts); None: every logit counts alike

    Returns a float32 scalar, the (weighted) mean over logits; 0, with a graph, where none counts.
    bce: softplus(-l); hinge: -l.
    """
    logits = logits.float()
    return weighted_mean(functional.softplus(-logits) if kind == "bce" else -logits, weights)


def discriminator_real(logits: Tensor, kind: Adversarial, weights: Tensor | None = None) -> Tensor:
    """How far the discriminator is from calling these real samples real; shapes as in `generator_loss`.

    bce: softplus(-l); hinge: max(0, 1 - l).
    """
    logits = logits.float()
    return weighted_mean(functional.softplus(-logits) if kind == "bce" else functional.relu(1 - logits), weights)


def discriminator_fake(logits: Tensor, kind: Adversarial, weights: Tensor | None = None) -> Tensor:
    """How far the discriminator is from rejecting generated or mismatched samples; shapes as in `generator_loss`.

    bce: softplus(l); hinge: max(0, 1 + l).
    """
    logits = logits.float()
    return weighted_mean(functional.softplus(logits) if kind == "bce" else functional.relu(1 + logits), weights)


def accuracy(logits: Tensor, real: bool, weights: Tensor | None = None) -> Tensor:
    """Share of logits on the right side of 0, a float32 scalar without gradient; 0 where none counts."""
    logits = logits.detach().float()
    return weighted_mean((logits > 0 if real else logits <= 0).float(), weights)


def weighted_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Scalar sum(w v) / sum(w), weights broadcast to values' shape; 0, with values' graph, where the weights sum to 0.

    A batch without any small (or large) object is legal, so an empty or fully masked mean is 0 and not NaN.
    """
    if weights is None:
        return values.sum() / max(values.numel(), 1)
    weights = weights.to(values.dtype).expand_as(values)
    total = weights.sum()
    return (values * weights).sum() / total.where(total > 0, 1.0)
