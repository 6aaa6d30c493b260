"""Attention over a caption's words, from the cells of a feature map and from the objects of a layout."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Similarity = Literal["cosine", "dot"]


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension, at least in float32; 0 where `mask` is False, all 0 where nothing is left.

    scores [..., T], mask bool broadcastable to it -> [..., T]
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    # A row without any word would be uniform; and an exact 0 keeps what padding holds out of every sum.
    return weights * mask


class GridAttention(nn.Module):
    """Every cell of a feature map attends over the words (AttnGAN, section 3.1): dot products with projected words."""

    def __init__(self, text_channels: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(text_channels, channels, bias=False)

    def forward(self, features: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What each cell takes from its own caption, and how much of it from each word.

        features [B, C, h, w], words [B, D, T], mask bool [B, T] (True: a word)
        -> context [B, C, h, w], weights [B, T, h, w] (each cell's sum to 1)
        """
        batch, _, height, width = features.shape
        values = _project(self.project, words, mask)  # [B, T, C]
        cells = features.flatten(2).transpose(1, 2)  # [B, hw, C]
        weights = masked_softmax(cells @ values.transpose(1, 2), mask[:, None])  # [B, hw, T]
        context = weights.to(values.dtype) @ values  # [B, hw, C]
        grid = (batch, -1, height, width)
        return context.transpose(1, 2).view(grid), weights.transpose(1, 2).view(grid)


class ObjectAttention(nn.Module):
    """Every object attends over the words by its label's word vector (Obj-GAN, section 3.3, eq. 5).

    `cosine` similarity is multiplied by a learned temperature: without one its softmax is within a factor e^2 of flat.
    `dot` is the plain product, without a temperature.
    """

    def __init__(
        self, text_channels: int, channels: int, similarity: Similarity = "cosine", temperature: float = 10.0
    ) -> None:
        super().__init__()
        self.project = nn.Linear(text_channels, channels, bias=False)
        # Learned as a logarithm: it stays positive.
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if similarity == "cosine" else None

    def forward(self, labels: Tensor, keys: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """One vector per object, c_obj, from the word features of its own caption.

        labels [B, R, W] (label vectors), keys [B, T, W] (word vectors), words [B, D, T] (features of the same words),
        mask bool [B, T] -> c_obj [B, R, C], weights [B, R, T]. An unknown word's key is the zero vector: cosine 0.
        """
        values = _project(self.project, words, mask)  # [B, T, C]
        with torch.autocast(labels.device.type, enabled=False):
            weights = masked_softmax(self._scores(labels, keys), mask[:, None])  # [B, R, T]
        return weights.to(values.dtype) @ values, weights

    def _scores(self, labels: Tensor, keys: Tensor) -> Tensor:
        if self.log_temperature is None:
            return labels @ keys.transpose(1, 2)
        cosine = functional.normalize(labels, dim=-1) @ functional.normalize(keys, dim=-1).transpose(1, 2)
        return cosine * self.log_temperature.exp()


def words_before(weights: Tensor, keys: Tensor, words: int) -> Tensor:
    """What stands before the words that objects attend to: in English, the adjectives of their names.

    weights [B, R, T], keys [B, T, W] (word vectors) -> [B, R, W]: the sum over `words` places, each with half the
    weight of the one behind it.
    """
    length = weights.shape[2]
    before = [functional.pad(weights[..., n:], (0, min(n, length))) / 2 ** (n - 1) for n in range(1, words + 1)]
    return sum(before, torch.zeros_like(weights)).to(keys.dtype) @ keys


def _project(project: nn.Linear, words: Tensor, mask: Tensor) -> Tensor:
    """[B, D, T] -> [B, T, C]; padded words become 0 whatever is stored there."""
    values: Tensor = project(words.transpose(1, 2).masked_fill(~mask[..., None], 0.0))
    return values
