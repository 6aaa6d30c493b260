"""How layouts are distributed: counted over the training split's rows."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import torch

from objgan.domain import LayoutStatistics
from objgan.geometry import xywh_to_cxywr

NO_OBJECTS = ((0.5, 0.5, 0.5, 1.0), (1.0, 1.0, 1.0, 1.0))
SMALLEST_STD = 1e-3
COLUMNS = ["labels", "boxes", "crowds"]


def layout_statistics(tables: Iterable[pa.Table], classes: int, max_objects: int) -> LayoutStatistics:
    """Statistics of shards: of each image, its `max_objects` largest objects that are no crowds.

    `tables` need the columns `COLUMNS`, and are gone through once.
    """
    boxes, counts = [np.zeros((0, 4), np.float32)], [np.zeros((0, classes), np.uint16)]
    for table in tables:
        layouts = list(_layouts(table, max_objects))
        boxes.append(np.concatenate([boxes[0], *(sides for _, sides in layouts)]))
        # At most max_objects in an image: two bytes are plenty, and there are as many as images x classes.
        rows = [np.bincount(labels, minlength=classes) for labels, _ in layouts]
        counts.append(np.array(rows, np.uint16).reshape(-1, classes))
    each = np.concatenate(counts)
    mean, std = _moments(np.concatenate(boxes))
    objects = np.bincount(each.sum(1, dtype=np.int64), minlength=max_objects + 1)
    return LayoutStatistics(
        mean=mean,
        std=std,
        class_counts=tuple(int(n) for n in each.sum(0, dtype=np.int64)),
        object_counts=tuple(int(n) for n in objects),
        class_caps=tuple(_cap(column[column > 0]) for column in each.T),
        images=len(each),
    )


def _layouts(table: pa.Table, max_objects: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each row: labels int64 [r] and boxes float32 [r, 4], xywh fractions."""
    columns = (table[name].to_pylist() for name in COLUMNS)
    for labels, boxes, crowds in zip(*columns, strict=True):
        kept = [index for index, crowd in enumerate(crowds) if not crowd][:max_objects]
        sides = np.array(boxes, np.float32).reshape(-1, 4)
        yield np.array(labels, np.int64)[kept], sides[kept]


Moments = tuple[tuple[float, float, float, float], tuple[float, float, float, float]]


def _moments(boxes: np.ndarray) -> Moments:
    """Mean and standard deviation of (centre x, centre y, width, height / width) over xywh [N, 4], 6 decimals."""
    if not len(boxes):
        return NO_OBJECTS
    coordinates = xywh_to_cxywr(torch.from_numpy(boxes.astype(np.float64))).numpy()
    mean, std = coordinates.mean(0), np.maximum(coordinates.std(0), SMALLEST_STD)
    a, b, c, d = (round(float(value), 6) for value in mean)
    e, f, g, h = (round(float(value), 6) for value in std)
    return (a, b, c, d), (e, f, g, h)


def _cap(counts: np.ndarray) -> int:
    """The 99th percentile of a class's count in images that have it, at least 2."""
    return max(2, int(np.ceil(np.percentile(counts, 99)))) if len(counts) else 2
