"""Distances of feature sets, against torch-fidelity on the same features and against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from objgan.metrics.distances import frechet_distance, inception_score, kernel_distance


def features(rows: int, width: int, seed: int) -> torch.Tensor:
    """Correlated, with a mean away from 0."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64) / math.sqrt(width)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) @ mixing + 0.1 * seed


def their_frechet(a: torch.Tensor, b: torch.Tensor) -> float:
    statistics = fid_features_to_statistics(a), fid_features_to_statistics(b)
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


@pytest.mark.filterwarnings("ignore:The `disp` argument")
def test_frechet_distance_equals_torch_fidelity() -> None:
    a, b = features(400, 32, 1), features(300, 32, 2)
    assert frechet_distance(a, b) == pytest.approx(their_frechet(a, b), rel=1e-9)


def test_frechet_distance_of_two_gaussians() -> None:
    """Independent dimensions: sum of squared differences of means and of standard deviations."""
    rows = np.random.default_rng(0).standard_normal((50, 3))
    rows = (rows - rows.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False)).T)
    a, b = rows * [1.0, 2.0, 3.0], rows * [2.0, 2.0, 1.0] + [0.0, 5.0, 0.0]
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + 25)


def test_fewer_rows_than_dimensions() -> None:
    """Both ways to the covariance's factor: padding with constant dimensions leaves the distance as it was."""
    a, b = features(20, 8, 1).numpy(), features(15, 8, 2).numpy()
    wide = [np.concatenate([x, np.full((len(x), 92), 3.0)], 1) for x in (a, b)]
    assert frechet_distance(*wide) == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert frechet_distance(features(2, 64, 1), features(2, 64, 2)) > 0


@pytest.mark.parametrize("rows", [5, 200])
def test_the_same_features_are_at_no_distance(rows: int) -> None:
    a = features(rows, 16, 3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    # Unbiased, so a little below 0: pairs of a row with itself count between the sets only.
    assert -1e3 < kernel_distance(a, a).mean < 0


def test_a_constant_generator_is_far() -> None:
    real, other, constant = features(300, 16, 1), features(300, 16, 1).flip(0) * 1.01, torch.zeros(300, 16)
    constant = constant + real.mean(0)
    assert frechet_distance(constant, real) == pytest.approx(float(real.var(0).sum()), rel=1e-6)
    assert frechet_distance(constant, real) > 100 * frechet_distance(other, real)
    assert kernel_distance(constant, real).mean > kernel_distance(other, real).mean


@pytest.mark.parametrize(("subsets", "size"), [(7, 40), (3, 100)])
def test_kernel_distance_equals_torch_fidelity(subsets: int, size: int) -> None:
    a, b = features(150, 24, 1), features(100, 24, 2)
    settings = {"kid_subsets": subsets, "kid_subset_size": size, "rng_seed": 11, "verbose": False}
    theirs = kid_features_to_metric(a, b, **settings)
    ours = kernel_distance(a, b, subsets, size, 11)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)


def test_kernel_distance_of_few_rows_takes_them_all() -> None:
    a, b = features(30, 8, 1), features(30, 8, 2)
    every = kernel_distance(a, b, subsets=4, size=1000)
    assert every.mean == pytest.approx(kernel_distance(a, b, subsets=1, size=30, seed=5).mean)
    assert every.std == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("splits", [1, 10])
def test_inception_score_equals_torch_fidelity(splits: int) -> None:
    logits = 4 * features(203, 30, 4)
    theirs = isc_features_to_metric(logits, splits=splits, shuffle=True, rng_seed=2020)
    ours = inception_score(logits, splits)
    assert ours.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert ours.std == pytest.approx(theirs["inception_score_std"], rel=1e-7, abs=1e-12)


def test_inception_score_from_worst_to_best() -> None:
    assert inception_score(np.tile([3.0, 1.0, 0.0], (50, 1))).mean == pytest.approx(1)
    sure = np.eye(5)[np.arange(100) % 5] * 1000.0  # softmax underflows to exact zeros
    assert inception_score(sure, splits=1).mean == pytest.approx(5)
    assert inception_score(sure[:3], splits=10).mean == pytest.approx(1)  # one image a split


def test_refusals() -> None:
    good = features(10, 4, 1)
    with pytest.raises(ValueError, match="at least 2 rows"):
        frechet_distance(good[:1], good)
    with pytest.raises(ValueError, match="at least 2 rows"):
        kernel_distance(good, good[:1])
    with pytest.raises(ValueError, match="dimensions"):
        frechet_distance(good, features(10, 5, 1))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(torch.full((10, 4), torch.nan), good)
    with pytest.raises(ValueError, match="no rows"):
        inception_score(good[:0])
