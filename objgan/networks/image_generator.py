"""Image generator: caption, layout with masks and noise -> images of growing side (Li et al. 2019, section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from objgan.layout import Layout
from objgan.networks.encoders import TextFeatures
from objgan.networks.image_scales import (
    ConditioningAugmentation,
    FirstScale,
    GeneratorSizes,
    NextScale,
    Scene,
    SceneCode,
    SceneEncoder,
    ToImage,
    no_attention,
)
from objgan.networks.layers import orthogonal_

__all__ = ["GeneratorSizes", "ImageGenerator", "ImageOutputs"]


@dataclass(frozen=True)
class ImageOutputs:
    """What the generator makes of B captions and layouts.

    images:         one [B, 3, S, S] a scale, float32 in [-1, 1]
    mean:           [B, condition] of conditioning augmentation; log_variance likewise
    object_context: [B, R, ngf], c_obj of the last scale, 0 where padded
    label_vectors:  [B, R, W], word vectors of the objects' labels, 0 where padded
    object_weights: [B, R, T], what that c_obj took from each word
    word_vectors:   [B, T, W], of the captions' words, 0 where padded
    word_maps:      one [B, T, S/2, S/2] for each scale but the first: where its grid attention sees each word
    """

    images: list[Tensor]
    mean: Tensor
    log_variance: Tensor
    object_context: Tensor
    label_vectors: Tensor
    object_weights: Tensor
    word_vectors: Tensor
    word_maps: list[Tensor]


class ImageGenerator(nn.Module):
    """Generator of images at `sizes.sizes`; the trunk has 3 ngf + W channels at every scale (without layout: fewer).

    word_vectors:  float [N, W], a row per word id; unknown words have a row of zeros
    label_vectors: float [C, W], a row per class
    Both are frozen and saved with the weights. Convolutions and linear layers start orthogonal.
    """

    word_vectors: Tensor
    label_vectors: Tensor

    def __init__(self, sizes: GeneratorSizes, word_vectors: Tensor, label_vectors: Tensor) -> None:
        super().__init__()
        if word_vectors.shape[1] != label_vectors.shape[1]:
            raise ValueError(
                f"word vectors {word_vectors.shape} and label vectors {label_vectors.shape} differ in width"
            )
        classes, word_channels = label_vectors.shape
        if sizes.modifiers and sizes.word_channels != word_channels:
            raise ValueError(f"word vectors have {word_channels} channels, the sizes {sizes.word_channels}")
        trunks = (sizes.width, 2 * sizes.width)
        if sizes.layout:
            painted = sizes.class_channels or word_channels
            trunks = (3 * sizes.width + painted + (3 if sizes.modulation else 0),) * 2
        self.sizes = sizes
        self.noise_shape = (sizes.noise + sizes.condition,)
        self.register_buffer("word_vectors", word_vectors.detach().float().clone())
        self.register_buffer("label_vectors", label_vectors.detach().float().clone())
        self.classes = nn.Embedding(classes, sizes.class_channels) if sizes.class_channels and sizes.layout else None
        self.augmentation = ConditioningAugmentation(sizes.text_channels, sizes.condition, sizes.condition_noise)
        self.scenes = nn.ModuleList(SceneEncoder(sizes, size, classes) for size in sizes.sizes if sizes.layout)
        self.first = FirstScale(sizes, trunks[0])
        last = sizes.sizes[-1]
        self.next = nn.ModuleList(
            NextScale(sizes, trunks[1], sizes.half_blocks if size == last else 0) for size in sizes.sizes[1:]
        )
        self.to_image = nn.ModuleList(ToImage(sizes.width) for _ in sizes.sizes)
        orthogonal_(self)
        if sizes.modulation:
            # The last residual adds a deviation of 1 to what an image is made from: without this, tanh saturates.
            for to_image in self.to_image:
                nn.init.orthogonal_(cast(ToImage, to_image).convolution.weight, gain=0.3)

    def forward(self, text: TextFeatures, words: Tensor, layout: Layout, noise: Tensor) -> ImageOutputs:
        """Images for captions and layouts; an empty layout is legal. Without `sizes.layout` it changes nothing.

        text:   features of the captions; words: int64 [B, T], the ids they were made from, position by position
        layout: with masks
        noise:  standard normal [B, z + condition]

        Raises:
            ValueError: `words` are not those of `text`, or the layout has no masks.
        """
        if words.shape != text.mask.shape:
            raise ValueError(f"words {tuple(words.shape)} do not match text features of {tuple(text.mask.shape)} words")
        text = text.scaled(self.sizes.text_scale)
        scene = self._scene(text, words, layout)
        noise = noise.to(self.label_vectors.dtype)
        condition, mean, log_variance = self.augmentation(text.sentence, noise[:, self.sizes.noise :])
        code = torch.cat([noise[:, : self.sizes.noise], condition], 1)
        codes = [cast(SceneCode, encode(scene, code)) for encode in self.scenes]
        features, word_maps = self._features(code, text, codes or [None] * len(self.sizes.sizes))
        context, weights = (codes[-1].context, codes[-1].weights) if codes else no_attention(scene, self.sizes.width)
        return ImageOutputs(
            images=[to_image(h) for to_image, h in zip(self.to_image, features, strict=True)],
            mean=mean,
            log_variance=log_variance,
            object_context=context.float(),
            label_vectors=scene.labels,
            object_weights=weights,
            word_vectors=scene.keys,
            word_maps=word_maps,
        )

    def _scene(self, text: TextFeatures, words: Tensor, layout: Layout) -> Scene:
        valid = layout.valid
        known, padded = layout.labels.masked_fill(~valid, 0), ~valid[..., None]
        labels = self.label_vectors[known].masked_fill(padded, 0.0)
        keys = self.word_vectors[words.masked_fill(~text.mask, 0)]
        painted = labels if self.classes is None else self.classes(known).masked_fill(padded, 0.0)
        return Scene(text, keys, layout, labels, painted)

    def _features(
        self, code: Tensor, text: TextFeatures, codes: Sequence[SceneCode | None]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The features of each scale [B, ngf, S, S], and the word maps of each but the first."""
        features, word_maps = [self.first(code, codes[0])], []
        for scale, scene in zip(self.next, codes[1:], strict=True):
            h, weights = scale(features[-1], text, scene)
            features.append(h)
            word_maps.append(weights)
        return features, word_maps
