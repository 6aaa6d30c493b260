"""Measures of layouts, by hand."""

import math

import numpy as np
import pytest
import torch

from objgan.layout import Layout
from objgan.metrics.layouts import best_iou, class_counts, count_error, count_histogram_distance, label_f1, named_share

NONE = [0.0, 0.0, 0.0, 0.0]


def layout(*pictures: list[tuple[int, list[float]]]) -> Layout:
    """Pictures of (label, xywh) objects; the padding has label 0, as some objects do."""
    padded = [picture + [(0, NONE)] * (3 - len(picture)) for picture in pictures]
    return Layout(
        labels=torch.tensor([[label for label, _ in picture] for picture in padded]),
        boxes=torch.tensor([[box for _, box in picture] for picture in padded]),
        count=torch.tensor([len(picture) for picture in pictures]),
    )


WHOLE, LEFT, TOP = [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 0.5]
TRUE = layout([(1, WHOLE), (1, LEFT), (2, TOP)], [(0, WHOLE)], [], [])
PREDICTED = layout([(1, LEFT), (3, TOP)], [], [], [(0, WHOLE)])


def test_label_f1() -> None:
    # {1, 3} against {1, 2}: 2 x 1 / 4. Nothing against something is 0; nothing against nothing is right.
    assert label_f1(PREDICTED, TRUE, 4).tolist() == pytest.approx([0.5, 0.0, 1.0, 0.0])


def test_count_error() -> None:
    assert count_error(PREDICTED, TRUE).tolist() == [1, 1, 0, 1]


def test_best_iou_of_matched_labels() -> None:
    # The two true objects of class 1 against the left half: 0.5 and 1. Class 2 was not predicted.
    values = best_iou(PREDICTED, TRUE).tolist()
    assert values[0] == pytest.approx(0.75)
    assert all(math.isnan(value) for value in values[1:])


def test_named_share() -> None:
    named = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    values = named_share(PREDICTED, named).tolist()
    assert values[0] == pytest.approx(2 / 3) and values[1] == 0 and math.isnan(values[2]) and values[3] == 1


def test_padding_changes_nothing() -> None:
    dirty = Layout(TRUE.labels.masked_fill(~TRUE.valid, 3), TRUE.boxes.clone(), TRUE.count)
    dirty.boxes[~TRUE.valid] = torch.tensor(WHOLE)
    for measure in (best_iou, lambda p, t: label_f1(p, t, 4)):
        torch.testing.assert_close(measure(PREDICTED, dirty), measure(PREDICTED, TRUE), equal_nan=True)
        torch.testing.assert_close(measure(dirty, PREDICTED), measure(TRUE, PREDICTED), equal_nan=True)


def test_class_counts_leave_out_padding() -> None:
    assert class_counts(TRUE, 4).tolist() == [[0, 2, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_count_histogram_distance_by_hand() -> None:
    true = np.array([[0, 1, 0], [0, 1, 0], [0, 2, 0], [1, 0, 0]])
    predicted = np.array([[0, 1, 0], [0, 1, 0]])
    # Class 0: shares (1, 0) against (3/4, 1/4). Class 1: (0, 1, 0) against (1/4, 1/2, 1/4). Class 2 never comes.
    assert count_histogram_distance(predicted, true) == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert count_histogram_distance(torch.tensor(true), true[::-1]) == 0
    assert count_histogram_distance(np.array([[3]]), np.array([[1], [2]])) == 1
    assert math.isnan(count_histogram_distance(np.zeros((2, 3)), np.zeros((1, 3))))
