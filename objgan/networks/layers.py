"""Layers that several networks share (Xu et al. 2018; Li et al. 2019); tensors are [B, C, H, W], any memory format."""

from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from objgan.batch import resize_images
from objgan.networks.painting import paint_owners

Norm = Literal["batch", "instance", "none"]
Module = TypeVar("Module", bound=nn.Module)


class GLU(nn.GLU):
    """Gated linear unit over channels: [B, 2C, ...] -> [B, C, ...]."""

    def __init__(self) -> None:
        super().__init__(dim=1)


def conv3x3(inputs: int, outputs: int, *, reflect: bool = False, bias: bool = False) -> nn.Conv2d:
    """3x3 convolution that keeps the size: [B, inputs, H, W] -> [B, outputs, H, W]; zero or reflection padding."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect" if reflect else "zeros", bias=bias)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU 0.2 in the place of its input, which no layer before it needs for its gradient: half the memory."""
    return functional.leaky_relu(x, 0.2, inplace=True)


def norm2d(norm: Norm, channels: int) -> nn.Module:
    """Batch norm (affine), instance norm (no affine) or nothing.

    Raises:
        ValueError: any other name.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "instance":
        return nn.InstanceNorm2d(channels)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm {norm!r}: use batch, instance or none")


class LeanInstanceNorm(nn.InstanceNorm2d):
    """Instance norm without parameters that keeps its result for the backward pass, and not its input.

    What follows keeps the result anyway (a GLU does), so a residual block remembers a map of 2C channels less.
    Differentiable once; the result must not be changed in place.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        if x.dtype not in (torch.float32, torch.float64):
            return super().forward(x)  # short types want their sums in float32
        normalised: Tensor = _InstanceNorm.apply(x, self.eps)
        return normalised


