"""A learned texture of each class in box coordinates (neural textures: Thies, Zollhöfer & Nießner 2019, section 3)."""

import torch
from torch import Tensor, nn

from objgan.layout import Layout
from objgan.networks.box_templates import stretch

_SIDE = 16
# Textures move this many times faster than weights: few pictures of a batch show a class.
_GAIN = 5.0


class ClassTextures(nn.Module):
    """Where objects of a class have their windows, lamps or wheels; 0 before training."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.textures = nn.Parameter(torch.zeros(classes, channels, _SIDE, _SIDE))

    def forward(self, layout: Layout, shares: Tensor) -> Tensor:
        """Layout of B x R, shares of the background and of each object in cells [B, R + 1, S, S] -> [B, T, S, S]."""
        textures = _GAIN * self.textures[layout.labels.flatten()]
        stretched = stretch(textures, layout.boxes.flatten(0, 1), shares.shape[-1])
        return (stretched.unflatten(0, layout.labels.shape) * shares[:, 1:, None]).sum(1)
