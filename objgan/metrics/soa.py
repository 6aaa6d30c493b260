"""Semantic object accuracy: does a detector find in an image what its caption names? (Hinz et al. 2020)"""

import numpy as np

from objgan.metrics.arrays import Array, plain
from objgan.metrics.bootstrap import Interval, percentile_interval, resampled_sums


def object_accuracy(found: Array, named: Array) -> tuple[float, float]:
    """(SOA-C, SOA-I) of N images for C classes; NaN where no caption names a class.

    found: bool [N, C], the classes that a detector (there YOLOv3) finds in each generated image
    named: bool [N, C], the classes that the image's caption names, see `named_classes`

    SOA-C is the mean over classes of the share of a class's images in which it is found, SOA-I the share of found ones
    among all (image, class that its caption names). Hinz et al. 2020, "Semantic Object Accuracy for Generative
    Text-to-Image Synthesis" (arXiv 1910.13321), averages over the 80 classes with captions made out for each; here
    every caption of the protocol takes part, and classes that none names are left out.
    """
    hits, pairs = _hits(found, named)
    return _mean(_recalls(hits.sum(0), pairs.sum(0))), float(hits.sum() / pairs.sum()) if pairs.sum() else np.nan


def object_accuracy_intervals(
    found: Array, named: Array, resamples: int = 1000, seed: int = 0
) -> tuple[Interval, Interval]:
    """95 % bootstrap intervals over images of (SOA-C, SOA-I); arguments as for `object_accuracy`.

    A class that no caption of a resample names is left out of that resample's SOA-C.
    """
    hits, pairs = _hits(found, named)
    by_classes, by_images = object_accuracy(found, named)
    count, classes = pairs.shape
    if not pairs.any():
        return (Interval(np.nan, np.nan, np.nan, count),) * 2
    sums = resampled_sums(np.concatenate([hits, pairs], 1), resamples, seed)
    by_class = _recalls(sums[:, :classes], sums[:, classes:])
    filled, there = np.nan_to_num(by_class), ~np.isnan(by_class)
    with np.errstate(invalid="ignore", divide="ignore"):
        soa_c = filled.sum(1) / there.sum(1)
        soa_i = sums[:, :classes].sum(1) / sums[:, classes:].sum(1)
    return percentile_interval(soa_c, by_classes, count), percentile_interval(soa_i, by_images, count)


def _hits(found: Array, named: Array) -> tuple[np.ndarray, np.ndarray]:
    """Found and named, and named: float64 [N, C] of 0 and 1."""
    seen, asked = plain(found).astype(bool), plain(named).astype(bool)
    if seen.shape != asked.shape or seen.ndim != 2:
        raise ValueError(f"found {seen.shape} and named {asked.shape} are to be of one shape, images by classes")
    return (seen & asked).astype(np.float64), asked.astype(np.float64)


def _recalls(hits: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    recalls: np.ndarray = np.where(pairs > 0, hits / np.maximum(pairs, 1), np.nan)
    return recalls


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else np.nan
