"""Regularisers: how far a distribution or a discriminator's slope is from where it should be."""

from collections.abc import Sequence

import torch
from torch import Tensor


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)), any equal shapes -> float32 scalar, the mean over all elements.

    Conditioning augmentation (Zhang et al. 2017, section 3.2); the mean over channels too, as published, so the weight
    does not depend on their number.
    """
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def gradient_penalty(logits: Tensor, inputs: Sequence[Tensor], power: float = 6.0) -> Tensor:
    """Matching-aware gradient penalty (Tao et al. 2022, DF-GAN, section 3.3), without its weight.

    logits: [B, ...] of real, matching pairs, made from `inputs` with gradients on
    inputs: images and sentences, [B, ...] each

    Returns a float32 scalar, the mean over samples of norm^power, where the norm is that of a sample's gradient with
    respect to all inputs together. Differentiable once more.
    """
    slopes = torch.autograd.grad(logits.float().sum(), list(inputs), create_graph=True)
    squares = torch.stack([slope.float().flatten(1).square().sum(1) for slope in slopes]).sum(0)
    return (squares + 1e-12).pow(power / 2).mean()
