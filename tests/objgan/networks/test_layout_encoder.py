"""Layout encoder: equal to the dense class map's convolution, at a cost that does not grow with the classes."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from objgan.batch import resize_images
from objgan.geometry import merge_by_class
from objgan.layout import Layout
from objgan.networks.layout_encoder import LayoutEncoder


def _layout(classes: int = 5) -> Layout:
    """3 pictures of 4, 0 and 2 objects; the first has one class twice. Padding is filled with rubbish."""
    draw = torch.Generator().manual_seed(3)
    labels = torch.tensor([[1, 3, 1, 4], [9999, 9999, 9999, 9999], [0, 2, 9999, -5]])
    masks = torch.rand(3, 4, 32, 32, generator=draw)
    assert classes >= 5
    return Layout(labels, torch.rand(3, 4, 4, generator=draw), torch.tensor([4, 0, 2]), masks)


def _dense(layout: Layout, classes: int) -> Tensor:
    maps = torch.zeros(3, classes, 32, 32)
    for b in range(3):
        for r in range(int(layout.count[b])):
            label = int(layout.labels[b, r])
            maps[b, label] = torch.maximum(maps[b, label], layout.soft_masks[b, r])
    return maps


@pytest.mark.parametrize("size", [16, 32, 64])
def test_equal_to_the_dense_convolution(size: int) -> None:
    torch.manual_seed(0)
    layout, encoder = _layout(), LayoutEncoder(5, 6).double()
    maps = functional.pad(resize_images(_dense(layout, 5), size).double(), (1, 1, 1, 1), mode="reflect")
    coded = functional.conv2d(maps, encoder.weight.transpose(0, 1))
    sparse = encoder.convolve(
        resize_images(merge_by_class(layout.soft_masks, layout.labels, layout.valid), size),
        layout.labels.masked_fill(~layout.valid, 0),
    )
    torch.testing.assert_close(sparse, coded, atol=1e-10, rtol=0)
    expected = functional.leaky_relu(functional.instance_norm(coded), 0.2)
    torch.testing.assert_close(encoder(layout, size), expected, atol=1e-10, rtol=0)


def test_gradients_are_the_dense_ones() -> None:
    torch.manual_seed(0)
    layout, encoder = _layout(), LayoutEncoder(5, 6).double()
    gradient = torch.randn(3, 6, 32, 32, dtype=torch.float64)
    maps = functional.pad(_dense(layout, 5).double(), (1, 1, 1, 1), mode="reflect")
    dense = functional.instance_norm(functional.conv2d(maps, encoder.weight.transpose(0, 1)))
    expected = torch.autograd.grad(functional.leaky_relu(dense, 0.2), encoder.weight, gradient)
    torch.testing.assert_close(torch.autograd.grad(encoder(layout, 32), encoder.weight, gradient), expected)


@pytest.mark.parametrize(("down", "shape"), [(None, (3, 6, 32, 32)), (10, (3, 10, 16, 16))])
def test_widths_and_stride(down: int | None, shape: tuple[int, ...]) -> None:
    assert LayoutEncoder(5, 6, down)(_layout(), 32).shape == shape


def test_an_empty_layout_is_encoded_as_zero() -> None:
    encoded = LayoutEncoder(5, 6, 10)(_layout(), 32)
    assert not encoded[1].any() and encoded[0].any() and encoded[2].any()


def test_order_and_padding_of_objects_do_not_matter() -> None:
    layout, encoder = _layout()[torch.tensor([0])], LayoutEncoder(5, 6, 10)
    order = torch.tensor([2, 0, 3, 1])
    assert layout.masks is not None
    turned = Layout(layout.labels[:, order], layout.boxes[:, order], layout.count, layout.masks[:, order])
    torch.testing.assert_close(encoder(turned, 32), encoder(layout, 32), atol=1e-5, rtol=0)


def _work(classes: int) -> int:
    encoder, layout = LayoutEncoder(classes, 6, 10), _layout()
    with FlopCounterMode(display=False) as counter:
        encoder(layout, 32)
    return counter.get_total_flops()


def test_the_work_does_not_depend_on_the_number_of_classes() -> None:
    assert _work(5) == _work(500) > 0


def test_bytes_and_floats_give_the_same_code() -> None:
    layout, encoder = _layout(), LayoutEncoder(5, 6)
    assert layout.masks is not None
    stored = (layout.masks * 255).round().to(torch.uint8)
    torch.testing.assert_close(encoder(layout.with_masks(stored), 32), encoder(layout.with_masks(stored / 255.0), 32))


def test_boxes_alone_are_refused() -> None:
    layout = _layout()
    with pytest.raises(ValueError, match="boxes only"):
        LayoutEncoder(5, 6)(Layout(layout.labels, layout.boxes, layout.count), 32)


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_without_a_norm_an_objects_code_does_not_depend_on_the_others(norm) -> None:  # type: ignore[no-untyped-def]
    masks = torch.zeros(1, 2, 32, 32)
    masks[0, 0, 2:12, 2:12], masks[0, 1, 20:30, 20:30] = 1, 1
    boxes, labels = torch.zeros(1, 2, 4), torch.tensor([[1, 3]])
    torch.manual_seed(0)
    encoder = LayoutEncoder(5, 6, 10, norm)
    both, alone = (encoder(Layout(labels, boxes, torch.tensor([n]), masks), 32) for n in (2, 1))
    assert torch.allclose(both[..., :7, :7], alone[..., :7, :7], atol=1e-6) == (norm == "none")
