"""Bootstrap intervals over samples (Efron and Tibshirani 1993): how far a figure moves if other samples had come.

Percentile intervals; the draws depend on the seed and the number of samples alone. They show the effect of the choice
of test samples, not of training: another seed of training is another model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from objgan.metrics.arrays import Array, plain
from objgan.metrics.distances import frechet_distance

LEVEL = 0.95
LARGEST_FRECHET_DIMENSION = 256
_BLOCK_ENTRIES = 4_000_000


@dataclass(frozen=True)
class Interval:
    """The central 95 % of the resampled figures.

    value:   the figure on all samples
    samples: rows that took part; with fewer than 2 the bounds are NaN, with none the value too
    """

    low: float
    high: float
    value: float
    samples: int


def interval(statistic: Callable[..., float], *columns: Array, resamples: int = 1000, seed: int = 0) -> Interval:
    """Of any statistic of parallel columns, [N, ...] each, resampled together: statistic(*columns) -> number.

    Rows with a NaN in any column are dropped first; resamples on which the statistic is NaN are left out. One call per
    resample: for means, ratios of sums and SOA there are faster ones.

    Raises:
        ValueError: columns of different lengths.
    """
    kept = _complete_rows(columns)
    count = len(kept[0])
    if count == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    drawn = [statistic(*(column[rows] for column in kept)) for rows in _draws(count, resamples, seed)]
    return percentile_interval(np.array(drawn, np.float64), float(statistic(*kept)), count)


def mean_interval(values: Array, resamples: int = 1000, seed: int = 0) -> Interval:
    """Of the mean of [N] figures; NaN rows are dropped."""
    (kept,) = _complete_rows((values,))
    return ratio_interval(kept, np.ones(len(kept)), resamples, seed)


def paired_difference(a: Array, b: Array, resamples: int = 1000, seed: int = 0) -> Interval:
    """Of mean(a - b) over samples that both have, [N] each; rows where either is NaN are dropped.

    An interval without 0: the two differ on such samples.
    """
    first, second = _complete_rows((a, b))
    return mean_interval(first.astype(np.float64) - second, resamples, seed)


def ratio_interval(above: Array, below: Array, resamples: int = 1000, seed: int = 0) -> Interval:
    """Of sum(above) / sum(below), [N] each: shares of objects, words or classes rather than of images."""
    first, second = (column.astype(np.float64) for column in _complete_rows((above, below)))
    if len(first) == 0 or second.sum() == 0:
        return Interval(np.nan, np.nan, np.nan, len(first))
    sums = resampled_sums(np.stack([first, second], 1), resamples, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = sums[:, 0] / sums[:, 1]
    return percentile_interval(drawn, float(first.sum() / second.sum()), len(first))


def frechet_interval(a: Array, b: Array, resamples: int = 200, seed: int = 0) -> Interval:
    """Of `frechet_distance`, both sets resampled on their own: for at most 256 dimensions, see `too_dear`.

    A resample repeats rows, which adds to the distance's bias: all resampled figures are moved by one amount so that
    their mean is the figure on all samples. So the interval shows where the distance for N and M samples lies, bias
    included, which is what distances at equal N compare; not where it would lie for endless samples.

    Raises:
        ValueError: too many dimensions, or what `frechet_distance` refuses.
    """
    first, second = _complete_rows((a,))[0], _complete_rows((b,))[0]
    reason = too_dear(first.shape[1])
    if reason:
        raise ValueError(reason)
    pairs = zip(_draws(len(first), resamples, seed), _draws(len(second), resamples, seed + 1), strict=True)
    drawn = np.array([frechet_distance(first[i], second[j]) for i, j in pairs])
    value = frechet_distance(first, second)
    found = percentile_interval(drawn - drawn.mean() + value, value, len(first))
    return Interval(max(0.0, found.low), found.high, found.value, found.samples)


def too_dear(dimensions: int) -> str | None:
    """Why a Fréchet distance in this many dimensions gets no interval; None where it gets one."""
    if dimensions <= LARGEST_FRECHET_DIMENSION:
        return None
    return (
        f"no interval: each resample of a distance of {dimensions} dimensions takes eigendecompositions of that size; "
        f"they are made up to {LARGEST_FRECHET_DIMENSION}"
    )


def resampled_sums(columns: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """float64 [N, K] -> [resamples, K]: column sums of each resample, without copying rows."""
    count = len(columns)
    block = max(1, _BLOCK_ENTRIES // max(1, count))
    rows = _draws(count, resamples, seed)
    sums = []
    for start in range(0, resamples, block):
        some = range(min(block, resamples - start))
        counts = np.stack([np.bincount(next(rows), minlength=count) for _ in some]).astype(np.float64)
        sums.append(counts @ columns)
    return np.concatenate([np.empty((0, columns.shape[1])), *sums])


def percentile_interval(drawn: np.ndarray, value: float, samples: int) -> Interval:
    """Of figures [resamples] that were resampled elsewhere; NaN ones are left out."""
    usable = drawn[~np.isnan(drawn)]
    if samples < 2 or len(usable) == 0:
        return Interval(np.nan, np.nan, value, samples)
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), value, samples)


def _draws(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(np.random.SeedSequence([seed, count]))
    for _ in range(resamples):
        yield rng.integers(0, count, count)


def _complete_rows(columns: tuple[Array, ...]) -> list[np.ndarray]:
    """The columns as arrays without the rows in which any of them has a NaN."""
    arrays = [plain(column) for column in columns]
    if len({len(array) for array in arrays}) != 1:
        raise ValueError(f"columns of one sample each have {[len(array) for array in arrays]} rows")
    whole = np.ones(len(arrays[0]), bool)
    for array in arrays:
        if np.issubdtype(array.dtype, np.floating):
            whole &= ~np.isnan(array).any(axis=tuple(range(1, array.ndim)))
    return [array[whole] for array in arrays]
