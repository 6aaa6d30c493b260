"""Patch-wise discriminators of one scale: does the image look real, fit its sentence, fit its layout?

Li et al. 2019, section 3.4.1. Sizes at the paper's width of 96: 13.3 M (text) and 6.2 M parameters (layout).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from objgan.layout import Layout
from objgan.networks.layers import DownBlock, leaky, norm2d
from objgan.networks.layout_encoder import LayoutEncoder

DiscriminatorNorm = Literal["batch", "spectral"]
"""Batch norm after every convolution but the first and the last, or spectral norm of every convolution instead."""

CODE_CHANNELS = 12
"""Channels of the layout's code beside an image."""


class TextLogits(NamedTuple):
    """unconditional: [B, n, n], is this patch real?  conditional: one [B, n, n] per sentence, does it fit, too?"""

    unconditional: Tensor
    conditional: list[Tensor]


_IMAGE_CHANNELS = 3


def trunk_layers(resolution: int, most: int = 4) -> int:
    """Stride-2 layers at this resolution: as many as leave a map of at least 4 x 4 cells, and no more than `most`.

    Raises:
        ValueError: not a power of two from 8 up.
    """
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(f"resolution {resolution}: discriminators take powers of two from 8 up")
    return min(most, resolution.bit_length() - 3)


class Trunk(nn.Sequential):
    """[B, inputs, S, S] -> [B, channels, S / 2^layers, S / 2^layers]; channels = width * 2^(layers - 1)."""

    def __init__(self, inputs: int, width: int, layers: int, norm: DiscriminatorNorm) -> None:
        widths = [inputs, *(width * 2**k for k in range(layers))]
        spectral = norm == "spectral"
        super().__init__(
            *(
                DownBlock(widths[k], widths[k + 1], "none" if spectral or k == 0 else "batch", spectral)
                for k in range(layers)
            )
        )
        self.channels = widths[-1]


class LayoutTrunk(Trunk):
    """A trunk over an image and the code of its layout: [B, 3 + code, S, S] in two parts.

    The first convolution is split, which is the same function: the code's part is done once for all images that the
    layout goes with, and no gradient is computed to an image or to a code that asks for none.
    """

    def __init__(self, code_channels: int, width: int, layers: int, norm: DiscriminatorNorm) -> None:
        super().__init__(_IMAGE_CHANNELS + code_channels, width, layers, norm)

    def project(self, code: Tensor) -> Tensor:
        """The code's part [B, code, S, S] -> [B, width, S/2, S/2]."""
        return functional.conv2d(code, self._first.conv.weight[:, _IMAGE_CHANNELS:], stride=2, padding=1)

    def activations(self, images: Tensor, projected: Tensor) -> list[Tensor]:
        """images [B, 3, S, S], `project` of a code -> activations after each layer."""
        conv = self._first.conv
        image = functional.conv2d(images, conv.weight[:, :_IMAGE_CHANNELS], conv.bias, stride=2, padding=1)
        activations = [self._first.activate(image + projected)]
        for layer in list(self)[1:]:
            activations.append(layer(activations[-1]))
        return activations

    @property
    def _first(self) -> DownBlock:
        first = self[0]
        assert isinstance(first, DownBlock)
        return first


def hidden_convolution(inputs: int, outputs: int, kernel: int, norm: DiscriminatorNorm) -> nn.Conv2d:
    """Convolution inside a head, padded by 1; with a bias where no batch norm follows, which would make it idle."""
    return _normalised(nn.Conv2d(inputs, outputs, kernel, padding=1, bias=norm != "batch"), norm)


