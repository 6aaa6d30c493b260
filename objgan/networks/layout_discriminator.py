"""Discriminator of labelled boxes: patch-wise, on class channels x 64 x 64, with and without the sentence.

This project's own: Li et al. 2019 name no such network; its heads are those of their section 3.4.1 for images.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from objgan.geometry import cover_axes
from objgan.layout import Layout
from objgan.networks.discriminators import TextLogits, logit_convolution
from objgan.networks.layers import DownBlock, orthogonal_

RASTER_SIDE = 64
_BLOCKS = 2  # after the first convolution: a map of 8 x 8, which leaves 3 x 3 patches that each see most of the picture


@dataclass(frozen=True)
class SoftLayout:
    """Labelled boxes that gradients can pass through.

    classes: float [B, R, C], the object's class one-hot; all zero where there is no object
    boxes:   xywh fractions [B, R, 4]; they never matter where there is no object
    """

    classes: Tensor
    boxes: Tensor

    @classmethod
    def from_layout(cls, layout: Layout, classes: int) -> Self:
        """A layout as it stands, without gradients."""
        one_hot = functional.one_hot(layout.labels.masked_fill(~layout.valid, 0), classes)
        return cls((one_hot * layout.valid[..., None]).float(), layout.boxes)

    def detach(self) -> Self:
        """The same layout, cut from what it was computed from."""
        return type(self)(self.classes.detach(), self.boxes.detach())


class ClassPlanes(nn.Module):
    """4x4 convolution of stride 2 over one plane a class, leaky ReLU 0.2, without the planes.

    A class's plane is the sum of its boxes' rasters (so two people in one place differ from one). Each object's slice
    of the kernel is picked by its class instead, and a box's raster is a product of a row and a column, so the kernel
    runs along one axis, then along the other: the same function from 2 R lines, whatever the number of classes.
    """

    def __init__(self, classes: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(classes, outputs, 4, stride=2, padding=1)
        parametrizations.spectral_norm(self.conv)

    def forward(self, layout: SoftLayout, side: int) -> Tensor:
        """[B, R] objects -> [B, outputs, side / 2, side / 2]."""
        bias = self.conv.bias
        assert bias is not None
        batch, objects, _ = layout.classes.shape
        kernels = torch.einsum("brc,ochw->brhow", layout.classes.to(self.conv.weight.dtype), self.conv.weight)
        columns, rows = (
            functional.pad(line, (1, 1)).unfold(-1, 4, 2).to(kernels.dtype)  # [B, R, side / 2, 4]
            for line in cover_axes(layout.boxes, side)
        )
        across = torch.matmul(kernels.flatten(2, 3), columns.transpose(2, 3))  # [B, R, 4 outputs, side / 2]
        across = across.view(batch, objects * 4, -1)
        planes = torch.bmm(rows.permute(0, 2, 1, 3).reshape(batch, -1, objects * 4), across)
        planes = planes.view(batch, side // 2, -1, side // 2).transpose(1, 2).contiguous() + bias[:, None, None]
        return functional.leaky_relu(planes, 0.2)


class ProjectionHead(nn.Module):
    """Patch logits that say whether features go with a sentence: w f + f' (V s) (Miyato & Koyama 2018).

    Whether a class fits a sentence is a product of the two; a head on both concatenated (`discriminators`) hardly
    learns it from boxes.
    """

    def __init__(self, channels: int, text_channels: int) -> None:
        super().__init__()
        self.patches = parametrizations.spectral_norm(nn.Conv2d(channels, channels, 4, stride=2))
        self.text = parametrizations.spectral_norm(nn.Linear(text_channels, channels))
        self.logits = parametrizations.spectral_norm(nn.Linear(channels, 1))

    def forward(self, features: Tensor, *sentences: Tensor) -> list[Tensor]:
        """features [B, C, h, h], h >= 4, sentences [B, D] each -> logits [B, n, n] for each sentence."""
        patches = functional.leaky_relu(self.patches(features), 0.2).movedim(1, -1)  # [B, n, n, C]
        alone = self.logits(patches)[..., 0]
        return [alone + torch.einsum("bhwc,bc->bhw", patches, self.text(sentence)) for sentence in sentences]


class BoxDiscriminator(nn.Module):
    """Do these labelled boxes look real, and do they fit the sentence? Spectral norm throughout.

    Patches share their weights, but it matters where in the picture a box lies: each gets its coordinates
    (CoordConv, Liu et al. 2018).
    """

    steps: Tensor

    def __init__(self, classes: int, width: int, text_channels: int) -> None:
        super().__init__()
        self.first = ClassPlanes(classes, width)
        widths = [width + 2, *(width << (k + 1) for k in range(_BLOCKS))]
        self.trunk = nn.Sequential(
            *(DownBlock(widths[k], widths[k + 1], norm="none", spectral=True) for k in range(_BLOCKS))
        )
        channels = width << _BLOCKS
        self.unconditional = logit_convolution(channels, "spectral", stride=2)
        self.conditional = ProjectionHead(channels, text_channels)
        # Training steps begun: a stage knows no step, and a checkpoint has to carry when judging starts.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # Under spectral norm any other start lets a signal as faint as one box's die out from layer to layer.
        orthogonal_(self)

    def forward(self, layout: SoftLayout, *sentences: Tensor) -> TextLogits:
        """B layouts, any number of sentences [B, D] to judge them with -> logits [B, 3, 3] each."""
        planes = self.first(layout, RASTER_SIDE)
        features = self.trunk(torch.cat([planes, _coordinates(planes)], 1))
        return TextLogits(self.unconditional(features)[:, 0], self.conditional(features, *sentences))


def _coordinates(like: Tensor) -> Tensor:
    """x and y of each cell, -1 to 1: [B, 2, h, w] for a map [B, K, h, w]."""
    batch, _, height, width = like.shape
    y, x = (torch.linspace(-1, 1, n, device=like.device, dtype=like.dtype) for n in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).expand(batch, 2, height, width)
