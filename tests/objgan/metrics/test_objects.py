"""Votes within shapes, what does not count, what is found, and flat silhouettes; on hand-made logits."""

import pytest
import torch

from objgan.layout import Layout
from objgan.metrics.objects import (
    judge_images,
    mean_colours,
    read_judgement,
    score_verdicts,
    silhouettes,
    visible_shapes,
)
from objgan.networks.judge import Judge, JudgeLogits

CLASSES, GRID, SIDE = 3, 32, 64
NOTHING = CLASSES


def _layout(
    *boxes: tuple[float, float, float, float], labels: list[int], padded: int = 1, masks: bool = True
) -> Layout:
    """One picture; masks of side 64 that fill the boxes, edges on cells."""
    count = len(boxes)
    values = torch.zeros(1, count + padded, 4)
    values[0, :count] = torch.tensor(boxes).view(-1, 4)
    shapes = torch.zeros(1, count + padded, SIDE, SIDE)
    for index, box in enumerate(boxes):
        x, y, w, h = (round(SIDE * side) for side in box)
        shapes[0, index, y : y + h, x : x + w] = 1
    label = torch.tensor([labels + [0] * padded])
    return Layout(label, values, torch.tensor([count]), shapes if masks else None)


def _seen(cells: dict[int, tuple[slice, slice]], colours: dict[int, tuple[slice, slice]] | None = None) -> JudgeLogits:
    """Logits of 8 at the given (rows, columns), for nothing elsewhere; scene 2."""
    classes, colour = torch.zeros(1, CLASSES + 1, GRID, GRID), torch.zeros(1, 10, GRID, GRID)
    classes[0, NOTHING] = 8
    for index, (rows, columns) in cells.items():
        classes[0, :, rows, columns] = 0
        classes[0, index, rows, columns] = 8
    for index, (rows, columns) in (colours or {}).items():
        colour[0, index, rows, columns] = 8
    return JudgeLogits(classes, colour, torch.tensor([[0.0, 0.0, 1.0, 0.5]]))


def test_the_class_and_colour_of_most_cells_of_a_shape_win() -> None:
    layout = _layout((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 0.25, 0.25), labels=[1, 2])
    first = slice(0, 16)
    seen = _seen(
        {1: (first, slice(0, 9)), 0: (first, slice(9, 16)), 2: (slice(0, 4), slice(20, 32))},
        {4: (first, slice(0, 7)), 7: (first, slice(7, 16)), 3: (slice(16, 24), slice(16, 24))},
    )
    verdicts = read_judgement(seen, layout, 0.5)
    assert verdicts.objects.tolist() == [[1, NOTHING, -1]]
    assert verdicts.colours.tolist() == [[7, 3, -1]]
    assert verdicts.scenes.tolist() == [2]
    right = score_verdicts(verdicts, layout, torch.tensor([[7, -1, -1]]), torch.tensor([1]))
    torch.testing.assert_close(right.objects, torch.tensor([[1.0, 0.0, torch.nan]]), equal_nan=True)
    torch.testing.assert_close(right.colours, torch.tensor([[1.0, torch.nan, torch.nan]]), equal_nan=True)
    assert right.scenes.tolist() == [0]


def test_without_attributes_only_objects_are_scored() -> None:
    layout = _layout((0.0, 0.0, 0.5, 0.5), labels=[1])
    right = score_verdicts(read_judgement(_seen({1: (slice(0, 16), slice(0, 16))}), layout, 0.5), layout)
    assert right.objects[0, 0] == 1 and right.colours.isnan().all() and right.scenes.isnan().all()


def test_a_shared_cell_is_the_smaller_objects() -> None:
    """An object on top of a larger one of another class: each is right, though most of their boxes' cells overlap."""
    for masks in (True, False):
        layout = _layout((0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.375, 0.5), labels=[0, 1], masks=masks)
        seen = _seen({0: (slice(0, 16), slice(12, 16)), 1: (slice(0, 16), slice(0, 12))})
        shapes, counted = visible_shapes(layout, GRID)
        assert shapes.sum((2, 3)).tolist() == [[4 * 16, 12 * 16, 0]]
        assert counted.tolist() == [[False, True, False]]  # three quarters of the first are hidden
        assert read_judgement(seen, layout, 0.5).objects.tolist() == [[-1, 1, -1]]


