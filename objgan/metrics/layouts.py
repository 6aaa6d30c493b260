"""How a generated layout fits the true one and its caption; one value a sample, NaN where a measure does not apply."""

import numpy as np
import torch
from torch import Tensor

from objgan.geometry import box_iou
from objgan.layout import Layout
from objgan.losses.boxes import label_counts, label_set
from objgan.metrics.arrays import Array, float64


def label_f1(predicted: Layout, true: Layout, classes: int) -> Tensor:
    """F1 of the sets of classes, float32 [B]; 1 where both are empty."""
    ours = label_set(predicted.labels, predicted.valid, classes)
    theirs = label_set(true.labels, true.valid, classes)
    total = ours.sum(1) + theirs.sum(1)
    return torch.where(total > 0, 2 * (ours & theirs).sum(1) / total.clamp_min(1), 1.0)


def count_error(predicted: Layout, true: Layout) -> Tensor:
    """Absolute difference of the numbers of objects, float32 [B]."""
    return (predicted.count - true.count).abs().float()


def best_iou(predicted: Layout, true: Layout) -> Tensor:
    """Mean over true objects whose class was predicted of the best IoU with a predicted box of it, float32 [B].

    NaN where no true object's class was predicted.
    """
    ious = box_iou(true.boxes[:, :, None], predicted.boxes[:, None])  # [B, R true, R predicted]
    same = (true.labels[:, :, None] == predicted.labels[:, None]) & predicted.valid[:, None] & true.valid[:, :, None]
    matched = same.any(2)
    best = torch.where(same, ious, 0.0).amax(2)
    return torch.where(matched.any(1), best.sum(1) / matched.sum(1).clamp_min(1), torch.nan)


def named_share(predicted: Layout, named: Tensor) -> Tensor:
    """Share of the classes that a caption names which appear in its layout, float32 [B]; NaN where it names none.

    named: bool [B, C], see `named_classes`
    """
    shown = label_set(predicted.labels, predicted.valid, named.shape[1])
    total = named.sum(1)
    return torch.where(total > 0, (named & shown).sum(1) / total.clamp_min(1), torch.nan)


def class_counts(layout: Layout, classes: int) -> Tensor:
    """Objects of each class, int64 [B, C]."""
    return label_counts(layout.labels, layout.valid, classes)


def count_histogram_distance(predicted: Array, true: Array) -> float:
    """Distance of how many objects of each class pictures hold, from 0 (the same share of pictures with 0, 1, 2, ...
    of every class) to 1 (no count in common).

    predicted, true: counts [N, C], [M, C], see `class_counts`; drawn at temperature 1, since a sharper draw is meant to
    be less varied

    Total variation (half the sum of absolute differences) of a class's histograms of counts, mean over the classes that
    come in either set. Of the number of objects in all: give counts [N, 1]. NaN where no class comes at all. Histograms
    of labels in generated layouts against true ones: Jyothi et al. 2019 (LayoutVAE, arXiv 1907.10719), section 4.
    """
    ours, theirs = (float64(counts, 2, "counts").astype(np.int64) for counts in (predicted, true))
    there = (ours.any(0)) | (theirs.any(0))
    if not there.any():
        return float("nan")
    return float(np.mean([_total_variation(ours[:, c], theirs[:, c]) for c in np.flatnonzero(there)]))


def _total_variation(a: np.ndarray, b: np.ndarray) -> float:
    length = int(max(a.max(), b.max())) + 1
    shares = [np.bincount(counts, minlength=length) / len(counts) for counts in (a, b)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
