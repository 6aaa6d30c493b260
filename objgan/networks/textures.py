"""Learned textures: of each class in box coordinates (neural textures: Thies, Zollhöfer & Nießner 2019, section 3),
and of the background over the whole picture."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.layout import Layout
from objgan.networks.box_templates import stretch

_SIDE = 16
_BACKGROUNDS = 16
# Textures move this many times faster than weights: few pictures of a batch show a class.
_GAIN = 5.0


class Textures(nn.Module):
    """Where objects of a class have their windows, lamps or wheels, and a background its horizon; 0 before training."""

    def __init__(self, classes: int, channels: int, code: int) -> None:
        """`code`: channels of what mixes the backgrounds."""
        super().__init__()
        self.classes = nn.Parameter(torch.zeros(classes, channels, _SIDE, _SIDE))
        self.backgrounds = nn.Parameter(torch.zeros(_BACKGROUNDS, channels, _SIDE, _SIDE))
        self.mix = nn.Linear(code, _BACKGROUNDS)

    def forward(self, layout: Layout, shares: Tensor, code: Tensor) -> Tensor:
        """Layout of B x R, shares of the background and of each object in cells [B, R + 1, S, S], code [B, K]
        -> [B, T, S, S].
        """
        size, padded = shares.shape[-1], ~layout.valid
        labels, boxes = layout.labels.masked_fill(padded, 0), layout.boxes.masked_fill(padded[..., None], 0.0)
        stretched = stretch(_GAIN * self.classes[labels.flatten()], boxes.flatten(0, 1), size)
        stretched = stretched.reshape(*labels.shape, -1, size, size)
        background = torch.einsum("bk,ktyx->btyx", self.mix(code).to(stretched.dtype), _GAIN * self.backgrounds)
        background = functional.interpolate(background, (size, size), mode="bilinear", align_corners=False)
        painted: Tensor = (stretched * shares[:, 1:, None]).sum(1) + background * shares[:, :1]
        return painted
