"""Parts of the published computation that the product does not keep, for comparison: same parameters, other forward."""

from torch import Tensor, nn
from torch.nn import functional

from objgan.layout import Layout
from objgan.networks.layers import UpConvolution
from objgan.networks.object_discriminator import ObjectDiscriminator


class DoubledObjectDiscriminator(ObjectDiscriminator):
    """Judges objects on image and layout at twice the image's size: 512 where images have 256 pixels."""

    def encode(self, layout: Layout) -> Tensor:
        """Layout with masks -> the first layer's part of it, [B, width, S, S]."""
        return self.trunk.project(self.encoder(layout, 2 * self.resolution))

    def features(self, images: Tensor, code: Tensor) -> list[Tensor]:
        """images [B, 3, S, S] -> activations, each of twice the usual side."""
        doubled = functional.interpolate(images, scale_factor=2.0, mode="bilinear", align_corners=False)
        return super().features(doubled, code)


class PlainUpConvolution(UpConvolution):
    """Nearest x2, then a 3x3 convolution at the doubled size."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, 2H, 2W]."""
        return functional.conv2d(functional.interpolate(x, scale_factor=2.0, mode="nearest"), self.weight, padding=1)


def double_object_images(networks: nn.Module) -> None:
    """Every object-wise discriminator among these, in place."""
    _become(networks, ObjectDiscriminator, DoubledObjectDiscriminator)


def convolve_after_doubling(networks: nn.Module) -> None:
    """Every up-block among these, in place."""
    _become(networks, UpConvolution, PlainUpConvolution)


def _become(networks: nn.Module, kind: type[nn.Module], other: type[nn.Module]) -> None:
    # A class of the same parameters in place of the old one: names, values and optimisers stay as they are.
    for module in networks.modules():
        if type(module) is kind:
            module.__class__ = other
