"""Discriminators of shapes: one of each object, one of the whole picture (Hong et al. 2018; Li et al. 2019)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from objgan.geometry import merge_by_class, raster_boxes
from objgan.layout import Layout
from objgan.networks.class_maps import ClassBoxConv
from objgan.networks.layers import DownBlock, Norm, conv3x3


@dataclass(frozen=True)
class PatchLogits:
    """logits: [N, h, w], one a patch; features: the activations of every layer before, first to last, [N, ...] each."""

    logits: Tensor
    features: tuple[Tensor, ...]


class _Trunk(nn.Module):
    """What follows the first stride-2 layer: up to three more, widths doubling, never below 4 x 4; patch logits."""

    def __init__(self, width: int, mask_size: int, spectral: bool) -> None:
        super().__init__()
        more = min(4, mask_size.bit_length() - 3) - 1
        norm: Norm = "none" if spectral else "instance"
        self.layers = nn.ModuleList(
            DownBlock(width << i, width << (i + 1), norm=norm, spectral=spectral) for i in range(more)
        )
        self.head = conv3x3(width << more, 1, bias=True)
        if spectral:
            parametrizations.spectral_norm(self.head)

    def forward(self, x: Tensor) -> PatchLogits:
        """[N, width, M/2, M/2] -> judgement."""
        features = [x]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return PatchLogits(self.head(features[-1]).squeeze(1), tuple(features))


class InstanceDiscriminator(nn.Module):
    """Is this the shape of an object of that class in that box? Sees the mask and the class-coloured box map."""

    def __init__(self, classes: int, class_embedding: int, width: int, mask_size: int, spectral: bool = False) -> None:
        super().__init__()
        self.first = ClassBoxConv(1, classes, class_embedding, width, spectral)
        self.trunk = _Trunk(width, mask_size, spectral)

    def forward(self, masks: Tensor, labels: Tensor, boxes: Tensor) -> PatchLogits:
        """Of N objects: masks [N, M, M] in [0, 1], labels int64 [N], boxes xywh fractions [N, 4]."""
        judgement: PatchLogits = self.trunk(self.first(masks.unsqueeze(1), labels, boxes))
        return judgement


class GlobalDiscriminator(nn.Module):
    """Do these shapes make a picture? Sees masks and boxes, maximum over the objects of a class, in class colours."""

    def __init__(self, classes: int, class_embedding: int, width: int, mask_size: int, spectral: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, class_embedding)
        self.first = DownBlock(2 * class_embedding, width, norm="none", spectral=spectral)
        self.trunk = _Trunk(width, mask_size, spectral)

    def forward(self, masks: Tensor, layout: Layout) -> PatchLogits:
        """Masks [B, R, M, M] in [0, 1] on a layout of B x R. A picture without objects is judged as an empty one."""
        rasters = raster_boxes(layout.boxes, masks.shape[-1])
        colours = self.embedding(layout.labels)
        maps = [
            torch.einsum("brhw,bre->behw", merge_by_class(planes, layout.labels, layout.valid), colours)
            for planes in (masks, rasters)
        ]
        judgement: PatchLogits = self.trunk(self.first(torch.cat(maps, 1)))
        return judgement
