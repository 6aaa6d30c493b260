import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pipelines.data.sample.outlines import area, polygons, run_lengths


def _decoded(segmentation: object, shape: tuple[int, int]) -> NDArray[np.bool_]:
    encoded = coco_mask.frPyObjects(segmentation, *shape)
    return coco_mask.decode(coco_mask.merge(encoded) if isinstance(encoded, list) else encoded).astype(bool)


def _disc(size: int, radius: float) -> NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return x * x + y * y <= radius * radius


def test_a_rectangle_by_hand() -> None:
    mask = np.zeros((10, 12), dtype=bool)
    mask[2:5, 3:9] = True
    (outline,) = polygons(mask)
    corners = {(outline[i], outline[i + 1]) for i in range(0, len(outline), 2)}
    assert corners == {(3.0, 2.0), (9.0, 2.0), (9.0, 5.0), (3.0, 5.0)}
    assert area([outline], 10, 12) == 18


def test_run_lengths_by_hand() -> None:
    mask = np.array([[0, 1, 1], [0, 0, 1]], dtype=bool)
    assert run_lengths(mask) == {"size": [2, 3], "counts": [2, 1, 1, 2]}
    assert run_lengths(~mask) == {"size": [2, 3], "counts": [0, 2, 1, 1, 2]}


def test_parts_become_polygons_largest_first_and_specks_are_left_out() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[2:6, 2:6] = mask[10:30, 10:30] = True
    mask[36, 36] = True
    outlines = polygons(mask)
    assert [area([o], 40, 40) for o in outlines] == [400, 16]


def test_parts_that_touch_at_a_corner_stay_two() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:8, 2:8] = mask[8:14, 8:14] = True
    assert len(polygons(mask)) == 2


def test_a_lone_speck_is_kept() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[3, 4] = True
    assert np.array_equal(_decoded(polygons(mask), mask.shape), mask)


@pytest.mark.parametrize("bite", [None, "hole", "two holes", "split"])
def test_polygons_redraw_a_disc_with_pieces_missing(bite: str | None) -> None:
    mask = _disc(60, 25)
    if bite == "split":
        mask[:, 27:33] = False
    if bite in ("hole", "two holes"):
        mask[20:28, 20:28] = False
    if bite == "two holes":
        mask[34:40, 30:36] = False
    outlines = polygons(mask)
    redrawn = _decoded(outlines, mask.shape)
    assert (redrawn & mask).sum() / (redrawn | mask).sum() > 0.96
    assert (len(outlines) > 1) == (bite is not None)


def test_run_lengths_are_exact() -> None:
    mask = np.random.default_rng(0).random((31, 17)) < 0.4
    runs = run_lengths(mask)
    assert np.array_equal(_decoded(runs, mask.shape), mask)
    assert area(runs, 31, 17) == mask.sum()
