"""Losses of the shape generator beside the adversarial ones. Padded objects and empty pictures never count."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.errors import InputError
from objgan.geometry import raster_boxes
from objgan.layout import Layout
from objgan.losses.adversarial import weighted_mean
from objgan.networks.backbones import read_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def pixel_loss(logits: Tensor, layout: Layout) -> Tensor:
    """Binary cross-entropy of mask logits [B, R, M, M] (before the box) against the layout's own masks.

    Mean over each object's box, pixels weighted by the share of them that the box covers, then over objects: a small
    object counts as much as a large one. A true mask is divided by that share, as the generator's is multiplied by it.
    Returns a float32 scalar; 0, with a graph, without objects.
    """
    cover = raster_boxes(layout.boxes, logits.shape[-1])
    targets = (layout.soft_masks / cover.clamp_min(1e-3)).clamp(0, 1)
    entropies = functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    per_object = (entropies * cover).sum((2, 3)) / cover.sum((2, 3)).clamp_min(1e-6)
    return weighted_mean(per_object, layout.valid)


def overlap_loss(masks: Tensor, layout: Layout) -> Tensor:
    """1 - soft intersection over union of masks [B, R, M, M] in [0, 1] with the layout's own (Rahman & Wang 2016).

    Mean over objects. Where a shape is uncertain, cross-entropy keeps only pixels more likely in than out; the mask of
    the largest expected IoU, which this looks for, keeps less likely ones too.
    Returns a float32 scalar; 0, with a graph, without objects.
    """
    ours, true = masks.float(), layout.soft_masks
    both = (ours * true).sum((2, 3))
    either = (ours + true - ours * true).sum((2, 3))
    return weighted_mean(1 - both / either.clamp_min(1e-6), layout.valid)


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor], weights: Tensor | None = None) -> Tensor:
    """L1 distance of a discriminator's activations on generated and true masks (Larsen et al. 2016, Wang et al. 2018).

    fake, real: one [N, C, h, w] a layer; no gradient goes to `real`
    weights:    [N], what counts; None: all

    Returns a float32 scalar, the mean over what counts, then over layers.
    """
    terms = [
        weighted_mean((a.float() - b.detach().float()).abs().flatten(1).mean(1), weights)
        for a, b in zip(fake, real, strict=True)
    ]
    return torch.stack(terms).mean()


def pooled_mask(masks: Tensor, layout: Layout) -> Tensor:
    """Masks [B, R, M, M] -> [B, M, M]: the maximum over a picture's objects, 0 without any."""
    return (masks * layout.valid[..., None, None]).amax(1)


class VGGPerceptual(nn.Module):
    """L1 distance of frozen VGG19-BN activations (Simonyan & Zisserman 2015; Johnson et al. 2016) of pooled masks.

    Activations before each of the five pooling layers, as far as the mask's size allows; mean over layers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path) -> None:
        """Weights: torchvision's VGG19-BN state dict, .pth (read without unpickling code) or .safetensors.

        Raises:
            InputError: the file is missing, unreadable or of another network.
        """
        super().__init__()
        self.layers = _vgg19_bn_features()
        _load_features(self.layers, weights)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "VGGPerceptual":
        """Stays in eval mode: its batch norms use their stored statistics."""
        return super().train(False)

    def forward(self, fake: Tensor, real: Tensor, weights: Tensor | None = None) -> Tensor:
        """Pooled masks [B, M, M] in [0, 1], weights [B] (what counts) -> float32 scalar; gradients to `fake` alone."""
        with torch.no_grad():
            targets = self._activations(real)
        return feature_matching(self._activations(fake), targets, weights)

    def _activations(self, masks: Tensor) -> list[Tensor]:
        x = (masks[:, None].expand(-1, 3, -1, -1) - self.mean) / self.std
        found = []
        for layer in self.layers:
            if isinstance(layer, nn.MaxPool2d):
                found.append(x)
                if x.shape[-1] < 4:
                    break
            x = layer(x)
        return found


def _vgg19_bn_features() -> nn.Sequential:
    """Convolutions of VGG19-BN, numbered as torchvision's `features` (whose builder also makes 120 M other weights)."""
    layers: list[nn.Module] = []
    channels = 3
    for width, repeats in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(repeats):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _load_features(layers: nn.Module, path: Path) -> None:
    state = read_weights(path, "shapes.vgg_weights")
    features = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
    try:
        layers.load_state_dict(features)
    except RuntimeError:
        raise InputError(
            f"shapes.vgg_weights: {path} is not torchvision's vgg19_bn; take that network's file"
        ) from None
