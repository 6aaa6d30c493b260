"""Semantic object accuracy, by hand."""

import numpy as np
import pytest
import torch

from objgan.metrics.bootstrap import interval
from objgan.metrics.soa import object_accuracy, object_accuracy_intervals

NAMED = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0]], dtype=torch.bool)
FOUND = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)


def test_by_hand() -> None:
    accuracy = object_accuracy(FOUND, NAMED)
    # Class 0 in two of three, class 1 in one of two, class 2 never named, class 3 in none of one.
    assert accuracy.recalls[[0, 1, 3]].tolist() == pytest.approx([2 / 3, 1 / 2, 0])
    assert np.isnan(accuracy.recalls[2]) and accuracy.named.tolist() == [3, 2, 0, 1]
    assert accuracy.classes == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert accuracy.images == pytest.approx(3 / 6)


def test_classes_that_the_detector_does_not_know_count_for_nothing() -> None:
    accuracy = object_accuracy(FOUND, NAMED, known=torch.tensor([True, True, True, False]))
    assert accuracy.classes == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert accuracy.images == pytest.approx(3 / 5)


def test_bounds() -> None:
    assert object_accuracy(NAMED, NAMED).classes == object_accuracy(NAMED, NAMED).images == 1
    nothing = object_accuracy(torch.zeros_like(NAMED), NAMED)
    assert nothing.classes == nothing.images == 0
    unnamed = object_accuracy(FOUND, torch.zeros_like(NAMED))
    assert np.isnan(unnamed.classes) and np.isnan(unnamed.images)
    with pytest.raises(ValueError, match="one shape"):
        object_accuracy(FOUND, NAMED[:2])


def test_intervals_are_those_of_the_slow_way() -> None:
    rng = np.random.default_rng(0)
    named = rng.random((60, 5)) < [0.5, 0.3, 0.1, 0.02, 0.0]
    found = rng.random((60, 5)) < 0.7
    by_class, by_image = object_accuracy_intervals(found, named, resamples=200, seed=1)
    for fast, name in ((by_class, "classes"), (by_image, "images")):
        slow = interval(
            lambda f, n, name=name: getattr(object_accuracy(f, n), name), found, named, resamples=200, seed=1
        )
        assert (fast.low, fast.high, fast.value) == pytest.approx((slow.low, slow.high, slow.value))
        assert fast.low < fast.value < fast.high
    nothing, _ = object_accuracy_intervals(found, np.zeros_like(named))
    assert np.isnan(nothing.value)
