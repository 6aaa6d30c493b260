"""Shapes in box coordinates: what an object's class, size and place imply for its mask before anything is drawn."""

import torch
from torch import Tensor, nn

_STEEPNESS = 4.0
_HIDDEN = 128
# Logits move this many times faster than weights: at the convolutions' rate a shape is learned in a hundred steps.
_GAIN = 8.0
_FEATURES = 12


class BoxTemplates(nn.Module):
    """Logits on a grid over the box: one grid for all objects, an ellipse at first, and what an object adds to it.

    What is added depends on the class, and on the box's place, size, ratio and which borders of the picture it touches
    (an object that is cut off fills its box there); it is 0 before training. So a few objects of a class are enough.
    """

    def __init__(self, classes: int, embedding: int, side: int, noise: int) -> None:
        """`side`: cells of the grid across and down."""
        super().__init__()
        self.side = side
        centres = (torch.arange(side) + 0.5) / side * 2 - 1
        ellipse = 1 - centres[:, None] ** 2 - centres[None] ** 2
        self.shared = nn.Parameter(_STEEPNESS / _GAIN * ellipse)
        self.embedding = nn.Embedding(classes, embedding)
        self.hidden = nn.Sequential(
            nn.Linear(_FEATURES + embedding + noise, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.SiLU()
        )
        self.offset = nn.Linear(_HIDDEN, side * side)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)

    def forward(self, labels: Tensor, boxes: Tensor, noise: Tensor, size: int) -> Tensor:
        """int64 [N], xywh fractions [N, 4], [N, noise] -> logits float32 [N, size, size] over the whole picture."""
        inputs = torch.cat([_features(boxes, size), self.embedding(labels), noise], 1)
        offsets = self.offset(self.hidden(inputs)).float().view(-1, self.side, self.side)
        return stretch(_GAIN * (self.shared + offsets), boxes, size)


def stretch(grids: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Bilinear, each over its box: [N, ..., side, side], xywh fractions [N, 4] -> [N, ..., size, size]; edges go on
    outside.
    """
    side = grids.shape[-1]
    centres = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size
    cells = (centres - boxes[:, :2, None]) / boxes[:, 2:, None].clamp_min(1e-6) * side - 0.5
    away = cells.clamp(0, side - 1)[..., None] - torch.arange(side, device=boxes.device)
    across, down = (1 - away.abs()).clamp_min(0).to(grids.dtype).unbind(1)  # [N, size, side]: weights of the cells
    with torch.autocast(grids.device.type, enabled=False):
        return torch.einsum("nyi,n...ij,nxj->n...yx", down, grids, across)


def _features(boxes: Tensor, size: int) -> Tensor:
    """xywh [N, 4] -> [N, 12], each of about unit size: centre, sides, their logarithms and ratio, borders touched."""
    pixel = 1 / size
    centre, sides = boxes[:, :2] + boxes[:, 2:] / 2 - 0.5, boxes[:, 2:]
    logarithms = sides.clamp_min(pixel).log()
    ratio = logarithms[:, 1:] - logarithms[:, :1]
    gaps = torch.cat([boxes[:, :2], 1 - boxes[:, :2] - sides], 1)
    return torch.cat([centre, sides, logarithms / 2 + 0.5, ratio, ratio.abs(), (gaps < pixel).to(boxes.dtype)], 1)
