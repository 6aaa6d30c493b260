"""Discriminators of one scale: logits, shared passes, what does not matter."""

import pytest
import torch
from torch import nn

from objgan.layout import Layout
from objgan.networks.discriminators import (
    LayoutDiscriminator,
    LayoutTrunk,
    SentenceHead,
    TextDiscriminator,
    trunk_layers,
)


def _count(network: nn.Module) -> float:
    return sum(p.numel() for p in network.parameters()) / 1e6


def _layout(batch: int = 2, objects: int = 3, side: int = 32) -> Layout:
    boxes = torch.tensor([0.2, 0.3, 0.4, 0.5]).expand(batch, objects, 4)
    masks = torch.rand(batch, objects, side, side)
    return Layout(torch.randint(0, 5, (batch, objects)), boxes, torch.full((batch,), objects), masks)


def test_parameters_at_the_papers_size() -> None:
    assert _count(TextDiscriminator(256, 96, 256)) == pytest.approx(13.3, abs=0.05)
    assert _count(LayoutDiscriminator(256, 96, 80)) == pytest.approx(6.2, abs=0.05)


@pytest.mark.parametrize(("resolution", "side"), [(16, 1), (32, 1), (64, 1), (128, 3), (256, 7)])
@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_patches_of_logits(resolution: int, side: int, norm) -> None:  # type: ignore[no-untyped-def]
    images, sentence = torch.randn(2, 3, resolution, resolution), torch.randn(2, 6)
    logits = TextDiscriminator(resolution, 4, 6, norm)(images, sentence)
    assert logits.unconditional.shape == logits.conditional[0].shape == (2, side, side)
    network = LayoutDiscriminator(resolution, 4, 5, norm)
    assert network(images, network.encode(_layout())).shape == (2, side, side)


@pytest.mark.parametrize(("resolution", "side"), [(32, 2), (64, 4)])
def test_three_layers_and_padding_give_small_images_several_logits(resolution: int, side: int) -> None:
    images, sentence = torch.randn(2, 3, resolution, resolution), torch.randn(2, 6)
    logits = TextDiscriminator(resolution, 4, 6, "spectral", 3, 1)(images, sentence)
    assert logits.unconditional.shape == logits.conditional[0].shape == (2, side, side)
    network = LayoutDiscriminator(resolution, 4, 5, "spectral", 3, 1)
    assert network(images, network.encode(_layout())).shape == (2, side, side)


def test_trunk_keeps_a_map_of_four() -> None:
    assert [trunk_layers(s) for s in (8, 16, 32, 64, 128, 256)] == [1, 2, 3, 4, 4, 4]
    with pytest.raises(ValueError, match="48"):
        trunk_layers(48)


def test_split_sentence_head_is_the_convolution_of_the_concatenation() -> None:
    head = SentenceHead(6, 5, "batch")
    features, sentence = torch.randn(2, 6, 8, 8), torch.randn(2, 5)
    whole = nn.Conv2d(11, 6, 3, padding=1, bias=False)
    with torch.no_grad():
        whole.weight.copy_(torch.cat([head.image.weight, head.text.weight], 1))
    joint = whole(torch.cat([features, sentence[:, :, None, None].expand(-1, -1, 8, 8)], 1))
    expected = head.logits(nn.functional.leaky_relu(head.norm(joint), 0.2))[:, 0]
    torch.testing.assert_close(head(features, sentence)[0], expected, atol=1e-5, rtol=1e-4)


def test_each_sentence_is_judged_by_itself() -> None:
    network = TextDiscriminator(32, 4, 6).eval()
    images, a, b = torch.randn(2, 3, 32, 32), torch.randn(2, 6), torch.randn(2, 6)
    together = network(images, a, b)
    torch.testing.assert_close(together.conditional[1], network(images, b).conditional[0])
    assert not torch.allclose(together.conditional[0], together.conditional[1])


def test_spectral_norm_bounds_every_layer_and_leaves_no_batch_norm() -> None:
    network = TextDiscriminator(64, 4, 6, "spectral")
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for _ in range(30):
        network(torch.randn(2, 3, 64, 64), torch.randn(2, 6))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_batch_norm_on_all_but_the_first() -> None:
    network = TextDiscriminator(64, 4, 6)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.trunk.modules()) == 3
    assert not [m for m in network.trunk[0].modules() if isinstance(m, nn.BatchNorm2d)]


def test_padding_objects_change_nothing() -> None:
    network = LayoutDiscriminator(32, 4, 5).eval()
    full = _layout()
    padded = Layout(full.labels, full.boxes, torch.tensor([3, 1]), full.masks)
    assert full.masks is not None
    cut = Layout(full.labels[1:, :1], full.boxes[1:, :1], torch.tensor([1]), full.masks[1:, :1])
    images = torch.randn(2, 3, 32, 32)
    logits = network(images, network.encode(padded))
    torch.testing.assert_close(logits[1:], network(images[1:], network.encode(cut)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_bfloat16_autocast(norm) -> None:  # type: ignore[no-untyped-def]
    text, layout = TextDiscriminator(32, 4, 6, norm), LayoutDiscriminator(32, 4, 5, norm)
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = text(images, torch.randn(2, 6)).conditional[0] + layout(images, layout.encode(_layout()))
    logits.float().sum().backward()
    assert images.grad is not None and torch.isfinite(images.grad).all()


def test_the_split_first_convolution_is_the_one_over_image_and_code_in_all_gradients() -> None:
    torch.manual_seed(0)
    trunk = LayoutTrunk(5, 4, 3, "batch").double()
    images, code = (torch.randn(2, channels, 16, 16, dtype=torch.float64, requires_grad=True) for channels in (3, 5))
    plain, at = [], torch.cat([images, code], 1)
    for layer in trunk:
        at = layer(at)
        plain.append(at)
    split = trunk.activations(images, trunk.project(code))
    torch.testing.assert_close(split, plain, atol=1e-10, rtol=0)
    inputs = [images, code, *trunk.parameters()]
    slope = torch.randn_like(at)
    ours, theirs = (torch.autograd.grad(one[-1], inputs, slope) for one in (split, plain))
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
