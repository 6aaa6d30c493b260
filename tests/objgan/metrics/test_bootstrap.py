"""Bootstrap intervals: by simulation, and against the slow way."""

import math

import numpy as np
import pytest
import torch

from objgan.metrics.bootstrap import (
    frechet_interval,
    interval,
    mean_interval,
    paired_difference,
    ratio_interval,
    too_dear,
)
from objgan.metrics.distances import frechet_distance


def test_the_interval_of_a_mean_covers_it() -> None:
    """95 % of 200 data sets, give or take three standard errors and the percentile method's shortfall at n = 60."""
    rng, covered = np.random.default_rng(0), 0
    for number in range(200):
        found = mean_interval(rng.exponential(size=60), resamples=300, seed=number)
        covered += found.low <= 1.0 <= found.high
    assert 0.89 <= covered / 200 <= 0.985


def test_the_interval_of_a_mean_is_its_standard_error_wide() -> None:
    values = np.random.default_rng(1).standard_normal(2000)
    found = mean_interval(values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert found.value == pytest.approx(values.mean()) and found.samples == 2000
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_fast_and_slow_ways_agree() -> None:
    above, below = np.random.default_rng(2).poisson(3, (2, 80)).astype(float)
    slow = interval(lambda a, b: a.sum() / b.sum(), above, below)
    fast = ratio_interval(above, below)
    assert (fast.low, fast.high, fast.value) == pytest.approx((slow.low, slow.high, slow.value))
    slow, fast = interval(np.mean, above, seed=3), mean_interval(above, seed=3)
    assert (fast.low, fast.high, fast.value) == pytest.approx((slow.low, slow.high, slow.value))
    assert mean_interval(above, seed=4) != fast


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).standard_normal(50)
    whole = mean_interval(values)
    monkeypatch.setattr("objgan.metrics.bootstrap._BLOCK_ENTRIES", 350)
    assert mean_interval(values).low == pytest.approx(whole.low)


def test_rows_with_nan_are_dropped() -> None:
    a, b = torch.tensor([1.0, 2.0, torch.nan, 5.0]), torch.tensor([0.0, torch.nan, 3.0, 1.0])
    found = paired_difference(a, b)
    assert found.samples == 2 and found.value == pytest.approx(2.5)
    assert (found.low, found.high) == (1.0, 4.0)
    vectors = np.array([[1.0, np.nan], [1.0, 2.0], [3.0, 4.0]])
    assert interval(lambda v: v.sum(), vectors, resamples=50).value == 10


def test_a_paired_difference_is_narrower_than_an_unpaired_one() -> None:
    rng = np.random.default_rng(4)
    hard = 10 * rng.standard_normal(200)
    better = hard + 0.3 + 0.1 * rng.standard_normal(200)
    found = paired_difference(better, hard)
    assert 0.25 < found.low < 0.3 < found.high < 0.35
    assert mean_interval(better).low < mean_interval(hard).high


def test_nothing_to_resample() -> None:
    empty, one = mean_interval(np.array([np.nan])), mean_interval(np.array([2.0, np.nan]))
    assert empty.samples == 0 and math.isnan(empty.value) and math.isnan(empty.low)
    assert one.samples == 1 and one.value == 2 and math.isnan(one.high)
    assert interval(np.mean, np.array([])).samples == 0
    assert math.isnan(ratio_interval(np.zeros(3), np.zeros(3)).value)
    with pytest.raises(ValueError, match="rows"):
        paired_difference(np.zeros(3), np.zeros(4))


def test_the_interval_of_a_frechet_distance_covers_its_expectation() -> None:
    """At these numbers of samples, bias included; percentiles that are not moved would lie above it."""
    rng = np.random.default_rng(5)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return rng.standard_normal((60, 6)), rng.standard_normal((60, 6)) + 0.2

    expected = float(np.mean([frechet_distance(*draw()) for _ in range(300)]))
    found = [frechet_interval(*draw(), resamples=60, seed=number) for number in range(100)]
    assert sum(one.low <= expected <= one.high for one in found) >= 85
    assert all(one.low <= one.value <= one.high for one in found)


def test_an_interval_of_many_dimensions_is_refused() -> None:
    assert too_dear(256) is None
    assert "2048" in str(too_dear(2048))
    with pytest.raises(ValueError, match="no interval"):
        frechet_interval(np.zeros((3, 300)), np.zeros((3, 300)))
