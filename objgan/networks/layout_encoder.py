"""Layout encoder: the class map of a layout, convolved without ever being made dense."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.batch import resize_images
from objgan.geometry import merge_by_class
from objgan.layout import Layout
from objgan.networks.layers import DownBlock, Norm, leaky, norm2d


class LayoutEncoder(nn.Module):
    """Class map -> reflection-padded 3x3 convolution, instance norm, leaky ReLU [-> stride-2 block of `down` channels].

    A picture has at most R classes, so each picture's slice of the convolution's weight is gathered by label and
    the work does not depend on the number of classes. No bias: an empty layout is encoded as 0. With `norm` "none" an
    object's code does not depend on the other objects.
    """

    def __init__(self, classes: int, channels: int, down: int | None = None, norm: Norm = "instance") -> None:
        super().__init__()
        self.norm = norm2d(norm, channels)
        dense = nn.init.orthogonal_(torch.empty(channels, classes, 3, 3))
        self.weight = nn.Parameter(dense.transpose(0, 1).contiguous())  # [classes, channels, 3, 3]
        self.down = nn.Identity() if down is None else DownBlock(channels, down, norm)

    def forward(self, layout: Layout, size: int) -> Tensor:
        """Layout with masks -> [B, channels, size, size], or [B, down, size / 2, size / 2] with a stride-2 block.

        Masks are brought to `size` x `size` by area average or bilinear interpolation.

        Raises:
            ValueError: the layout has no masks.
        """
        maps = merge_by_class(layout.soft_masks, layout.labels, layout.valid)
        labels = layout.labels.masked_fill(~layout.valid, 0)
        coded = self.convolve(resize_images(maps, size), labels)
        encoded: Tensor = self.down(leaky(self.norm(coded)))
        return encoded

    def convolve(self, maps: Tensor, labels: Tensor) -> Tensor:
        """The dense class map's convolution from the classes present alone.

        maps [B, R, S, S], one per class present (`geometry.merge_by_class`), labels int64 [B, R] -> [B, channels, S, S]
        """
        batch, objects, size, _ = maps.shape
        weight = self.weight[labels].transpose(1, 2)  # [B, channels, R, 3, 3]
        padded = functional.pad(maps.to(weight.dtype), (1, 1, 1, 1), mode="reflect")
        # One group a picture: every picture has a kernel of its own.
        padded = padded.reshape(1, batch * objects, size + 2, size + 2)
        return functional.conv2d(padded, weight.flatten(0, 1), groups=batch).view(batch, -1, size, size)