def logit_convolution(channels: int, norm: DiscriminatorNorm, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """A head's last layer: 4x4 convolution to one logit a place."""
    return _normalised(nn.Conv2d(channels, 1, 4, stride, padding), norm)


def over_constant(convolve: Callable[[Tensor], Tensor], vectors: Tensor, size: int) -> Tensor:
    """A 3x3 convolution padded by 1 over maps that are the same vector everywhere: [B, K] -> [B, C, size, size].

    size: 2 or more
    """
    # Border, inside, border: a 3x3 map has all nine cases.
    case = torch.ones(size, dtype=torch.int64, device=vectors.device)
    case[0], case[-1] = 0, 2
    return convolve(vectors[:, :, None, None].expand(-1, -1, 3, 3))[:, :, case][..., case]


class SentenceHead(nn.Module):
    """Features and sentence concatenated -> 3x3 convolution, norm, leaky ReLU -> 4x4 convolution -> logits.

    The 3x3 convolution is split into its two halves, which is the same function: the features' half is done once for
    any number of sentences, and the sentence's half is constant over the map up to the padded border.
    """

    def __init__(self, channels: int, text_channels: int, norm: DiscriminatorNorm, padding: int = 0) -> None:
        super().__init__()
        self.image = hidden_convolution(channels, channels, 3, norm)
        self.text = hidden_convolution(text_channels, channels, 3, norm)
        self.norm = norm2d("batch" if norm == "batch" else "none", channels)
        self.logits = logit_convolution(channels, norm, stride=2, padding=padding)

    def forward(self, features: Tensor, *sentences: Tensor) -> list[Tensor]:
        """features [B, C, h, h], h >= 4, sentences [B, D] each -> logits [B, n, n] for each sentence."""
        image = self.image(features)
        logits = []
        for sentence in sentences:
            text = over_constant(self.text, sentence, features.shape[-1])
            logits.append(self.logits(leaky(self.norm(image + text)))[:, 0])
        return logits


class TextDiscriminator(nn.Module):
    """Real or generated, and with its sentence or another's.

    layers:  stride-2 layers at most
    padding: of the logits' convolutions; 1 gives small images several logits
    """

    def __init__(
        self,
        resolution: int,
        width: int,
        text_channels: int,
        norm: DiscriminatorNorm = "batch",
        layers: int = 4,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.trunk = Trunk(3, width, trunk_layers(resolution, layers), norm)
        self.unconditional = logit_convolution(self.trunk.channels, norm, 2, padding)
        self.conditional = SentenceHead(self.trunk.channels, text_channels, norm, padding)

    def forward(self, images: Tensor, *sentences: Tensor) -> TextLogits:
        """images [B, 3, S, S] in [-1, 1], any number of sentences [B, D] to judge them with -> TextLogits.

        n = 1, 3, 7 at S = 64, 128, 256 with 4 layers and without padding.
        """
        features = self.trunk(images)
        return TextLogits(self.unconditional(features)[:, 0], self.conditional(features, *sentences))


class LayoutDiscriminator(nn.Module):
    """Real image with its layout, or not: generated, or another layout; layers, padding: as in `TextDiscriminator`."""

    def __init__(
        self,
        resolution: int,
        width: int,
        classes: int,
        norm: DiscriminatorNorm = "batch",
        layers: int = 4,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = LayoutEncoder(classes, CODE_CHANNELS)
        self.trunk = LayoutTrunk(CODE_CHANNELS, width, trunk_layers(resolution, layers), norm)
        self.logits = logit_convolution(self.trunk.channels, norm, 2, padding)
        self.resolution = resolution

    def encode(self, layout: Layout) -> Tensor:
        """Layout with masks -> what the trunk's first layer takes from it, to be shared by all images it goes with.

        [B, width, S/2, S/2]
        """
        return self.trunk.project(self.encoder(layout, self.resolution))

    def forward(self, images: Tensor, code: Tensor) -> Tensor:
        """images [B, 3, S, S] in [-1, 1], code of `encode` -> logits [B, n, n]."""
        return self.judge(self.features(images, code))

    def features(self, images: Tensor, code: Tensor) -> list[Tensor]:
        """Activations after each layer of the trunk, the last one for `judge`."""
        return self.trunk.activations(images, code)

    def judge(self, features: list[Tensor]) -> Tensor:
        """`features` -> logits [B, n, n]."""
        logits: Tensor = self.logits(features[-1])
        return logits[:, 0]


def _normalised(convolution: nn.Conv2d, norm: DiscriminatorNorm) -> nn.Conv2d:
    if norm == "spectral":
        parametrizations.spectral_norm(convolution)
    return convolution