def test_half_visible_objects_count_and_small_ones_do_not() -> None:
    half = _layout((0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.25, 0.5), labels=[0, 1])
    assert visible_shapes(half, GRID)[1].tolist() == [[True, True, False]]
    small = _layout((0.0, 0.0, 0.03125, 0.03125), (0.5, 0.5, 0.03125, 0.0625), labels=[0, 1])
    assert visible_shapes(small, GRID, smallest=10 / 256)[1].tolist() == [[False, True, False]]
    assert visible_shapes(small, GRID, smallest=0.0)[1].tolist() == [[True, True, False]]


def test_a_mask_without_a_pixel_does_not_count() -> None:
    layout = _layout((0.0, 0.0, 0.5, 0.5), labels=[0]).with_masks(torch.zeros(1, 2, GRID, GRID))
    assert read_judgement(_seen({}), layout, 0.5).objects.tolist() == [[-1, -1]]


def test_a_class_is_found_where_a_patch_of_it_is_clear() -> None:
    layout = _layout(labels=[], padded=2)
    patch = _seen({0: (slice(4, 6), slice(30, 32)), 1: (slice(0, 1), slice(0, 32)), 2: (slice(9, 10), slice(9, 10))})
    verdicts = read_judgement(patch, layout, 0.7)
    assert verdicts.found.tolist() == [[True, False, False]]
    # A line of one cell fills half a patch, a single cell a quarter of it.
    assert read_judgement(patch, layout, 0.49).found.tolist() == [[True, True, False]]
    assert read_judgement(patch, layout, 0.24).found.tolist() == [[True, True, True]]
    assert not read_judgement(patch, layout, 1.01).found.any()
    assert read_judgement(patch, layout, 0.4).found.tolist() == [[True, True, False]]


def test_silhouettes_keep_the_background_and_the_outline_alone() -> None:
    torch.manual_seed(0)
    layout, images = _layout((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 0.25, 0.25), labels=[1, 2]), torch.rand(1, 3, 64, 64)
    flat = silhouettes(images, layout, torch.tensor([[True, False, False]]))
    own = images[0, :, :32, :32].mean((1, 2))
    torch.testing.assert_close(flat[0, :, :32, :32], own[:, None, None].expand(3, 32, 32))
    rest = torch.ones(64, 64, dtype=torch.bool)
    rest[:32, :32] = False
    assert torch.equal(flat[0][:, rest], images[0][:, rest])
    torch.testing.assert_close(mean_colours(images, layout)[0, 0], own)
    given = silhouettes(images, layout, layout.valid, torch.full((1, 3, 3), 0.25))
    assert (given[0, :, 32:48, 32:48] == 0.25).all()


def test_judge_images_uses_the_judges_own_threshold(make_batch) -> None:
    judge = Judge(classes=5, width=8, found_threshold=1e-6).eval()
    batch = make_batch(3)
    verdicts = judge_images(judge, batch.pixels(64), batch.layout)
    assert verdicts.found.shape == (3, 5) and verdicts.found.all()
    assert ((verdicts.objects >= 0) <= batch.layout.valid).all()
    judge.found_threshold = 1.0
    assert not judge_images(judge, batch.pixels(64), batch.layout).found.any()


@pytest.mark.parametrize("masks", [True, False])
def test_padding_changes_no_verdict(make_batch, masks) -> None:
    judge = Judge(classes=5, width=8, found_threshold=0.5).eval()
    batch = make_batch(2, counts=[1, 2], masks=masks)
    layout = batch.layout
    noisy = Layout(
        torch.where(layout.valid, layout.labels, 3),
        torch.where(layout.valid[..., None], layout.boxes, 0.5),
        layout.count,
        None if layout.masks is None else torch.where(layout.valid[..., None, None], layout.masks, 255),
    )
    clean, dirty = (judge_images(judge, batch.pixels(64), some) for some in (layout, noisy))
    assert torch.equal(clean.objects, dirty.objects) and torch.equal(clean.colours, dirty.colours)
