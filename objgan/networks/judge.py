"""The judge: what is where in an image, in which colour, and in which scene. It learns from true images alone."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.attributes import COLOURS, SCENES
from objgan.batch import resize_images
from objgan.networks.layers import conv3x3


@dataclass(frozen=True)
class JudgeLogits:
    """Logits. The last of the C + 1 classes is nothing: background, or what only has an object's outline.

    classes: [B, C + 1, G, G];  colours: [B, 10, G, G], by `COLOURS`;  scenes: [B, 4], by `SCENES`
    """

    classes: Tensor
    colours: Tensor
    scenes: Tensor


class Judge(nn.Module):
    """A small U-Net (Ronneberger et al. 2015) whose skips are added, from 64 x 64 pixels to G x G = 32 x 32 cells.

    Args:
        classes: C
        width:   channels at 32 x 32; twice as many at 16 x 16, four times at 8 x 8
        found_threshold: from which score `objgan.metrics.objects` takes a class for seen
    """

    side = 64
    grid = 32

    def __init__(self, classes: int, width: int, found_threshold: float) -> None:
        super().__init__()
        self.classes, self.found_threshold = classes, found_threshold
        self.at_32 = nn.Sequential(_block(3, width // 2), _block(width // 2, width, stride=2), _block(width, width))
        self.at_16 = nn.Sequential(_block(width, 2 * width, stride=2), _block(2 * width, 2 * width))
        self.at_8 = nn.Sequential(_block(2 * width, 4 * width, stride=2), _block(4 * width, 4 * width))
        self.up_16 = _Up(4 * width, 2 * width)
        self.up_32 = _Up(2 * width, width)
        self.widen = _block(width, 2 * width)
        self.to_classes = nn.Conv2d(2 * width, classes + 1, 1)
        self.to_colours = nn.Conv2d(2 * width, len(COLOURS), 1)
        self.to_scenes = nn.Linear(4 * width, len(SCENES))

    def forward(self, images: Tensor) -> JudgeLogits:
        """float [B, 3, S, S] in [-1, 1] -> logits; other sizes are brought to 64 x 64."""
        pixels = resize_images(images, self.side).contiguous(memory_format=torch.channels_last)  # a quarter faster
        fine = self.at_32(pixels)  # [B, W, 32, 32]
        middle = self.at_16(fine)  # [B, 2W, 16, 16]
        coarse = self.at_8(middle)  # [B, 4W, 8, 8]
        hidden = self.widen(self.up_32(self.up_16(coarse, middle), fine))  # [B, 2W, 32, 32]
        return JudgeLogits(
            classes=self.to_classes(hidden).float(),
            colours=self.to_colours(hidden).float(),
            scenes=self.to_scenes(coarse.mean((2, 3))).float(),
        )


class _Up(nn.Module):
    """[B, inputs, H, W] and [B, outputs, 2H, 2W] -> [B, outputs, 2H, 2W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(inputs, outputs, 1)
        self.block = _block(outputs, outputs)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        grown = functional.interpolate(self.narrow(coarse), scale_factor=2, mode="nearest")
        mixed: Tensor = self.block(grown + skip)
        return mixed


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = conv3x3(inputs, outputs)
    convolution.stride = (stride, stride)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
