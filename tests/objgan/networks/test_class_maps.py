"""The folded first convolution against the dense one, and the coordinates within a box."""

import pytest
import torch
from torch.nn import functional

from objgan.geometry import raster_boxes
from objgan.networks.class_maps import ClassBoxConv, box_coordinates


@pytest.mark.parametrize("spectral", [False, True])
def test_folded_convolution_is_the_dense_one(spectral: bool) -> None:
    torch.manual_seed(0)
    layer = ClassBoxConv(planes=2, classes=5, embedding=6, outputs=4, spectral=spectral).eval()
    planes, labels = torch.randn(3, 2, 16, 16), torch.tensor([0, 4, 4])
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.33], [0.0, 0.0, 1.0, 1.0], [0.7, 0.6, 0.1, 0.4]])
    coloured = layer.embedding(labels)[..., None, None] * raster_boxes(boxes, 16)[:, None]
    dense = layer.conv(torch.cat([planes, coloured], 1))
    torch.testing.assert_close(layer(planes, labels, boxes), functional.leaky_relu(dense, 0.2))


def test_coordinates_run_from_edge_to_edge_of_the_box_and_are_zero_outside() -> None:
    across, down = box_coordinates(torch.tensor([[0.25, 0.5, 0.5, 0.25]]), 8)[0]
    torch.testing.assert_close(across[4], torch.tensor([0, 0, -0.75, -0.25, 0.25, 0.75, 0, 0]))
    torch.testing.assert_close(down[:, 2], torch.tensor([0, 0, 0, 0, -0.5, 0.5, 0, 0]))
    assert not across[:4].any()
    assert not down[:, :2].any()
