"""The parts of the image generator: conditioning augmentation, one encoder of the scene and one generator per scale."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from objgan.batch import resize_images
from objgan.layout import Layout
from objgan.networks.attention import GridAttention, ObjectAttention, Similarity
from objgan.networks.encoders import TextFeatures
from objgan.networks.layers import GLU, ResidualBlock, UpBlock, conv3x3
from objgan.networks.layout_encoder import LayoutEncoder
from objgan.networks.painting import paint

START = 8
"""Side of the first feature map."""
CLASS_WIDTH = 24
"""Channels of the layout encoder's first convolution."""


@dataclass(frozen=True)
class GeneratorSizes:
    """What an image generator is built from (published figures; ngf = `width`).

    sizes:       image sides, the first one a power of two from 16 up, each twice the one before it
    temperature: start of the learned temperature of cosine attention
    object_attention: False: c_obj is 0 (the paper's ablation); the trunk keeps its channels
    half_blocks: number of residual blocks of the last of several scales, the first ones, that work at half resolution
    layout:      False: neither layout code nor c_obj nor label vectors; trunks of ngf and 2 ngf channels (AttnGAN's)

    Raises:
        ValueError: sizes that do not fit together.
    """

    sizes: tuple[int, ...] = (64, 128, 256)
    width: int = 48
    noise: int = 100
    condition: int = 100
    text_channels: int = 256
    first_blocks: int = 7
    next_blocks: int = 3
    half_blocks: int = 0
    attention: Similarity = "cosine"
    temperature: float = 10.0
    object_attention: bool = True
    layout: bool = True

    def __post_init__(self) -> None:
        first = self.sizes[0] if self.sizes else 0
        if first < 2 * START or first & (first - 1):
            raise ValueError(f"sizes must start at a power of two from {2 * START} up, got {self.sizes}")
        if any(after != 2 * before for before, after in zip(self.sizes, self.sizes[1:], strict=False)):
            raise ValueError(f"each of sizes must be twice the one before it, got {self.sizes}")


@dataclass(frozen=True)
class Scene:
    """What every scale paints from.

    text:   features of the caption's words
    keys:   [B, T, W], word vectors of the same words
    layout: with masks
    labels: [B, R, W], word vectors of the objects' labels, 0 where padded
    """

    text: TextFeatures
    keys: Tensor
    layout: Layout
    labels: Tensor


@dataclass(frozen=True)
class SceneCode:
    """A scene as one scale sees it, on a grid of half the scale's image side.

    layout:  [B, ngf, S/2, S/2], encoded class map
    painted: [B, ngf + W, S/2, S/2], c_obj and label vectors in the objects' masks
    context: [B, R, ngf], c_obj; 0 where padded
    weights: [B, R, T], what c_obj took from each word
    """

    layout: Tensor
    painted: Tensor
    context: Tensor
    weights: Tensor


