"""How many objects of each class a caption calls for, read from its words."""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.networks.encoders import TextFeatures
from objgan.vocabulary import PAD, UNK

# Adam moves every weight by the same small step: rows of rare words, which should move far, need longer ones.
_STEP = 8.0
_SHARPNESS = 4.0  # of the attention at the start: one or two words name a class
_MENTION = 3.0  # of the bag's weights, in finding the word that names a class
_CHANNELS = 64
PASSING = 32
"""Channels of a word that may stand between two objects: "left", "under"."""


@dataclass(frozen=True)
class CaptionFeatures(TextFeatures):
    """Text features, and what a `CountHead` says of the same words.

    counts: logits [B, C, R + 1]: whether a class appears at all, and of 1, 2, ... R objects if it does
    said:   [B, C, P], what the caption says where it names each class, for the places of its objects
    onward: [B, C, PASSING], the sum of its words' weights from there on: the difference of two classes' is of the words
            between them, with the sign of their order
    """

    counts: Tensor
    said: Tensor
    onward: Tensor

    def detach(self) -> Self:
        """The same features without their graph."""
        return replace(self, **{name: tensor.detach() for name, tensor in vars(self).items()})

    def __getitem__(self, index: Tensor | slice) -> Self:
        """Some of the captions, in the order of `index`."""
        return replace(self, **{name: tensor[index] for name, tensor in vars(self).items()})


class CountHead(nn.Module):
    """A query a class attends over the words and reads the number of its objects.

    Whether a class appears at all is a logistic regression on the caption's set of words besides: a network that reads
    through recurrent features learns late what a single word means.
    """

    def __init__(self, vocabulary: int, text: int, shares: Tensor, most: int, dropout: float) -> None:
        """The presence of each class starts from its share.

        vocabulary: words; text: channels of the text features (D); most: objects of a picture (R)
        shares:     [C], about how many of the images have each class
        """
        super().__init__()
        classes, self.said = len(shares), _CHANNELS
        self.embedding = nn.Embedding(vocabulary, _CHANNELS, padding_idx=PAD)
        self.weights = nn.Embedding(vocabulary, classes, padding_idx=PAD)
        nn.init.zeros_(self.weights.weight)
        self.bias = nn.Parameter(shares.clamp(1e-3, 0.5).logit())
        self.query = nn.Parameter(0.1 * torch.randn(classes, _CHANNELS))
        self.key = nn.Linear(text + _CHANNELS, _CHANNELS)
        self.value = nn.Linear(text + _CHANNELS, _CHANNELS)
        self.place = nn.Linear(text + _CHANNELS, _CHANNELS)
        self.passing = nn.Embedding(vocabulary, PASSING, padding_idx=PAD)
        nn.init.zeros_(self.passing.weight)
        self.label = nn.Parameter(0.1 * torch.randn(classes, _CHANNELS))
        self.dropout = nn.Dropout(dropout)
        self.read = nn.Sequential(
            nn.Linear(2 * _CHANNELS, _CHANNELS), nn.ReLU(), nn.Dropout(dropout), nn.Linear(_CHANNELS, most + 1)
        )

    def forward(self, words: Tensor, text: TextFeatures) -> CaptionFeatures:
        """Ids int64 [B, T] and their features -> the features with what it says of them."""
        known = torch.cat([text.words.transpose(1, 2), self.dropout(self.embedding(words))], -1)  # [B, T, D + E]
        scores = torch.einsum("ch,bth->bct", self.query, self.key(known)) * (_SHARPNESS / math.sqrt(_CHANNELS))
        weights = scores.float().masked_fill(~text.mask[:, None], -math.inf).softmax(-1).to(known.dtype)
        context = torch.einsum("bct,bth->bch", weights, self.value(known))
        counts: Tensor = self.read(torch.cat([context, self.label.to(context.dtype).expand_as(context)], -1))
        counts = counts + functional.pad(self._bag(words)[..., None], (0, counts.shape[-1] - 1))
        said = torch.einsum("bct,bth->bch", weights, self.place(known))
        onward = _STEP * torch.einsum("bct,bth->bch", self._mentions(words, text.mask), self.passing(words))
        return CaptionFeatures(text.words, text.sentence, text.mask, counts, said, onward)

    def penalty(self) -> Tensor:
        """Half the squared norm of the words' weights, a float32 scalar."""
        return 0.5 * _STEP**2 * self.weights.weight.float().square().sum()

    def _mentions(self, words: Tensor, mask: Tensor) -> Tensor:
        """[B, C, T]: how likely each class is named at or before a word, by the words' own weights.

        The attention itself looks anywhere near a name: the features of one word hold its neighbours.
        """
        named = (_MENTION * _STEP * self.weights(words).detach().float()).transpose(1, 2)
        shares: Tensor = named.masked_fill(~mask[:, None], -math.inf).softmax(-1).cumsum(-1)
        return shares.to(self.passing.weight.dtype)

    def _bag(self, words: Tensor) -> Tensor:
        """[B, C]: the bias and the sum over the distinct known words."""
        ordered = words.sort(1).values
        again = functional.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
        counted = (~again & (ordered > UNK)).to(self.weights.weight.dtype)
        return self.bias + _STEP * torch.einsum("btc,bt->bc", self.weights(ordered), counted)


def hide_words(words: Tensor, share: float) -> Tensor:
    """Ids int64 [B, T] with about this share of the words made unknown, by torch's global generator."""
    hidden = torch.rand(words.shape, device=words.device) < share
    return words.masked_fill(hidden & (words != PAD), UNK)