class _InstanceNorm(torch.autograd.Function):
    """Group norm's kernels with a group for each channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.contiguous(memory_format=_format(x))
        y, _, scale = torch.native_group_norm(x, None, None, batch, channels, height * width, channels, eps)
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors
        batch, channels, height, width = y.shape
        shape = (batch, channels, height * width, channels)
        # The slope of norm(x) is that of norm(y), whose mean is 0 and whose deviation is 1, times the scale.
        zero, one = torch.zeros_like(scale), torch.ones_like(scale)
        slope = slope.contiguous(memory_format=_format(y))
        for_y, _, _ = torch.ops.aten.native_group_norm_backward(slope, y, zero, one, None, *shape, [True, False, False])
        return for_y.mul_(scale.view(batch, channels, 1, 1)), None


def _format(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


class UpConvolution(nn.Conv2d):
    """[B, inputs, H, W] -> [B, outputs, 2H, 2W]: nearest x2, then a 3x3 convolution padded with zeros, without bias.

    The same function from 4/9 of the multiplications: an output sees 2 x 2 different inputs only, so taps that meet
    the same input are added beforehand. The four 2x2 kernels that come of it, one for each place in a 2 x 2 square, are
    one transposed 4x4 convolution of stride 2 (quicker than four convolutions and their interleaving).
    The parameter stays the 3x3 weight.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, 2H, 2W]."""
        return functional.conv_transpose2d(x, self.taps(), stride=2, padding=1)

    def taps(self) -> Tensor:
        """[inputs, outputs, 4, 4]: the transposed convolution's weight, each tap a sum of 1, 2 or 4 of the 3x3 ones."""
        padded = functional.pad(self.weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
        rows = padded[:, :, 1:] + padded[:, :, :-1]
        taps = rows[..., 1:] + rows[..., :-1]
        # A convolution's result has the memory format of its weight.
        last = self.weight.is_contiguous(memory_format=torch.channels_last)
        return taps.contiguous(memory_format=torch.channels_last) if last else taps.contiguous()


class Blur(nn.Module):
    """[B, C, H, W] -> the same: [1, 2, 1] / 4 across and down, the border repeated."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        return functional.avg_pool2d(functional.avg_pool2d(padded, 2, 1), 2, 1)


class UpBlock(nn.Sequential):
    """[B, inputs, H, W] -> [B, outputs, 2H, 2W]: nearest x2, 3x3 convolution, norm, GLU."""

    def __init__(self, inputs: int, outputs: int, norm: Norm = "batch") -> None:
        super().__init__(
            nn.Identity(),  # keeps the names of the layers after it, which checkpoints know
            UpConvolution(inputs, 2 * outputs),
            norm2d(norm, 2 * outputs),
            GLU(),
        )


class Styles(NamedTuple):
    """What changes a feature map where: shares [B, N, H, W] of the cells' owners, a vector [B, N, K] for each, and
    textures [B, T, H, W] (None: there are none).
    """

    shares: Tensor
    vectors: Tensor
    textures: Tensor | None = None


class Modulation(nn.Module):
    """Scale and shift of a map by the style of the object that owns a cell (Sun & Wu 2019, LostGAN, section 3.2).

    At any resolution: the owners' shares are brought to the map's side by area average, and so are textures, which add
    to scale and shift.
    """

    def __init__(self, style_channels: int, channels: int, textures: int = 0) -> None:
        super().__init__()
        self.project = nn.Linear(style_channels, 2 * channels)
        self.detail = nn.Linear(textures, 2 * channels, bias=False) if textures else None

    def forward(self, x: Tensor, styles: Styles) -> Tensor:
        """[B, C, h, w] -> the same."""
        values, shares = self.project(styles.vectors), styles.shares
        if self.detail is not None and styles.textures is not None:
            # One product for both: a texture is the share of a value that all pictures have in common.
            common = self.detail.weight.t().to(values.dtype).expand(len(values), -1, -1)
            values, shares = torch.cat([values, common], 1), torch.cat([shares, styles.textures], 1)
        scale, shift = paint_owners(values, resize_images(shares, x.shape[-1])).to(x.dtype).chunk(2, 1)
        return x * (1 + scale) + shift


class ResidualBlock(nn.Module):
    """[B, C, H, W] -> the same: x + (reflected 3x3, instance norm, GLU, reflected 3x3, instance norm)(x).

    coarse: what is added is computed at half the resolution: from averages of 2 x 2 cells, brought back bilinearly
    style_channels: K of the styles that modulate the first norm's result; None: no modulation
    textures:       channels of the textures that join in
    """

    def __init__(
        self, channels: int, coarse: bool = False, style_channels: int | None = None, textures: int = 0
    ) -> None:
        super().__init__()
        self.coarse = coarse
        self.modulation = None if style_channels is None else Modulation(style_channels, 2 * channels, textures)
        self.block = nn.Sequential(
            conv3x3(channels, 2 * channels, reflect=True),
            LeanInstanceNorm(2 * channels),
            GLU(),
            conv3x3(channels, channels, reflect=True),
            LeanInstanceNorm(channels),
        )

    def forward(self, x: Tensor, styles: Styles | None = None) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]; H, W >= 2, with `coarse` even and >= 4."""
        if not self.coarse:
            return x + self._residual(x, styles)
        added = self._residual(functional.avg_pool2d(x, 2), styles)
        return x + functional.interpolate(added, scale_factor=2.0, mode="bilinear", align_corners=False)

    def _residual(self, x: Tensor, styles: Styles | None) -> Tensor:
        if self.modulation is None or styles is None:
            residual: Tensor = self.block(x)
        else:
            residual = self.block[2:](self.modulation(self.block[:2](x), styles))
        return residual


class DownBlock(nn.Module):
    """[B, inputs, H, W] -> [B, outputs, H/2, W/2]: 4x4 convolution of stride 2, norm, leaky ReLU 0.2.

    `spectral` divides the convolution's weight by its largest singular value (Miyato et al. 2018).
    """

    def __init__(self, inputs: int, outputs: int, norm: Norm = "batch", spectral: bool = False) -> None:
        super().__init__()
        # A mean-removing norm makes a bias idle.
        self.conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=norm == "none")
        if spectral:
            parametrizations.spectral_norm(self.conv)
        self.norm = norm2d(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H/2, W/2]."""
        return self.activate(self.conv(x))

    def activate(self, convolved: Tensor) -> Tensor:
        """What follows the convolution."""
        return leaky(self.norm(convolved))


def orthogonal_(module: Module) -> Module:
    """Orthogonal weights (Saxe et al. 2014) and zero biases for every convolution and linear layer, in place.

    A spectrally normalised layer gets them beneath the normalisation. Returns `module`.
    """
    for layer in module.modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        if parametrize.is_parametrized(layer, "weight"):
            nn.init.orthogonal_(layer.parametrizations.weight.original)  # type: ignore[union-attr, arg-type]
            # Reading the weight in train mode takes a power step, so the estimate fits the new weight.
            assert layer.weight is not None
        else:
            nn.init.orthogonal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return module
