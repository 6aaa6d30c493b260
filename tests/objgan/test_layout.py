"""Layout: dropping small objects."""

import torch

from objgan.layout import Layout, drop_small


def _layout(masks: bool = True) -> Layout:
    sides = torch.tensor([[[0.5, 0.5], [0.03, 0.03], [0.01, 0.2], [10 / 256, 0.01]], [[0.01, 0.01]] * 4])
    boxes = torch.cat([torch.full((2, 4, 2), 0.25), sides], -1)
    labels = torch.tensor([[4, 3, 2, 1], [1, 1, 7, 7]])
    shapes = torch.arange(1, 9, dtype=torch.uint8).view(2, 4, 1, 1).expand(-1, -1, 3, 3)
    return Layout(labels, boxes, torch.tensor([4, 2]), shapes if masks else None)


def test_objects_small_on_both_sides_go_and_the_rest_keep_their_order() -> None:
    dropped = drop_small(_layout(), 10 / 256)
    assert dropped.count.tolist() == [3, 0]
    assert dropped.labels.tolist() == [[4, 2, 1, 0], [0, 0, 0, 0]]
    assert dropped.masks is not None and dropped.masks.dtype == torch.uint8
    assert dropped.masks[..., 0, 0].tolist() == [[1, 3, 4, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(dropped.boxes[0, 1], torch.tensor([0.25, 0.25, 0.01, 0.2]))
    assert not dropped.boxes[0, 3].any() and not dropped.boxes[1].any()


def test_large_padding_does_not_come_back() -> None:
    layout = _layout()
    layout.boxes[1, 2:] = 0.9
    assert drop_small(layout, 10 / 256).count.tolist() == [3, 0]


def test_fraction_zero_keeps_everything_and_the_given_layout_is_untouched() -> None:
    layout = _layout(masks=False)
    before = layout.labels.clone()
    kept = drop_small(layout, 0.0)
    assert kept.masks is None and kept.count.tolist() == [4, 2] and torch.equal(kept.boxes[0], layout.boxes[0])
    drop_small(layout, 1.0)
    assert torch.equal(layout.labels, before)


def test_places_are_the_objects_in_order() -> None:
    layout = _layout()
    assert torch.equal(layout.boxes[layout.places], layout.boxes[layout.valid]) and layout.longest == 4


def test_a_device_is_given_what_it_would_wait_for() -> None:
    """On torch's meta device no value can be read: the numbers come from main memory."""
    there = _layout().to("meta")
    assert there.longest == 4
    assert [tuple(indices.shape) for indices in there.places] == [(6,), (6,)] and there.places[0].is_meta
