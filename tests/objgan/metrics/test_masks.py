"""Mask IoU and the baselines by hand."""

import pytest
import torch

from objgan.geometry import ellipses
from objgan.layout import Layout
from objgan.metrics.masks import ClassMeanMasks, mask_iou, object_ious


def _layout(labels: list[list[int]], boxes: list, count: list[int], masks: torch.Tensor) -> Layout:
    return Layout(torch.tensor(labels), torch.tensor(boxes), torch.tensor(count), masks)


def test_iou_by_hand() -> None:
    """True 4 pixels, ours 4 of which 2 are shared: 2 / 6; second object equal: 1; third is padding; mean 2/3."""
    truth, ours = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 3, 4, 4)
    truth[0, 0, :2, :2], ours[0, 0, :2, 1:3] = 255, 0.6
    truth[0, 1, 3], ours[0, 1, 3] = 200, 0.5
    truth[0, 1, 2], ours[0, 1, 2] = 120, 0.49
    truth[0, 2], ours[0, 2] = 0, 1
    layout = _layout([[0, 0, 0]], [[[0.0, 0, 1, 1]] * 3], [2], truth)
    assert object_ious(ours, layout)[0, :2].tolist() == pytest.approx([1 / 3, 1])
    assert object_ious(ours, layout)[0, 2].isnan()
    assert mask_iou(ours, layout).tolist() == pytest.approx([2 / 3])


def test_iou_does_not_apply_without_objects_or_true_pixels() -> None:
    truth = torch.zeros(2, 1, 4, 4)
    truth[1, 0, 0, 0] = 0.4
    layout = _layout([[0], [0]], [[[0.0, 0, 1, 1]]] * 2, [0, 1], truth)
    assert mask_iou(torch.ones(2, 1, 4, 4), layout).isnan().all()


def test_iou_of_the_ellipse_in_a_square_is_a_quarter_of_pi() -> None:
    boxes = [[[0.0, 0.0, 1.0, 1.0]]]
    layout = _layout([[0]], boxes, [1], torch.ones(1, 1, 256, 256))
    assert mask_iou(ellipses(layout.boxes, 256).float(), layout).item() == pytest.approx(torch.pi / 4, abs=1e-3)


def test_class_mean_is_taken_in_box_coordinates_and_pasted_back() -> None:
    """Lower halves at two places and sizes: the mean is the lower half of any box."""
    truth = torch.zeros(1, 3, 32, 32)
    truth[0, 0, 8:16, 0:16], truth[0, 1, 24:32, 16:32] = 1, 1
    truth[0, 2] = 1  # padding
    boxes = [[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.0, 0, 1, 1]]]
    layout = _layout([[1, 1, 1]], boxes, [2], truth)
    means = ClassMeanMasks(2, side=16)
    means.add(layout)
    means.add(layout)
    assert means.counts.tolist() == [0, 4]
    torch.testing.assert_close(means.table[1], (torch.arange(16) >= 8).float()[:, None].expand(16, 16))
    torch.testing.assert_close(means.table[0], means.table[1])
    pasted = means.paste(torch.tensor([[[0.25, 0.0, 0.5, 1.0]]]), torch.tensor([[1]]), 32)
    expected = torch.zeros(32, 32)
    expected[16:, 8:24] = 1
    torch.testing.assert_close((pasted[0, 0] >= 0.5).float(), expected)
    assert not pasted[0, 0, :, :8].any()


def test_class_mean_averages_and_starts_as_the_whole_box() -> None:
    means = ClassMeanMasks(1, side=4)
    assert means.paste(torch.tensor([0.0, 0, 0.5, 1]), torch.tensor(0), 4).tolist() == [[1, 1, 0, 0]] * 4
    for value in (1.0, 0.0):
        means.add(_layout([[0]], [[[0.0, 0, 1, 1]]], [1], torch.full((1, 1, 8, 8), value)))
    torch.testing.assert_close(means.table, torch.full((1, 4, 4), 0.5))


def test_class_mean_of_no_objects() -> None:
    means = ClassMeanMasks(2)
    means.add(_layout([[0]], [[[0.0, 0, 0, 0]]], [0], torch.zeros(1, 1, 16, 16)))
    assert means.counts.tolist() == [0, 0]
    assert means.paste(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 16).shape == (0, 16, 16)
