"""Class-coloured box maps, and their first convolution without making them."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from objgan.geometry import raster_boxes


class ClassBoxConv(nn.Module):
    """4x4 convolution of stride 2 over [planes, box filled with its class's embedding], leaky ReLU 0.2.

    Every channel of such a box map is the same raster times a number, so the class's embedding is folded into the
    kernel and one plane is convolved instead of `embedding` of them: the same function, without the map in memory
    (Li et al. give every class a channel of its own).
    """

    def __init__(self, planes: int, classes: int, embedding: int, outputs: int, spectral: bool = False) -> None:
        super().__init__()
        self.planes = planes
        self.embedding = nn.Embedding(classes, embedding)
        self.conv = nn.Conv2d(planes + embedding, outputs, 4, stride=2, padding=1)
        if spectral:
            parametrizations.spectral_norm(self.conv)

    def forward(self, planes: Tensor, labels: Tensor, boxes: Tensor) -> Tensor:
        """[N, planes, M, M], int64 [N], xywh fractions [N, 4] -> [N, outputs, M/2, M/2]."""
        weight, side = self.conv.weight, planes.shape[-1]
        out = functional.conv2d(planes, weight[:, : self.planes], self.conv.bias, stride=2, padding=1)
        kernels = torch.einsum("ne,oehw->nohw", self.embedding(labels), weight[:, self.planes :])
        raster = raster_boxes(boxes, side).unsqueeze(1)
        patches = functional.unfold(raster, 4, padding=1, stride=2)
        out = out + torch.bmm(kernels.flatten(2), patches).view_as(out)
        return functional.leaky_relu(out, 0.2)


def box_coordinates(boxes: Tensor, size: int) -> Tensor:
    """xywh fractions [N, 4] -> [N, 2, size, size]: x and y of each pixel within its box, -1 to 1, 0 outside the box.

    A network of local convolutions cannot see how far the far edge of a large box is; this shows it.
    """
    centres = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size

    def within(start: Tensor, length: Tensor) -> Tensor:
        offset = centres - (start + length / 2)[:, None]
        return (offset / (length[:, None] / 2).clamp_min(1e-6)).clamp(-1, 1)

    across = within(boxes[:, 0], boxes[:, 2])[:, None, :].expand(-1, size, -1)
    down = within(boxes[:, 1], boxes[:, 3])[:, :, None].expand(-1, -1, size)
    return torch.stack([across, down], 1) * raster_boxes(boxes, size).unsqueeze(1)
