"""The parts of the image generator: conditioning augmentation, one encoder of the scene and one generator per scale."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.batch import resize_images
from objgan.layout import Layout
from objgan.networks.attention import GridAttention, ObjectAttention, Similarity, words_before
from objgan.networks.class_maps import box_coordinates
from objgan.networks.encoders import TextFeatures
from objgan.networks.layers import GLU, ResidualBlock, Styles, UpBlock, conv3x3
from objgan.networks.layout_encoder import LayoutEncoder
from objgan.networks.painting import owner_shares, paint, paint_owners
from objgan.networks.textures import Textures

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
    condition_noise: of the code around a normalised sentence; None: a learned Gaussian
    class_channels: of a learned class embedding that is painted; 0: the labels' word vectors are
    layout_norm: instance norm of the layout code
    start_norm:  batch norm of the first linear layer
    modulation:  the object on top owns a cell, and its class and words modulate each residual block there; one more
                 such block at each scale's full side; needs the layout
    text_scale:  factor of the text features that come in
    modifiers:   words before the attended ones whose vectors are part of an object's style; needs modulation
    word_channels: of these vectors
    textures:    channels of learned textures of classes and backgrounds that modulate, too; needs modulation

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
    condition_noise: float | None = None
    class_channels: int = 0
    layout_norm: bool = True
    start_norm: bool = True
    modulation: bool = False
    text_scale: float = 1.0
    modifiers: int = 0
    word_channels: int = 0
    textures: int = 0

    @property
    def style_channels(self) -> int | None:
        """Channels of an object's style: attended words, class embedding, modifiers, code; None without modulation."""
        if not self.modulation:
            return None
        modifiers = self.word_channels if self.modifiers else 0
        return self.text_channels + modifiers + self.class_channels + self.noise + self.condition

    def __post_init__(self) -> None:
        if (self.modifiers or self.textures) and not self.modulation:
            raise ValueError("modifiers and textures need modulation")
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
    classes: [B, R, E], what is painted for the objects' classes: those vectors or a learned embedding, 0 where padded
    """

    text: TextFeatures
    keys: Tensor
    layout: Layout
    labels: Tensor
    classes: Tensor


@dataclass(frozen=True)
class SceneCode:
    """A scene as one scale sees it, on a grid of half the scale's image side.

    layout:  [B, ngf, S/2, S/2], encoded class map
    painted: [B, ngf + E, S/2, S/2], c_obj and class vectors in the objects' masks; with modulation three more: place
             in the box across and down, and whether an object is there
    context: [B, R, ngf], c_obj; 0 where padded
    weights: [B, R, T], what c_obj took from each word
    styles:  of the background and of the objects, at the image's side; None without modulation
    """

    layout: Tensor
    painted: Tensor
    context: Tensor
    weights: Tensor
    styles: Styles | None


class ConditioningAugmentation(nn.Module):
    """A Gaussian around the sentence, sampled with given noise (StackGAN, section 3.2).

    spread: its deviation around a mean that is normalised over its channels; None: mean and variance are learned
    """

    def __init__(self, text_channels: int, condition: int, spread: float | None = None) -> None:
        super().__init__()
        self.spread = spread
        self.project = nn.Linear(text_channels, (4 if spread is None else 2) * condition)
        self.glu = GLU()

    def forward(self, sentence: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """sentence [B, D], noise [B, condition] -> code, mean, log-variance: float32 [B, condition] each."""
        coded = self.glu(self.project(sentence)).float()
        if self.spread is None:
            mean, log_variance = coded.chunk(2, 1)
        else:
            mean = functional.layer_norm(coded, coded.shape[1:])
            log_variance = torch.full_like(mean, 2 * math.log(self.spread))
        return mean + (0.5 * log_variance).exp() * noise, mean, log_variance


class SceneEncoder(nn.Module):
    """Layout code, and c_obj and label vectors painted into the masks, for images of side `size` (section 3.3)."""

    def __init__(self, sizes: GeneratorSizes, size: int, classes: int) -> None:
        super().__init__()
        self.size = size
        self.layout = LayoutEncoder(classes, CLASS_WIDTH, sizes.width, "instance" if sizes.layout_norm else "none")
        self.width, self.modulation, self.modifiers = sizes.width, sizes.modulation, sizes.modifiers
        self.textures = None
        if sizes.textures:
            self.textures = Textures(classes, sizes.textures, sizes.noise + sizes.condition)
        self.attention = None
        if sizes.object_attention:
            self.attention = ObjectAttention(sizes.text_channels, sizes.width, sizes.attention, sizes.temperature)

    def forward(self, scene: Scene, code: Tensor) -> SceneCode:
        """Scene of B captions and layouts, code [B, z + condition] of the whole -> the scene's code at this scale."""
        context, weights = self._attend(scene)
        padded = ~scene.layout.valid[..., None]
        context, weights = context.masked_fill(padded, 0.0), weights.masked_fill(padded, 0.0)
        classes = scene.classes.to(context.dtype)
        values, styles = torch.cat([context, classes], 2), None
        if self.modulation:
            attended = weights.to(context.dtype) @ scene.text.words.to(context.dtype).transpose(1, 2)
            parts = [attended, classes]
            if self.modifiers:
                parts.append(words_before(weights, scene.keys, self.modifiers).to(context.dtype))
            styles = self._styles(scene, torch.cat(parts, 2), code)
            painted = self._paint_owned(scene.layout, values, resize_images(styles.shares, self.size // 2))
        else:
            painted = paint(values, resize_images(scene.layout.soft_masks, self.size // 2))
        return SceneCode(self.layout(scene.layout, self.size), painted, context, weights, styles)

    def _styles(self, scene: Scene, values: Tensor, code: Tensor) -> Styles:
        """The background has the code alone."""
        shares = owner_shares(resize_images(scene.layout.soft_masks, self.size))
        values = functional.pad(values, (0, 0, 1, 0))
        vectors = torch.cat([values, code.to(values.dtype)[:, None].expand(-1, values.shape[1], -1)], 2)
        textures = None if self.textures is None else self.textures(scene.layout, shares, code)
        return Styles(shares, vectors, textures)

    def _paint_owned(self, layout: Layout, values: Tensor, shares: Tensor) -> Tensor:
        """values [B, R, C], shares [B, R + 1, h, w] -> [B, C + 3, h, w]."""
        side, shares = shares.shape[-1], shares[:, 1:]
        places = box_coordinates(layout.boxes.flatten(0, 1), side).view(*layout.boxes.shape[:2], 2, side, side)
        across = torch.einsum("brchw,brhw->bchw", places, shares)
        return torch.cat([paint_owners(values, shares), across.to(values.dtype), shares.sum(1, keepdim=True)], 1)

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


class ScaleTrunk(nn.ModuleList):
    """Residual blocks at half a scale's side and an up-block; with modulation one more residual block behind it."""

    def __init__(self, channels: int, blocks: int, sizes: GeneratorSizes, half_blocks: int = 0) -> None:
        style, width = sizes.style_channels, sizes.width
        super().__init__(ResidualBlock(channels, n < half_blocks, style, sizes.textures) for n in range(blocks))
        self.append(UpBlock(channels, width))
        if style is not None:
            self.append(ResidualBlock(width, style_channels=style, textures=sizes.textures))

    def forward(self, x: Tensor, styles: Styles | None) -> Tensor:
        """[B, channels, S/2, S/2] -> [B, ngf, S, S]."""
        for layer in self:
            x = layer(x, styles) if isinstance(layer, ResidualBlock) else layer(x)
        return x


class FirstScale(nn.Module):
    """Code -> 8 x 8 -> up-blocks to half the side; joined with the scene; residual blocks; up-block."""

    def __init__(self, sizes: GeneratorSizes, trunk: int) -> None:
        super().__init__()
        width, doublings = sizes.width, (sizes.sizes[0] // (2 * START)).bit_length() - 1
        self.channels = width << doublings
        cells = START * START
        self.start = nn.Sequential(
            nn.Linear(sizes.noise + sizes.condition, 2 * self.channels * cells, bias=False),
            nn.BatchNorm1d(2 * self.channels * cells) if sizes.start_norm else nn.Identity(),
            GLU(),
        )
        self.up = nn.Sequential(*(UpBlock(width << (k + 1), width << k) for k in reversed(range(doublings))))
        self.blocks = ScaleTrunk(trunk, sizes.first_blocks, sizes)

    def forward(self, code: Tensor, scene: SceneCode | None) -> Tensor:
        """code [B, z + condition] -> [B, ngf, sizes[0], sizes[0]]."""
        h = self.up(self.start(code).view(-1, self.channels, START, START))
        if scene is None:
            features: Tensor = self.blocks(h, None)
        else:
            features = self.blocks(_join(h, scene.layout, scene.painted), scene.styles)
        return features


class NextScale(nn.Module):
    """Grid attention over the words; joined with the scene; residual blocks; up-block."""

    def __init__(self, sizes: GeneratorSizes, trunk: int, half_blocks: int = 0) -> None:
        super().__init__()
        self.attention = GridAttention(sizes.text_channels, sizes.width)
        self.blocks = ScaleTrunk(trunk, sizes.next_blocks, sizes, half_blocks)

    def forward(self, features: Tensor, text: TextFeatures, scene: SceneCode | None) -> tuple[Tensor, Tensor]:
        """[B, ngf, S, S] -> features [B, ngf, 2S, 2S], attention over the words [B, T, S, S]."""
        context, weights = self.attention(features, text.words, text.mask)
        if scene is None:
            return self.blocks(_join(features, context), None), weights
        return self.blocks(_join(features + scene.layout, context, scene.painted), scene.styles), weights


class ToImage(nn.Module):
    """[B, ngf, S, S] -> float32 [B, 3, S, S] in [-1, 1]: 3x3 convolution, tanh."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = conv3x3(width, 3, bias=True)

    def forward(self, features: Tensor) -> Tensor:
        """[B, ngf, S, S] -> [B, 3, S, S]."""
        return torch.tanh(self.convolution(features).float())


def _join(h: Tensor, *others: Tensor) -> Tensor:
    """Concatenation over channels in the type and memory format of `h` (the painted maps come in the default one)."""
    joined = torch.cat([h, *(other.to(h.dtype) for other in others)], 1)
    if h.is_contiguous(memory_format=torch.channels_last):
        return joined.contiguous(memory_format=torch.channels_last)
    return joined
