"""Shape generator: boxes and classes -> one soft mask per object (Li et al. 2019, section 3.2; Hong et al. 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.geometry import raster_boxes, stand_in_masks
from objgan.layout import Layout
from objgan.networks.box_templates import BoxTemplates
from objgan.networks.class_maps import ClassBoxConv, box_coordinates
from objgan.networks.conv_lstm import BidirectionalConvLSTM
from objgan.networks.layers import DownBlock, ResidualBlock, UpBlock, conv3x3


@dataclass(frozen=True)
class ShapeSizes:
    """Of a shape generator: channels, R = `objects`, M = `mask_size`, side of the templates (0: none, as published)."""

    classes: int
    class_embedding: int
    width: int
    noise: int
    objects: int
    mask_size: int = 64
    template: int = 0


class ShapeGenerator(nn.Module):
    """Draws the objects of a layout in sight of each other.

    Class-coloured box maps at the mask's size M; two stride-2 convolutions; a bi-directional ConvLSTM over the objects
    at M/4; noise per object; a joint convolution; times the box; a residual block; two up-blocks; a mask in the box.
    Only real objects are computed: everything but the ConvLSTM's steps sees them as one flat batch [N, ...].

    With templates (not in the paper) all this draws a correction, 0 before training, of a shape in box coordinates.
    """

    def __init__(self, sizes: ShapeSizes) -> None:
        """Raises ValueError where `mask_size` is not a power of two from 16 up."""
        super().__init__()
        width, mask_size = sizes.width, sizes.mask_size
        if mask_size < 16 or mask_size & (mask_size - 1):
            raise ValueError(f"mask_size {mask_size}: use a power of two from 16 up")
        self.mask_size, self.noise_shape = mask_size, (sizes.objects, sizes.noise)
        # No norm before the ConvLSTM: of a flat box it would leave only the signs of the class's embedding.
        self.first = ClassBoxConv(2, sizes.classes, sizes.class_embedding, width)
        self.second = DownBlock(width, width, norm="none")
        self.objects = BidirectionalConvLSTM(width, max(width // 2, 1))
        self.joint = conv3x3(2 * max(width // 2, 1) + sizes.noise, width, bias=True)
        self.decode = nn.Sequential(
            ResidualBlock(width),
            UpBlock(width, width, norm="instance"),
            UpBlock(width, max(width // 2, 4), norm="instance"),
            conv3x3(max(width // 2, 4), 1, bias=True),
        )
        self.templates: BoxTemplates | None = None
        if sizes.template:
            self.templates = BoxTemplates(sizes.classes, sizes.class_embedding, sizes.template, sizes.noise)
            _zero(self.decode[-1])

    def forward(self, layout: Layout, noise: Tensor) -> Tensor:
        """Layout of B x R, standard-normal noise [B, R, Z] -> masks float32 [B, R, M, M] in [0, 1].

        A mask covers the whole picture and is 0 outside its (soft-edged) box and where the layout is padded.
        """
        return self.masks(layout, self.logits(layout, noise))

    def logits(self, layout: Layout, noise: Tensor) -> Tensor:
        """The same before the sigmoid and the box: float32 [B, R, M, M], 0 where padded."""
        places = layout.places
        labels, boxes = layout.labels[places], layout.boxes[places]
        features = self.second(self.first(box_coordinates(boxes, self.mask_size), labels, boxes))
        joint_features = self.objects(features, layout.count, places, layout.longest)
        draws = noise[places].to(joint_features.dtype)[..., None, None].expand(-1, -1, *joint_features.shape[2:])
        joined = functional.leaky_relu(self.joint(torch.cat([joint_features, draws], 1)), 0.2)
        joined = joined * raster_boxes(boxes, self.mask_size // 4).unsqueeze(1)
        flat: Tensor = self.decode(joined).squeeze(1).float()
        if self.templates is not None:
            flat = flat + self.templates(labels, boxes, noise[places], self.mask_size)
        dense = flat.new_zeros(*layout.labels.shape, *flat.shape[1:])
        dense[places] = flat
        return dense

    def masks(self, layout: Layout, logits: Tensor) -> Tensor:
        """Logits [B, R, M, M] -> masks [B, R, M, M]."""
        return logits.sigmoid() * raster_boxes(layout.boxes, self.mask_size) * layout.valid[..., None, None]


class StandInShapes(nn.Module):
    """Takes the place of a shape generator where data have no masks: ellipses or boxes; nothing is learned."""

    def __init__(self, shapes: str, objects: int, mask_size: int) -> None:
        """`shapes`: "ellipse" or "box"; R = `objects`, M = `mask_size`."""
        super().__init__()
        self.shapes, self.mask_size, self.noise_shape = shapes, mask_size, (objects, 1)

    def forward(self, layout: Layout, noise: Tensor) -> Tensor:
        """Layout of B x R -> masks [B, R, M, M] in [0, 1], 0 where padded; `noise` [B, R, 1] changes nothing."""
        return stand_in_masks(self.shapes, layout.boxes, self.mask_size) * layout.valid[..., None, None]


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
