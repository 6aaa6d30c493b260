"""Distances between sets of features, and the inception score; all in float64.

On the same features and with the same seed they give what torch-fidelity gives (Obukhov et al. 2020).
"""

import itertools
from dataclasses import dataclass

import numpy as np

from objgan.metrics.arrays import Array, float64


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of the population) over subsets or splits."""

    mean: float
    std: float


def frechet_distance(a: Array, b: Array) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two sets, FID where features are Inception's: >= 0.

    a, b: [N, D], [M, D], at least 2 rows each; fewer rows than dimensions are fine, the covariances are then singular

    |mean a - mean b|^2 + trace(A + B - 2 (A B)^(1/2)) of the unbiased covariances (Heusel et al. 2017, arXiv
    1706.08500, section 3). The estimate is biased upwards, the more the fewer rows: compare equal numbers only.

    Raises:
        ValueError: fewer than 2 rows, different D, or entries that are not finite.
    """
    mean_a, factor_a = _moments(float64(a, 2, "features"))
    mean_b, factor_b = _moments(float64(b, 2, "features"))
    if len(mean_a) != len(mean_b):
        raise ValueError(f"features have {len(mean_a)} and {len(mean_b)} dimensions")
    # With A = F'F and B = G'G, the eigenvalues of A B are the squared singular values of F G'. Unlike roots of the
    # eigenvalues of A B, these keep their digits where a covariance is singular.
    overlap = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    spread = np.square(factor_a).sum() + np.square(factor_b).sum() - 2 * overlap
    return max(0.0, float(np.square(mean_a - mean_b).sum() + spread))


def kernel_distance(a: Array, b: Array, subsets: int = 100, size: int = 1000, seed: int = 2020) -> Spread:
    """Squared maximum mean discrepancy, KID where features are Inception's: mean over random subsets.

    a, b: [N, D], [M, D], at least 2 rows each; `size` is lowered to N or M where these are smaller

    Unbiased, so it can be below 0; kernel (x y / D + 1)^3 (Bińkowski et al. 2018, arXiv 1801.01401, section 4).
    `std` is over overlapping subsets: it says how far a subset's figure is off, not the standard error of the mean.

    Raises:
        ValueError: fewer than 2 rows, different D, or entries that are not finite.
    """
    a, b = float64(a, 2, "features"), float64(b, 2, "features")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features have {a.shape[1]} and {b.shape[1]} dimensions")
    size = min(size, len(a), len(b))
    if size < 2:
        raise ValueError("a kernel distance needs at least 2 rows of features on each side")
    draws = np.random.RandomState(seed)  # torch-fidelity's, so that figures can be compared to the last digit
    found = []
    for _ in range(subsets):
        some_a = a[draws.choice(len(a), size, replace=False)]
        some_b = b[draws.choice(len(b), size, replace=False)]
        found.append(_squared_discrepancy(some_a, some_b))
    return Spread(float(np.mean(found)), float(np.std(found)))


def inception_score(logits: Array, splits: int = 10, seed: int | None = 2020) -> Spread:
    """exp of the mean divergence of p(class | image) from p(class): mean over splits, from 1 (worst) to K.

    logits: [N, K], of which the softmax is taken; log probabilities serve as well. torch-fidelity takes Inception's
            logits without the bias of the last layer.
    splits: lowered to N where N is smaller
    seed:   rows are shuffled with it before they are split; None leaves their order

    Salimans et al. 2016 (arXiv 1606.03498), section 4.

    Raises:
        ValueError: no row, or entries that are not finite.
    """
    logits = float64(logits, 2, "logits")
    if seed is not None:
        logits = logits[np.random.RandomState(seed).permutation(len(logits))]
    log_p = logits - logits.max(1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    splits = min(splits, len(log_p))
    edges = [i * len(log_p) // splits for i in range(splits + 1)]
    scores = [_split_score(log_p[start:stop]) for start, stop in itertools.pairwise(edges)]
    return Spread(float(np.mean(scores)), float(np.std(scores)))


def _split_score(log_p: np.ndarray) -> float:
    p = np.exp(log_p)
    mean = p.mean(0)
    # A class whose probability underflows to 0 in every row adds nothing.
    log_mean = np.log(np.where(mean > 0, mean, 1.0))
    return float(np.exp((p * (log_p - log_mean)).sum(1).mean()))


def _squared_discrepancy(a: np.ndarray, b: np.ndarray) -> float:
    """[S, D], [S, D] -> the unbiased estimate; pairs of a row with itself are left out within a set."""
    size = len(a)
    within = sum(kernel.sum() - kernel.trace() for kernel in (_kernel(a, a), _kernel(b, b)))
    return float(within / (size * (size - 1)) - 2 * _kernel(a, b).mean())


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    kernel: np.ndarray = (a @ b.T / a.shape[1] + 1.0) ** 3
    return kernel


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, D] -> mean [D], and F [min(N, D), D] with F'F the unbiased covariance."""
    rows, width = features.shape
    if rows < 2:
        raise ValueError("a covariance needs at least 2 rows of features")
    mean = features.mean(0)
    centred = (features - mean) / np.sqrt(rows - 1)
    if rows <= width:
        return mean, centred
    values, axes = np.linalg.eigh(centred.T @ centred)
    return mean, np.sqrt(np.maximum(values, 0.0))[:, None] * axes.T
