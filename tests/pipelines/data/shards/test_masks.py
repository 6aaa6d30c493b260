"""Segmentations squashed to the stored square, and soft masks of it."""

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objgan.run_lengths import BadMask
from pipelines.data.shards.masks import decode_masks, squash_segmentation

SIZE = 64


def _binary(counts: str, size: int = SIZE) -> np.ndarray:
    return coco_mask.decode({"size": [size, size], "counts": counts.encode()})


def _extent(mask: np.ndarray) -> list[int]:
    """Left, top, right and bottom edges of the covered area."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 700), st.integers(20, 700), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_mask_and_box_agree_to_a_pixel_at_any_aspect_ratio(width, height, fractions) -> None:
    left, right = sorted(f * width for f in fractions[:2])
    top, bottom = sorted(f * height for f in fractions[2:])
    box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
    polygon = [left, top, right, top, right, bottom, left, bottom]
    counts = squash_segmentation([polygon], width, height, box, SIZE)
    expected = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    assert np.abs(np.array(_extent(_binary(counts))) - np.array(expected) * SIZE).max() <= 1.0 + 1e-6


def test_parts_are_united_and_bad_parts_ignored() -> None:
    parts = [[0, 0, 50, 0, 50, 25, 0, 25], [50, 25, 100, 25, 100, 50, 50, 50], [1, 1, 2, 2], [1.0, 2, 3, 4, 5, None]]
    mask = _binary(squash_segmentation(parts[:3], 100, 50, [0, 0, 1, 1], SIZE))
    assert mask[:32, :32].all() and mask[32:, 32:].all() and mask.sum() == 2 * 32 * 32
    for unusable in (parts[2:3], parts[3:]):
        with pytest.raises(BadMask, match="no polygon of at least three points"):
            squash_segmentation(unusable, 100, 50, [0, 0, 1, 1], SIZE)


def test_run_lengths_compressed_or_not_give_the_same_mask() -> None:
    original = np.zeros((50, 100), np.uint8)
    original[25:, 20:60] = 1
    compressed = coco_mask.encode(np.asfortranarray(original))["counts"].decode()
    flat = original.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, len(flat)]).tolist()
    for counts in (runs, compressed):
        mask = _binary(squash_segmentation({"size": [50, 100], "counts": counts}, 100, 50, [0.2, 0.5, 0.4, 0.5], SIZE))
        assert np.abs(np.array(_extent(mask)) - [0.2 * 64, 32, 0.6 * 64, 64]).max() < 1


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [50, 100], "counts": [10, 20]}, "do not fill the picture (30 of 5000 pixels)"),
        ({"size": [50, 100], "counts": [-1, 5001]}, "do not fill the picture (a run of -1 in 5000 pixels)"),
        ({"size": [50, 100], "counts": [[5000]]}, "not all whole numbers"),
        ({"size": [50, 100], "counts": "1"}, "do not fill the picture (1 of 5000 pixels)"),
        ({"size": [50, 100], "counts": ""}, "cut short"),
        ({"size": [50, 100], "counts": "nonsense"}, "cut short"),
        ({"size": [50, 100], "counts": "é"}, "cut short"),
        ({"size": [100, 50], "counts": [5000]}, "of an image of another size (of [100, 50] instead of [50, 100])"),
        ({"size": [50, 100]}, "neither a text nor a list (NoneType)"),
        ({"counts": [5000]}, "of an image of another size"),
        ("polygon", "neither polygons nor run lengths"),
        ([[float("nan"), 1, 2, 3, 4, 5]], "no polygon of at least three points"),
        ([[1, 2, 3, 4, 5, "x"]], "no polygon of at least three points"),
        ([3, 4], "no polygon of at least three points"),
    ],
)
def test_unusable_segmentations_are_refused_with_the_reason(segmentation, reason) -> None:
    with pytest.raises(BadMask) as caught:
        squash_segmentation(segmentation, 100, 50, [0, 0, 1, 1], SIZE)
    assert reason in str(caught.value)


def test_a_bad_polygon_does_not_affect_the_others() -> None:
    square = [0, 0, 50, 0, 50, 50, 0, 50]
    alone = squash_segmentation([square], 100, 50, [0, 0, 0.5, 1], SIZE)
    for bad in (None, 3, "abcdef", [1, 2, 3, 4, 5, "x"], [1e400, 0, 1, 1, 2, 2], [[1], [2, 3], 4, 5, 6, 7]):
        assert squash_segmentation([bad, square], 100, 50, [0, 0, 0.5, 1], SIZE) == alone


def test_a_mask_thinner_than_a_pixel_becomes_a_line_along_its_box() -> None:
    box = [200 / 640, 120 / 480, 0.1 / 640, 240 / 480]
    polygon = [200, 120, 200.1, 120, 200.1, 360, 200, 360]
    mask = _binary(squash_segmentation([polygon], 640, 480, box, 16), 16)
    assert mask[4:12, 5].all() and mask.sum() == 8
    tiny = _binary(
        squash_segmentation([[200, 300, 200.1, 300, 200.1, 300.1]], 640, 480, [*box[:2], 1e-4, 1e-4], 16), 16
    )
    assert tiny.sum() == 1


def test_far_corners_do_not_hang() -> None:
    assert squash_segmentation([[-1e12, 0, 1e12, 0, 1e12, 1e12]], 100, 50, [0, 0, 1, 1], SIZE) is not None


def test_soft_masks_are_the_share_of_each_cell() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[0:2, 0:2] = 1
    mask[4, 4:8] = 1
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    soft = decode_masks([counts], 8, 4)
    assert soft.shape == (1, 4, 4) and soft.dtype == np.uint8
    assert soft[0, 0, 0] == 255 and soft[0, 2].tolist() == [0, 0, 128, 128] and int(soft.sum()) == 255 + 256
    assert decode_masks([counts], 8, 8)[0].tolist() == (mask * 255).tolist()
    uneven = decode_masks([counts, counts], 8, 3)
    assert uneven.shape == (2, 3, 3) and uneven.max() <= 255 and uneven[0, 0, 0] > uneven[0, 0, 1]
    assert decode_masks([], 8, 4).shape == (0, 4, 4)


@given(st.sampled_from([(16, 1), (32, 2), (48, 3), (64, 4), (80, 5), (128, 8), (256, 16)]), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_soft_masks_are_rounded_means_for_every_step(sizes, seed) -> None:
    size, step = sizes
    draw = np.random.default_rng(seed)
    masks = (
        draw.random((3, size, size)) < draw.random((3, size // step, size // step)).repeat(step, 1).repeat(step, 2)
    ) * 1
    masks[0] = 1
    counts = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode() for mask in masks]
    sums = masks.reshape(3, size // step, step, size // step, step).sum((2, 4))
    assert decode_masks(counts, size, size // step).tolist() == ((sums * 255 + step**2 // 2) // step**2).tolist()


@pytest.mark.parametrize("cut", [1, 3, 100])
def test_stored_masks_that_are_cut_short_are_refused(cut) -> None:
    whole = coco_mask.encode(np.asfortranarray(np.eye(SIZE, dtype=np.uint8)))["counts"].decode()
    assert decode_masks([whole], SIZE, 32).shape == (1, 32, 32)
    with pytest.raises(BadMask):
        decode_masks([whole, whole[:-cut]], SIZE, 32)
