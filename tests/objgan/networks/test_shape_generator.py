"""What must hold of generated masks whatever the weights: box, padding, batch, empty layouts."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from objgan.geometry import ellipses, raster_boxes
from objgan.layout import Layout
from objgan.metrics.masks import object_ious
from objgan.networks.shape_generator import ShapeGenerator, ShapeSizes

MASK, OBJECTS, NOISE = 16, 4, 3


SIZES = ShapeSizes(classes=5, class_embedding=4, width=8, noise=NOISE, objects=OBJECTS, mask_size=MASK)


@pytest.fixture(params=[0, 8], ids=["published", "templates"])
def generator(request) -> ShapeGenerator:
    torch.manual_seed(0)
    generator = ShapeGenerator(replace(SIZES, template=request.param)).eval()
    for parameter in (*generator.decode[-1].parameters(), *_offsets(generator)):
        torch.nn.init.normal_(parameter, std=0.1)
    return generator


def _offsets(generator: ShapeGenerator) -> list[torch.nn.Parameter]:
    return [] if generator.templates is None else list(generator.templates.offset.parameters())


@pytest.fixture
def layout(make_batch) -> Layout:
    return make_batch(4, counts=[2, 0, 4, 1]).layout


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(4, OBJECTS, NOISE, generator=torch.Generator().manual_seed(1))


def test_masks_lie_in_their_boxes(generator, layout, noise) -> None:
    masks = generator(layout, noise)
    assert masks.shape == (4, OBJECTS, MASK, MASK)
    assert masks.dtype == torch.float32
    cover = raster_boxes(layout.boxes, MASK)
    assert ((masks >= 0) & (masks <= cover)).all()
    assert not masks[~layout.valid].any()
    assert masks[layout.valid].flatten(1).any(1).all()


def test_padding_changes_nothing(generator, layout, noise) -> None:
    masks = generator(layout, noise)
    padded = ~layout.valid
    labels, boxes = layout.labels.clone(), layout.boxes.clone()
    labels[padded], boxes[padded] = 3, torch.tensor([0.1, 0.2, 0.5, 0.6])
    loud = noise.masked_fill(padded[..., None], 100.0)
    torch.testing.assert_close(generator(replace(layout, labels=labels, boxes=boxes), loud), masks)


def test_fewer_padded_places_change_nothing(generator, layout, noise) -> None:
    short = Layout(layout.labels[:1, :2], layout.boxes[:1, :2], layout.count[:1])
    torch.testing.assert_close(generator(short, noise[:1, :2]), generator(layout, noise)[:1, :2])


@pytest.mark.parametrize("row", range(4))
def test_batch_of_one_is_batch_of_many(generator, layout, noise, row) -> None:
    alone = generator(layout[row : row + 1], noise[row : row + 1])
    torch.testing.assert_close(alone, generator(layout, noise)[row : row + 1])


def test_empty_layouts_pass_with_a_graph(generator, make_batch) -> None:
    empty = make_batch(2, counts=[0, 0]).layout
    logits = generator.logits(empty, torch.zeros(2, OBJECTS, NOISE))
    logits.sum().backward()
    assert not logits.any()
    assert all(p.grad is None or not p.grad.any() for p in generator.parameters())


def test_an_object_is_drawn_in_sight_of_the_others(generator, layout, noise) -> None:
    labels = layout.labels.clone()
    labels[2, 3] = (labels[2, 3] + 1) % 5
    before, after = generator(layout, noise), generator(replace(layout, labels=labels), noise)
    assert not torch.equal(before[2, 0], after[2, 0])
    torch.testing.assert_close(before[0], after[0])


def test_noise_of_an_object_changes_its_mask_alone(generator, layout, noise) -> None:
    other = noise.clone()
    other[2, 1] += 1
    changed = (generator(layout, noise) - generator(layout, other)).abs().flatten(2).amax(2) > 1e-6
    assert changed.nonzero().tolist() == [[2, 1]]


@pytest.mark.parametrize("size", [16, 32, 128])
def test_mask_sizes(make_batch, size) -> None:
    generator = ShapeGenerator(replace(SIZES, mask_size=size))
    assert generator(make_batch(2).layout, torch.zeros(2, OBJECTS, NOISE)).shape == (2, OBJECTS, size, size)


@pytest.mark.parametrize("size", [8, 48])
def test_other_mask_sizes_are_refused(size) -> None:
    with pytest.raises(ValueError, match=f"mask_size {size}"):
        ShapeGenerator(replace(SIZES, mask_size=size))


def test_with_templates_it_begins_as_the_ellipse(make_batch, noise) -> None:
    layout = make_batch(4, counts=[2, 0, 4, 1]).layout
    masks = ShapeGenerator(replace(SIZES, template=16, mask_size=64))(layout, noise)
    true = layout.with_masks(ellipses(layout.boxes, 64) * layout.valid[..., None, None])
    assert object_ious(masks, true)[layout.valid].min() > 0.9
