import pytest
import torch

from objgan.geometry import raster_boxes
from objgan.layout import Layout
from objgan.metrics.images import first_of_pool, object_colour_distance


def _layout(*counts: int) -> Layout:
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]).expand(len(counts), 2, 4)
    return Layout(torch.zeros(len(counts), 2, dtype=torch.int64), boxes, torch.tensor(counts), raster_boxes(boxes, 16))


def test_first_of_pool() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.9, 0.9, 0.5]])
    others = ~torch.eye(3, dtype=torch.bool)
    assert first_of_pool(scores, others).tolist() == [1, 0, 0]
    others[1, 0] = False  # the same image: no competitor
    assert first_of_pool(scores, others).tolist() == [1, 1, 0]
    others[2] = False
    assert first_of_pool(scores, others)[2].isnan()


def test_a_tie_is_not_first() -> None:
    assert first_of_pool(torch.zeros(2, 2), ~torch.eye(2, dtype=torch.bool)).tolist() == [0, 0]


def test_colour_distance_by_hand() -> None:
    reals = torch.zeros(1, 3, 16, 16)
    images = reals.clone()
    images[..., :8, :8] = 0.6  # the first object: mean off by 0.6, spread alike
    assert object_colour_distance(images, reals, _layout(2)).item() == pytest.approx(0.3, abs=1e-3)
    images[..., 8:, 8:] = torch.tensor([1.0, -1.0]).repeat(4)  # the second: mean alike, spread 1
    assert object_colour_distance(images, reals, _layout(2)).item() == pytest.approx(0.8, abs=1e-3)


def test_background_and_padding_do_not_matter() -> None:
    reals = torch.zeros(1, 3, 16, 16)
    images = reals.clone()
    images[..., 8:, :] = 1
    assert object_colour_distance(images, reals, _layout(1)).item() == 0


def test_no_objects_is_nan() -> None:
    images = torch.zeros(2, 3, 16, 16)
    assert object_colour_distance(images, images, _layout(0, 1)).isnan().tolist() == [True, False]
