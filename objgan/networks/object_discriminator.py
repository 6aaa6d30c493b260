"""Object-wise discriminator after Fast R-CNN: is each object real, and does it fit its label and its words?

Li et al. 2019, section 3.4.2. One network judges small objects and another large ones, on the image at its own size
(the published code upsamples to 512). Each has a trunk of its own, or is a head on the largest layout discriminator's.
5.5 M and 12.6 M parameters at the paper's width of 96.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.geometry import align_rois, to_rois
from objgan.layout import Layout
from objgan.networks.discriminators import (
    CODE_CHANNELS,
    DiscriminatorNorm,
    LayoutTrunk,
    hidden_convolution,
    logit_convolution,
    over_constant,
    trunk_layers,
)
from objgan.networks.layers import leaky, norm2d
from objgan.networks.layout_encoder import LayoutEncoder

ROI_SIZE = 5


class ObjectLogits(NamedTuple):
    """unconditional: [N, n], is this object real?  conditional: one [N, n] per given condition.

    N selected objects; n logits each: 1 from RoIs of 5 x 5, 16 from 8 x 8.
    """

    unconditional: Tensor
    conditional: list[Tensor]


def split_by_size(layout: Layout, large: float) -> tuple[Tensor, Tensor]:
    """(small, large) objects, bool [B, R] each: every object is in exactly one, padding in none.

    large: an object is large from this longer side on, a fraction of the image's side
    """
    is_large = layout.boxes[..., 2:].amax(-1) >= large
    return layout.valid & ~is_large, layout.valid & is_large


class ObjectHead(nn.Module):
    """Features -> RoIAlign -> 4x4 convolution -> logits for each object.

    width:    of the trunk's first layer; each later one has twice the channels
    layers:   whose activations it takes, of a trunk that may have more
    condition_channels: of the label vector and c_obj (or attended words) together
    roi_size: side of an object's region, in cells
    below:    networks that come before it, by name
    """

    def __init__(
        self,
        width: int,
        layers: int,
        condition_channels: int,
        norm: DiscriminatorNorm = "batch",
        roi_size: int = ROI_SIZE,
        **below: nn.Module,
    ) -> None:
        super().__init__()
        self.roi_size = roi_size
        for name, module in below.items():
            self.add_module(name, module)
        channels, spectral = 4 * width, norm == "spectral"
        self.layers = layers
        self.roi = hidden_convolution(width * 2 ** (layers - 1), channels, 4, norm)  # one cell less a side
        self.roi_norm = norm2d("none" if spectral else "batch", channels)
        self.unconditional = logit_convolution(channels, norm)
        self.joint = hidden_convolution(channels + condition_channels, channels, 3, norm)
        self.joint_norm = norm2d("none" if spectral else "batch", channels)
        self.conditional = logit_convolution(channels, norm)

    def judge(
        self, features: list[Tensor], boxes: Tensor, selected: tuple[Tensor, ...], *conditions: Tensor
    ) -> ObjectLogits:
        """Judge the N selected objects of all images, in the order of `boxes[selected]`; N = 0 is legal.

        features: a trunk's activations, boxes [B, R, 4] xywh fractions (left as they are), selected: picture and entry,
        int64 [N] each (see `Layout.places`), conditions [B, R, K] each -> ObjectLogits
        """
        seen = features[self.layers - 1]
        rois = to_rois(boxes[selected].float(), selected[0], seen.shape[-1])
        if not len(rois):
            # Batch norm takes no empty batch; the graph is kept, so that the loss is a zero with (zero) gradients.
            none = seen.float().sum().expand(0, 1)
            return ObjectLogits(none, [none for _ in conditions])
        with torch.autocast(seen.device.type, enabled=False):
            regions = align_rois(seen.float(), rois, self.roi_size, samples=2)
        objects = leaky(self.roi_norm(self.roi(regions)))
        judged = self._fit(objects, [condition[selected] for condition in conditions])
        return ObjectLogits(self.unconditional(objects).flatten(1), judged)

    def _fit(self, objects: Tensor, conditions: list[Tensor]) -> list[Tensor]:
        """objects [N, C, h, h], conditions [N, K] each -> logits [N, n] for each condition.

        The joint convolution is over both concatenated; it is split, which is the same function: the objects' part is
        done once for any number of conditions, and the condition's is constant over the map up to its border.
        """
        channels, size = objects.shape[1:3]
        weight = self.joint.weight
        image = functional.conv2d(objects, weight[:, :channels], self.joint.bias, padding=1)
        logits = []
        for condition in conditions:
            vectors = condition.to(objects.dtype)
            fitted = over_constant(partial(functional.conv2d, weight=weight[:, channels:], padding=1), vectors, size)
            logits.append(self.conditional(leaky(self.joint_norm(image + fitted))).flatten(1))
        return logits


class ObjectDiscriminator(ObjectHead):
    """A head on a trunk of its own: image and encoded layout -> trunk -> head.

    most_layers: of the trunk, 3 for small objects, 4 for large ones (fewer where the resolution has not as many)
    """

    encoder: LayoutEncoder
    trunk: LayoutTrunk

    def __init__(
        self,
        resolution: int,
        width: int,
        classes: int,
        condition_channels: int,
        most_layers: int,
        norm: DiscriminatorNorm = "batch",
    ) -> None:
        layers = trunk_layers(resolution, most_layers)
        encoder = LayoutEncoder(classes, CODE_CHANNELS)
        trunk = LayoutTrunk(CODE_CHANNELS, width, layers, norm)
        super().__init__(width, layers, condition_channels, norm, encoder=encoder, trunk=trunk)
        self.resolution = resolution

    def encode(self, layout: Layout) -> Tensor:
        """Layout with masks -> what the trunk's first layer takes from it, to be shared by all images it goes with.

        [B, width, S/2, S/2]
        """
        return self.trunk.project(self.encoder(layout, self.resolution))

    def features(self, images: Tensor, code: Tensor) -> list[Tensor]:
        """images [B, 3, S, S] in [-1, 1], code of `encode` -> activations after each layer of the trunk."""
        return self.trunk.activations(images, code)

    def forward(
        self, images: Tensor, code: Tensor, boxes: Tensor, selected: tuple[Tensor, ...], *conditions: Tensor
    ) -> ObjectLogits:
        """`features`, then `judge`."""
        return self.judge(self.features(images, code), boxes, selected, *conditions)
