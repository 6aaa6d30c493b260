"""From masks to COCO's two ways of writing them: polygons, and uncompressed run lengths."""

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

Mask = NDArray[np.bool_]
Corner = tuple[int, int]
Segmentation = list[list[float]] | dict[str, list[int]]

_TOLERANCE = 0.75  # pixels: just enough for a staircase to become a slope
_LEAST_AREA = 6  # pixels: smaller parts and holes are not worth a polygon
_TURNS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def polygons(mask: Mask) -> list[list[float]]:
    """The outlines [x1, y1, x2, y2, ...] (pixels) of the parts of a non-empty mask bool [height, width], largest first.

    COCO's polygons know no holes: a part with a hole in it is cut in two through the hole. Specks are left out, unless
    there is nothing else.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    cropped = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    left, top = int(columns[0]), int(rows[0])
    loops = [[(x + left, y + top) for x, y in loop] for loop in _pieces(cropped, 0)]
    loops.sort(key=lambda loop: -abs(_area(loop)))
    worthy = [loop for loop in loops if abs(_area(loop)) >= _LEAST_AREA] or loops[:1]
    return [[float(v) for corner in _simplify(loop) for v in corner] for loop in worthy]


def run_lengths(mask: Mask) -> dict[str, list[int]]:
    """Uncompressed run lengths: column by column, the lengths of runs of zeros and ones in turn, zeros first."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate(([0], changes, [flat.size]))).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def area(segmentation: Segmentation, height: int, width: int) -> float:
    """Square pixels, as COCO's tools count them; parts that overlap count once."""
    encoded = coco_mask.frPyObjects(segmentation, height, width)
    return float(coco_mask.area(coco_mask.merge(encoded) if isinstance(encoded, list) else encoded))


def _pieces(mask: Mask, offset: int) -> list[list[Corner]]:
    """Outlines without holes; `offset` is the column at which the mask begins."""
    loops = _trace(mask)
    holes = [loop for loop in loops if _area(loop) <= -_LEAST_AREA]
    if holes:
        columns = [x for x, _ in holes[0]]
        cut = (min(columns) + max(columns)) // 2
        return _pieces(mask[:, :cut], offset) + _pieces(mask[:, cut:], offset + cut)
    return [[(x + offset, y) for x, y in loop] for loop in loops if _area(loop) > 0]


def _trace(mask: Mask) -> list[list[Corner]]:
    """The closed paths along pixel edges around a mask, only where they turn; holes run the other way (area < 0)."""
    onward = _edges(mask)
    loops: list[list[Corner]] = []
    while onward:
        start = next(iter(onward))
        here, direction = start, onward[start][0]
        loop: list[Corner] = []
        while True:
            exits = onward[here]
            # Where two parts touch at a corner, turn right, towards the part we come from: they stay two.
            turn = next(d for d in ((direction + 1) % 4, direction, (direction + 3) % 4) if d in exits)
            exits.remove(turn)
            if not exits:
                del onward[here]
            if turn != direction or not loop:
                loop.append(here)
            direction = turn
            here = (here[0] + _TURNS[turn][0], here[1] + _TURNS[turn][1])
            if here == start and (start not in onward or (direction + 1) % 4 not in onward[start]):
                break
        loops.append(loop)
    return loops


def _edges(mask: Mask) -> dict[Corner, list[int]]:
    """From every corner on the boundary, the directions (numbers in _TURNS) that keep the mask on the right."""
    padded = np.pad(mask, 1).astype(np.int8)
    directions: dict[Corner, list[int]] = {}
    across, down = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    for number, (edges, sign, shift) in enumerate(
        ((across, 1, (0, 0)), (down, -1, (0, 0)), (across, -1, (1, 0)), (down, 1, (0, 1)))
    ):
        rows, columns = np.nonzero(edges == sign)
        for y, x in zip(rows.tolist(), columns.tolist(), strict=True):
            directions.setdefault((x + shift[0], y + shift[1]), []).append(number)
    return directions


def _area(loop: list[Corner]) -> float:
    """Shoelace formula: positive where the inside is on the right on the screen (y down)."""
    following = [*loop[1:], loop[0]]
    return sum(x * v - u * y for (x, y), (u, v) in zip(loop, following, strict=True)) / 2


def _simplify(loop: list[Corner]) -> list[Corner]:
    """Fewer corners: the steps of the outline made slopes, after Douglas and Peucker (1973)."""
    x, y = loop[0]
    far = max(range(len(loop)), key=lambda i: (loop[i][0] - x) ** 2 + (loop[i][1] - y) ** 2)
    kept = _thin(loop, 0, far) + _thin([*loop, loop[0]], far, len(loop))
    return [loop[i] for i in kept] if len(kept) >= 3 else loop


def _thin(points: list[Corner], first: int, last: int) -> list[int]:
    """The numbers of the points to keep from `first` up to, but not with, `last`."""
    (x, y), (u, v) = points[first], points[last]
    across, down = u - x, v - y
    worst, furthest = first, _TOLERANCE * (across * across + down * down) ** 0.5
    for i in range(first + 1, last):
        off = abs(across * (points[i][1] - y) - down * (points[i][0] - x))
        if off > furthest:
            worst, furthest = i, off
    return [first] if worst == first else _thin(points, first, worst) + _thin(points, worst, last)
