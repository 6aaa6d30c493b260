from dataclasses import replace

import pytest
import torch

from objgan.augment import HOLE, Augmentation
from objgan.geometry import raster_boxes
from objgan.layout import Layout


def _plain(shift=(0, 0), hole=(1000, 1000), size=1, grid=16) -> Augmentation:  # type: ignore[no-untyped-def]
    ones = torch.ones(size)
    return Augmentation(torch.tensor([shift] * size), torch.tensor([hole] * size), 0 * ones, ones, ones, grid)


def _layout(boxes: torch.Tensor, side: int) -> Layout:
    masks = raster_boxes(boxes, side)
    labels = torch.zeros(boxes.shape[:2], dtype=torch.int64)
    return Layout(labels, boxes, torch.full((len(boxes),), boxes.shape[1]), masks)


def test_nothing_drawn_changes_nothing() -> None:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(_plain(size=2).images(images), images)


def test_image_masks_and_boxes_move_together() -> None:
    boxes = torch.tensor([[[0.25, 0.5, 0.25, 0.125]]])
    augmentation = _plain(shift=(2, -1))
    moved = augmentation.layout(_layout(boxes, 32))
    torch.testing.assert_close(moved.boxes, torch.tensor([[[0.375, 0.4375, 0.25, 0.125]]]))
    assert moved.masks is not None
    torch.testing.assert_close(moved.masks, raster_boxes(moved.boxes, 32))
    # at another resolution, the object's pixels in the image move by the same fraction
    picture = raster_boxes(boxes, 64).expand(1, 3, 64, 64)
    torch.testing.assert_close(augmentation.images(picture), raster_boxes(moved.boxes, 64).expand(1, 3, 64, 64))


def test_hole_is_at_the_same_place_at_every_size() -> None:
    augmentation = _plain(hole=(4, 2))
    image = augmentation.images(torch.ones(1, 3, 64, 64))[0, 0]
    assert image[8:40, 16:48].eq(0).all() and image.sum() == 64 * 64 - 32 * 32
    masks = augmentation.layout(_layout(torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), 16)).masks
    assert masks is not None and masks[0, 0, 2:10, 4:12].eq(0).all() and masks.sum() == 16 * 16 - 8 * 8


def test_boxes_out_of_sight_lose_their_area() -> None:
    boxes = torch.tensor([[[0.9, 0.0, 0.1, 0.1], [0.3, 0.3, 0.1, 0.1], [0.1, 0.3, 0.6, 0.1]]])
    before = boxes.clone()
    moved = _plain(shift=(2, 0), hole=(4, 4)).boxes(boxes)
    assert (moved[0, :, 2] * moved[0, :, 3] > 0).tolist() == [False, False, True]
    assert torch.equal(boxes, before)


def test_colour_is_for_images_alone() -> None:
    loud = replace(_plain(), brightness=torch.tensor([0.3]), contrast=torch.tensor([1.5]))
    layout = _layout(torch.tensor([[[0.25, 0.25, 0.5, 0.5]]]), 16)
    masks = loud.layout(layout).masks
    assert masks is not None and torch.equal(masks, layout.soft_masks)
    grey = torch.zeros(1, 3, 16, 16)
    torch.testing.assert_close(loud.images(grey), grey + 0.3)


def test_draws_differ_by_sample_and_follow_the_seed() -> None:
    torch.manual_seed(0)
    first = Augmentation.draw(64, 64)
    torch.manual_seed(0)
    again = Augmentation.draw(64, 64)
    assert torch.equal(first.shift, again.shift) and torch.equal(first.contrast, again.contrast)
    assert len(first.shift.unique(dim=0)) > 30 and first.shift.abs().max() == 8
    assert first.hole.min() >= -64 * HOLE / 2 and first.hole.max() < 64


def test_gradients_pass() -> None:
    images = torch.zeros(4, 3, 32, 32, requires_grad=True)
    torch.manual_seed(1)
    Augmentation.draw(4, 32).images(images).square().sum().backward()
    assert images.grad is not None and torch.isfinite(images.grad).all() and images.grad.abs().sum() > 0


def test_a_side_off_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        _plain(grid=16).images(torch.zeros(1, 3, 40, 40))
