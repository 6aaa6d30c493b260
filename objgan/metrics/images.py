"""Held-out measures of generated images, one value a sample: float [B], NaN where a measure does not apply."""

import torch
from torch import Tensor

from objgan.batch import resize_images
from objgan.layout import Layout


def first_of_pool(scores: Tensor, others: Tensor) -> Tensor:
    """1 where an image's own caption beats all others of the pool, 0 where not, NaN where the pool has no other.

    scores: [B, B], (image, caption), the b-th caption belongs to image b
    others: bool [B, B], the captions that an image's own one competes with (of other images, and worded otherwise)
    """
    own = scores.diagonal()[:, None]
    beaten = ((scores >= own) & others).any(1)
    return (~beaten).float().masked_fill(~others.any(1), torch.nan)


def object_colour_distance(images: Tensor, reals: Tensor, layout: Layout) -> Tensor:
    """How far the objects' colours are from the real ones: |difference of means| + |difference of spreads|.

    images, reals: [B, 3, S, S] in [-1, 1], made for the same `layout` with masks

    Mean and standard deviation of each channel inside an object's mask, averaged over channels and objects. The spread
    keeps flat, averaged colours from scoring well. NaN for a picture without any object of at least one pixel.
    """
    size = images.shape[-1]
    masks = resize_images(layout.soft_masks, size)
    area = masks.sum((2, 3))
    counts = (area >= 1).float()
    shares = masks / area.clamp_min(1)[:, :, None, None]
    distance = sum(
        (a - b).abs().mean(-1) for a, b in zip(_moments(images, shares), _moments(reals, shares), strict=True)
    )
    total = counts.sum(1)
    return ((distance * counts).sum(1) / total.clamp_min(1)).masked_fill(total == 0, torch.nan)


def _moments(images: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Images [B, 3, S, S], weights [B, R, S, S] that sum to 1 -> mean and standard deviation [B, R, 3]."""
    images = images.float()
    mean = torch.einsum("brhw,bchw->brc", shares, images)
    square = torch.einsum("brhw,bchw->brc", shares, images.square())
    return mean, (square - mean.square()).clamp_min(0).sqrt()
