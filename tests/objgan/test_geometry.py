import pytest
import torch

from objgan.geometry import (
    box_iou,
    clip_xywh,
    cxywr_to_xywh,
    ellipses,
    merge_by_class,
    overlap,
    raster_boxes,
    to_rois,
    xywh_to_cxywr,
    xywh_to_xyxy,
)


def test_formats_by_hand() -> None:
    box = torch.tensor([0.1, 0.2, 0.4, 0.2])
    torch.testing.assert_close(xywh_to_xyxy(box), torch.tensor([0.1, 0.2, 0.5, 0.4]))
    torch.testing.assert_close(xywh_to_cxywr(box), torch.tensor([0.3, 0.3, 0.4, 0.5]))
    torch.testing.assert_close(cxywr_to_xywh(xywh_to_cxywr(box)), box)


def test_conversion_changes_nothing_in_place() -> None:
    box = torch.tensor([[0.1, 0.2, 0.4, 0.2]])
    kept = box.clone()
    for convert in (xywh_to_xyxy, xywh_to_cxywr, cxywr_to_xywh, clip_xywh):
        convert(box)
    to_rois(box, torch.zeros(1, dtype=torch.int64), 16)
    assert torch.equal(box, kept)


def test_boxes_are_cut_at_the_border() -> None:
    boxes = torch.tensor([[-0.1, 0.5, 0.4, 0.9], [1.2, 0.0, 0.3, 0.3]])
    torch.testing.assert_close(clip_xywh(boxes), torch.tensor([[0.0, 0.5, 0.3, 0.5], [1.0, 0.0, 0.0, 0.3]]))


def test_a_box_without_height_has_a_finite_ratio() -> None:
    assert torch.isfinite(xywh_to_cxywr(torch.tensor([0.1, 0.2, 0.0, 0.0]))).all()


def test_iou_by_hand() -> None:
    a, b = torch.tensor([0.0, 0.0, 0.2, 0.2]), torch.tensor([0.1, 0.0, 0.2, 0.2])
    assert box_iou(a, b).item() == pytest.approx(1 / 3)
    assert box_iou(a, a).item() == pytest.approx(1)
    assert box_iou(torch.zeros(4), torch.zeros(4)).item() == 0


def test_raster_counts_parts_of_pixels() -> None:
    raster = raster_boxes(torch.tensor([0.25, 0.0, 0.375, 0.5]), 4)
    expected = torch.tensor([[0.0, 1.0, 0.5, 0.0]] * 2 + [[0.0] * 4] * 2)
    torch.testing.assert_close(raster, expected)


def test_raster_sends_gradients_to_the_box() -> None:
    box = torch.tensor([0.3, 0.3, 0.33, 0.33], requires_grad=True)
    raster_boxes(box, 8).sum().backward()
    assert (box.grad[2:] > 0).all()  # type: ignore[index]


def test_an_ellipse_fills_its_box() -> None:
    mask = ellipses(torch.tensor([0.25, 0.0, 0.5, 1.0]), 64)
    assert mask.float().mean().item() == pytest.approx(3.14159 / 4 * 0.5, abs=0.01)
    assert not mask[:, :16].any()


def test_rois_are_scaled_once() -> None:
    boxes = torch.tensor([[0.5, 0.25, 0.25, 0.5], [0.1, 0.1, 0.1, 0.1]])
    rois = to_rois(boxes, torch.tensor([0, 1]), 16)
    torch.testing.assert_close(rois, torch.tensor([[0, 8, 4, 12, 12], [1, 1.6, 1.6, 3.2, 3.2]]))


def test_merging_is_the_maximum_over_a_class_at_its_first_object() -> None:
    masks = torch.rand(1, 4, 8, 8)
    labels, valid = torch.tensor([[3, 1, 3, 3]]), torch.tensor([[True, True, True, False]])
    merged = merge_by_class(masks, labels, valid)
    torch.testing.assert_close(merged[0, 0], torch.maximum(masks[0, 0], masks[0, 2]))
    torch.testing.assert_close(merged[0, 1], masks[0, 1])
    assert not merged[0, 2:].any()


def test_overlap_is_the_share_of_the_smaller_box() -> None:
    box = torch.tensor([0.0, 0.0, 0.4, 0.4])
    others = torch.tensor(
        [[0.2, 0.2, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1], [0.4, 0.0, 0.2, 0.2], [0.8, 0.8, 0.1, 0.1], [0.1, 0.1, 0.0, 0.2]]
    )
    torch.testing.assert_close(overlap(box, others), torch.tensor([0.25, 1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(overlap(others, box), overlap(box, others))
