"""How much images of one caption differ when only the noise does; one value a caption, float32 [B]."""

import torch
from torch import Tensor
from torch.nn import functional


def pixel_diversity(images: Tensor) -> Tensor:
    """Mean absolute difference of pixels over all pairs of a caption's K images, 0 (all alike) to 2.

    images: [B, K, 3, S, S] in [-1, 1]; NaN for K < 2
    """
    flat = images.flatten(2).float()
    return _mean_over_pairs(flat, lambda a, b: (a - b).abs().mean(-1))


def feature_diversity(features: Tensor) -> Tensor:
    """Mean cosine distance 1 - cos over all pairs of a caption's K images, 0 (all alike) to 2.

    features: [B, K, D], of an image encoder; NaN for K < 2
    """
    # |u - v|^2 / 2 is 1 - cos for unit vectors; it is never below 0, and 0 between two zero vectors.
    unit = functional.normalize(features.float(), dim=-1)
    return _mean_over_pairs(unit, lambda a, b: (a - b).square().sum(-1) / 2)


def _mean_over_pairs(values: Tensor, distance) -> Tensor:  # type: ignore[no-untyped-def]
    number = values.shape[1]
    pairs = [(i, j) for i in range(number) for j in range(i)]
    if not pairs:
        return torch.full((len(values),), torch.nan, device=values.device)
    return torch.stack([distance(values[:, i], values[:, j]) for i, j in pairs]).mean(0)
