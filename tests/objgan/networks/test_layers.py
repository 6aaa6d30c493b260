"""Layers: shapes, initialisation, precision."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.networks.layers import (
    GLU,
    Blur,
    DownBlock,
    LeanInstanceNorm,
    ResidualBlock,
    UpBlock,
    UpConvolution,
    conv3x3,
    norm2d,
    orthogonal_,
)


def test_glu_gates_channels() -> None:
    x = torch.tensor([1.0, 2.0, 0.0, 100.0]).view(1, 4, 1, 1)
    torch.testing.assert_close(GLU()(x).flatten(), torch.tensor([0.5, 2.0]))


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_up_block_doubles_the_side(norm: str) -> None:
    assert UpBlock(6, 4, norm)(torch.randn(2, 6, 5, 5)).shape == (2, 4, 10, 10)


def test_a_blur_keeps_a_flat_map_flat_and_spreads_a_dot_by_its_weights() -> None:
    flat, dot = torch.ones(1, 2, 5, 5), torch.zeros(1, 1, 5, 5)
    dot[..., 2, 2] = 16
    torch.testing.assert_close(Blur()(flat), flat)
    torch.testing.assert_close(Blur()(dot)[0, 0, 1:4, 1:4], torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]))


def _plainly(x: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(functional.interpolate(x, scale_factor=2.0, mode="nearest"), weight, padding=1)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 1, 1), (2, 3, 8, 2)])
def test_up_convolution_is_nearest_up_and_a_3x3_convolution_in_all_gradients(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer, x = UpConvolution(3, 4).double(), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    out, plain = layer(x), _plainly(x, layer.weight)
    torch.testing.assert_close(out, plain, atol=1e-10, rtol=0)
    slope = torch.randn_like(out)
    inputs = (x, layer.weight)
    ours, theirs = (torch.autograd.grad(y, inputs, slope, create_graph=True) for y in (out, plain))
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    # once more, as a gradient penalty asks for
    twice = [torch.autograd.grad(g[0].square().sum(), (layer.weight,))[0] for g in (ours, theirs)]
    torch.testing.assert_close(twice[0], twice[1], atol=1e-10, rtol=0)


def test_up_convolution_is_the_same_in_channels_last_and_near_it_in_bfloat16() -> None:
    torch.manual_seed(0)
    layer, x = UpConvolution(16, 8), torch.randn(2, 16, 8, 8)
    plain = _plainly(x, layer.weight)
    last = layer.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain, atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        short = layer(x)
    assert short.dtype == torch.bfloat16
    torch.testing.assert_close(short.float(), plain, atol=0.03, rtol=0.03)


def test_up_block_reads_the_weights_of_the_plain_form() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Upsample(scale_factor=2), conv3x3(6, 8), nn.BatchNorm2d(8), GLU())
    block = UpBlock(6, 4)
    block.load_state_dict(plain.state_dict())
    x = torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(block(x), plain(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_down_block_halves_the_side(norm: str, spectral: bool) -> None:
    assert DownBlock(3, 4, norm, spectral)(torch.randn(2, 3, 8, 8)).shape == (2, 4, 4, 4)


def test_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="layer"):
        norm2d("layer", 3)  # type: ignore[arg-type]


def test_residual_block_adds_to_its_input_and_has_no_affine_norm() -> None:
    block = ResidualBlock(4)
    assert sum(p.numel() for p in block.parameters()) == 4 * 8 * 9 + 4 * 4 * 9
    nn.init.zeros_(block.block[3].weight)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(x), x)


def test_reflection_padding_leaves_no_border() -> None:
    constant = torch.ones(1, 2, 5, 5)
    out = conv3x3(2, 3, reflect=True)(constant)
    assert (out - out[:, :, 2:3, 2:3]).abs().max() < 1e-6


def test_orthogonal_reaches_plain_and_spectral_layers() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(DownBlock(3, 4, "none"), DownBlock(4, 4, "batch", spectral=True), nn.Linear(6, 4))
    assert orthogonal_(network) is network
    for weight in (network[0].conv.weight, network[1].conv.weight, network[2].weight):
        rows = weight.detach().flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(4), atol=1e-5, rtol=0)
    assert not network[0].conv.bias.any() and not network[2].bias.any()


def test_spectral_estimate_fits_the_weight_at_once_in_eval_mode() -> None:
    block = orthogonal_(DownBlock(3, 8, "none", spectral=True)).eval()
    assert torch.linalg.matrix_norm(block.conv.weight.flatten(1), 2).item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_norm_statistics_are_float32_under_bf16(norm: str) -> None:
    """Summed in bfloat16, 4096 values of 1 or 1.5 would stop growing at 256."""
    x = torch.ones(2, 1, 64, 64, dtype=torch.bfloat16)
    x[..., ::2] = 1.5
    with torch.autocast("cpu", torch.bfloat16):
        out = norm2d(norm, 1)(x).float()
    assert out.mean().abs() < 0.02 and abs(out.std().item() - 1) < 0.02


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_lean_instance_norm_is_instance_norm_in_its_gradient(form: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = (3 + 2 * torch.randn(2, 3, 5, 7, dtype=torch.float64)).contiguous(memory_format=form).requires_grad_()
    ours, theirs = LeanInstanceNorm(3)(x), nn.InstanceNorm2d(3)(x)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    assert ours.is_contiguous(memory_format=form)
    slope = torch.randn_like(ours)
    gradients = [torch.autograd.grad(y, x, slope)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-10, rtol=0)


def test_a_block_remembers_less_with_the_lean_norm() -> None:
    kept: list[int] = []
    block, x = ResidualBlock(4), torch.randn(1, 4, 16, 16)
    plain = nn.Sequential(
        *(nn.InstanceNorm2d(m.num_features) if isinstance(m, LeanInstanceNorm) else m for m in block.block)
    )
    for network in (block.block, plain):
        seen: dict[int, int] = {}

        def keep(t: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[t.data_ptr()] = t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            out = network(x)
        kept.append(sum(seen.values()))
        assert out.requires_grad
    assert kept[1] - kept[0] >= 8 * 16 * 16


@pytest.mark.parametrize("coarse", [False, True])
def test_a_coarse_block_keeps_the_shape_and_the_details_of_its_input(coarse: bool) -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(4, coarse), torch.randn(2, 4, 8, 8)
    added = block(x) - x
    assert added.shape == x.shape and added.abs().max() > 0.1
    # Checkers are lost where 2 x 2 cells are averaged: with them, the same is added.
    checkers = torch.ones(8, 8)
    checkers[::2, ::2] = checkers[1::2, 1::2] = -1
    alike = torch.allclose(block(x + checkers) - (x + checkers), added, atol=1e-4)
    assert alike == coarse


def test_up_block_keeps_channels_last() -> None:
    x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    block = UpBlock(8, 4).to(memory_format=torch.channels_last)
    assert block(x).is_contiguous(memory_format=torch.channels_last)
