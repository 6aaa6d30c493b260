"""Shapes in box coordinates: where they land, what they depend on."""

import pytest
import torch
from torch import Tensor

from objgan.networks.box_templates import BoxTemplates, stretch

BOXES = torch.tensor([[0.25, 0.5, 0.5, 0.25], [0.0, 0.0, 1.0, 1.0]])


@pytest.fixture
def templates() -> BoxTemplates:
    torch.manual_seed(0)
    made = BoxTemplates(classes=3, embedding=4, side=8, noise=2)
    torch.nn.init.normal_(made.offset.weight)
    return made


def _draw(templates: BoxTemplates, labels: list[int], boxes: Tensor, noise: float = 0.0) -> Tensor:
    return templates(torch.tensor(labels, dtype=torch.long), boxes, torch.full((len(labels), 2), noise), 16)


def test_stretch_puts_corners_at_the_boxes_corners() -> None:
    """A 2 x 2 shape over 8 x 4 pixels of 16: the corner pixels are nearer to the border than any cell's centre."""
    shapes = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    placed = stretch(shapes, BOXES[:1], 16)[0]
    assert [placed[8, 4], placed[8, 11], placed[11, 4], placed[11, 11]] == [1, 2, 3, 4]
    # Centre of pixel 6 is 2.5 of 8 pixels into the box: 2.5 / 8 * 2 - 0.5 = 0.125 of the way between the cells.
    assert placed[8, 6].item() == pytest.approx(1.125)
    assert placed[8:12].mean().item() == pytest.approx(2.5)
    several = stretch(torch.stack([shapes[0], 2 * shapes[0]])[None], BOXES[:1], 16)[0]
    torch.testing.assert_close(several, torch.stack([placed, 2 * placed]))


def test_before_training_all_objects_have_one_ellipse() -> None:
    fresh = BoxTemplates(classes=3, embedding=4, side=8, noise=2)
    drawn = _draw(fresh, [0, 2], BOXES[[1, 1]], noise=1.0)
    assert torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(drawn[0], drawn[0].flip(0).flip(1))
    assert drawn[0, 8, 8] > 3.5
    assert drawn[0, 0, 0] < -2


def test_class_noise_and_borders_change_the_shape(templates) -> None:
    inside = torch.tensor([[0.25, 0.25, 0.5, 0.5]])
    plain = _draw(templates, [1], inside)
    assert not torch.equal(plain, _draw(templates, [2], inside))
    assert not torch.equal(plain, _draw(templates, [1], inside, noise=1.0))
    # Less than a pixel from the border counts as touching it: a jump, where elsewhere a little changes a little.
    touching, near, next_to = (
        _draw(templates, [1], torch.tensor([[x / 16, 0.25, 0.5, 0.5]])) for x in (0.99, 1.01, 1.03)
    )
    assert (touching - near).abs().mean() > 5 * (near - next_to).abs().mean()


def test_empty_is_empty(templates) -> None:
    assert _draw(templates, [], BOXES[:0]).shape == (0, 16, 16)


def test_boxes_without_extent_stay_finite(templates) -> None:
    assert _draw(templates, [0], torch.zeros(1, 4)).isfinite().all()