class ConditioningAugmentation(nn.Module):
    """A Gaussian around the sentence, sampled with given noise (StackGAN, section 3.2)."""

    def __init__(self, text_channels: int, condition: int) -> None:
        super().__init__()
        self.project = nn.Linear(text_channels, 4 * condition)
        self.glu = GLU()

    def forward(self, sentence: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """sentence [B, D], noise [B, condition] -> code, mean, log-variance: float32 [B, condition] each."""
        mean, log_variance = self.glu(self.project(sentence)).float().chunk(2, 1)
        return mean + (0.5 * log_variance).exp() * noise, mean, log_variance


class SceneEncoder(nn.Module):
    """Layout code, and c_obj and label vectors painted into the masks, for images of side `size` (section 3.3)."""

    def __init__(self, sizes: GeneratorSizes, size: int, classes: int) -> None:
        super().__init__()
        self.size = size
        self.layout = LayoutEncoder(classes, CLASS_WIDTH, sizes.width)
        self.width = sizes.width
        self.attention = None
        if sizes.object_attention:
            self.attention = ObjectAttention(sizes.text_channels, sizes.width, sizes.attention, sizes.temperature)

    def forward(self, scene: Scene) -> SceneCode:
        """Scene of B captions and layouts -> its code at this scale."""
        context, weights = self._attend(scene)
        padded = ~scene.layout.valid[..., None]
        context, weights = context.masked_fill(padded, 0.0), weights.masked_fill(padded, 0.0)
        masks = resize_images(scene.layout.soft_masks, self.size // 2)
        painted = paint(torch.cat([context, scene.labels.to(context.dtype)], 2), masks)
        return SceneCode(self.layout(scene.layout, self.size), painted, context, weights)

    def _attend(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """c_obj [B, R, ngf], and its weights of the words [B, R, T]."""
        if self.attention is None:
            return no_attention(scene, self.width)
        context, weights = self.attention(scene.labels, scene.keys, scene.text.words, scene.text.mask)
        return context, weights


def no_attention(scene: Scene, width: int) -> tuple[Tensor, Tensor]:
    """Zeros in the place of c_obj [B, R, width] and of its weights [B, R, T]."""
    objects, words = scene.labels.shape[:2], scene.text.mask.shape[1]
    return scene.labels.new_zeros(*objects, width), scene.labels.new_zeros(*objects, words)


class FirstScale(nn.Module):
    """Code -> 8 x 8 -> up-blocks to half the side; joined with the scene; residual blocks; up-block."""

    def __init__(self, sizes: GeneratorSizes, trunk: int) -> None:
        super().__init__()
        width, doublings = sizes.width, (sizes.sizes[0] // (2 * START)).bit_length() - 1
        self.channels = width << doublings
        cells = START * START
        self.start = nn.Sequential(
            nn.Linear(sizes.noise + sizes.condition, 2 * self.channels * cells, bias=False),
            nn.BatchNorm1d(2 * self.channels * cells),
            GLU(),
        )
        self.up = nn.Sequential(*(UpBlock(width << (k + 1), width << k) for k in reversed(range(doublings))))
        self.blocks = _trunk(trunk, sizes.first_blocks, width)

    def forward(self, code: Tensor, scene: SceneCode | None) -> Tensor:
        """code [B, z + condition] -> [B, ngf, sizes[0], sizes[0]]."""
        h = self.up(self.start(code).view(-1, self.channels, START, START))
        features: Tensor = self.blocks(h if scene is None else _join(h, scene.layout, scene.painted))
        return features


class NextScale(nn.Module):
    """Grid attention over the words; joined with the scene; residual blocks; up-block."""

    def __init__(self, sizes: GeneratorSizes, trunk: int, half_blocks: int = 0) -> None:
        super().__init__()
        self.attention = GridAttention(sizes.text_channels, sizes.width)
        self.blocks = _trunk(trunk, sizes.next_blocks, sizes.width, half_blocks)

    def forward(self, features: Tensor, text: TextFeatures, scene: SceneCode | None) -> tuple[Tensor, Tensor]:
        """[B, ngf, S, S] -> features [B, ngf, 2S, 2S], attention over the words [B, T, S, S]."""
        context, weights = self.attention(features, text.words, text.mask)
        if scene is None:
            return self.blocks(_join(features, context)), weights
        return self.blocks(_join(features + scene.layout, context, scene.painted)), weights


class ToImage(nn.Module):
    """[B, ngf, S, S] -> float32 [B, 3, S, S] in [-1, 1]: 3x3 convolution, tanh."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = conv3x3(width, 3, bias=True)

    def forward(self, features: Tensor) -> Tensor:
        """[B, ngf, S, S] -> [B, 3, S, S]."""
        return torch.tanh(self.convolution(features).float())


def _trunk(channels: int, blocks: int, width: int, half_blocks: int = 0) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels, n < half_blocks) for n in range(blocks)), UpBlock(channels, width))


def _join(h: Tensor, *others: Tensor) -> Tensor:
    """Concatenation over channels in the type and memory format of `h` (the painted maps come in the default one)."""
    joined = torch.cat([h, *(other.to(h.dtype) for other in others)], 1)
    if h.is_contiguous(memory_format=torch.channels_last):
        return joined.contiguous(memory_format=torch.channels_last)
    return joined
