"""Semantic object accuracy, by hand."""

import numpy as np
import pytest
import torch

from objgan.metrics.bootstrap import interval
from objgan.metrics.soa import object_accuracy, object_accuracy_intervals

NAMED = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0]], dtype=torch.bool)
FOUND = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)


def test_by_hand() -> None:
    # Class 0 in two of three, class 1 in one of two, class 2 never named, class 3 in none of one.
    assert object_accuracy(FOUND, NAMED) == pytest.approx(((2 / 3 + 1 / 2 + 0) / 3, 3 / 6))


def test_bounds() -> None:
    assert object_accuracy(NAMED, NAMED) == (1, 1)
    assert object_accuracy(torch.zeros_like(NAMED), NAMED) == (0, 0)
    assert np.isnan(object_accuracy(FOUND, torch.zeros_like(NAMED))).all()
    with pytest.raises(ValueError, match="one shape"):
        object_accuracy(FOUND, NAMED[:2])


def test_intervals_are_those_of_the_slow_way() -> None:
    rng = np.random.default_rng(0)
    named = rng.random((60, 5)) < [0.5, 0.3, 0.1, 0.02, 0.0]
    found = rng.random((60, 5)) < 0.7
    by_class, by_image = object_accuracy_intervals(found, named, resamples=200, seed=1)
    for fast, which in ((by_class, 0), (by_image, 1)):
        slow = interval(lambda f, n, which=which: object_accuracy(f, n)[which], found, named, resamples=200, seed=1)
        assert (fast.low, fast.high, fast.value) == pytest.approx((slow.low, slow.high, slow.value))
        assert fast.low < fast.value < fast.high
    nothing, _ = object_accuracy_intervals(found, np.zeros_like(named))
    assert np.isnan(nothing.value)
