"""Which classes a caption's words speak for, whatever their order, and how that guides a decoder of labels."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.networks.encoders import TextFeatures
from objgan.vocabulary import PAD, UNK

# Adam moves every weight by the same small step: rows of rare words, which should move far, need longer ones.
_STEP = 8.0


@dataclass(frozen=True)
class CaptionFeatures(TextFeatures):
    """Text features, and what a `WordBag` says of the same words: logits [B, C]."""

    bag: Tensor

    def detach(self) -> Self:
        """The same features without their graph."""
        return replace(self, words=self.words.detach(), sentence=self.sentence.detach(), bag=self.bag.detach())

    def __getitem__(self, index: Tensor | slice) -> Self:
        """Some of the captions, in the order of `index`."""
        words, sentence, mask, bag = (t[index] for t in (self.words, self.sentence, self.mask, self.bag))
        return replace(self, words=words, sentence=sentence, mask=mask, bag=bag)


class WordBag(nn.Module):
    """A logistic regression on a caption's set of words, and a weight for its word in each label's logit.

    A decoder that reads a caption through recurrent features learns late what a single word means; the sum of the
    words' own weights says it at once, and overfits less.
    """

    def __init__(self, vocabulary: int, shares: Tensor) -> None:
        """`shares`: [C], about how many of the images have each class; it starts from them."""
        super().__init__()
        classes = len(shares)
        self.weights = nn.Embedding(vocabulary, classes, padding_idx=PAD)
        nn.init.zeros_(self.weights.weight)
        self.bias = nn.Parameter(shares.clamp(1e-3, 0.5).logit())
        # Rows: a class that has not appeared yet, one that has.
        self.trust = nn.Parameter(torch.tensor([0.5, 0.0])[:, None].repeat(1, classes))

    def forward(self, words: Tensor) -> Tensor:
        """Ids int64 [B, T] -> logits [B, C]: the bias and the sum over the distinct known words."""
        ordered = words.sort(1).values
        again = functional.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
        counted = (~again & (ordered > UNK)).to(self.weights.weight.dtype)
        return self.bias + _STEP * torch.einsum("btc,bt->bc", self.weights(ordered), counted)

    def penalty(self) -> Tensor:
        """Half the squared norm of the words' weights, a float32 scalar."""
        return 0.5 * _STEP**2 * self.weights.weight.float().square().sum()

    def guide(self, logits: Tensor, bag: Tensor, used: Tensor) -> Tensor:
        """Label logits [B, ..., C + 1] with the trusted part of the bag's logits [B, C] added; the end stays.

        used: bool [B, ..., C], classes that have appeared. No gradient reaches the bag: it answers which classes
        appear, not which one comes next.
        """
        trust = torch.where(used, self.trust[1], self.trust[0])
        bag = bag.detach().reshape(len(bag), *[1] * (logits.ndim - 2), -1)
        return logits + functional.pad(trust * bag, (0, 1)).to(logits.dtype)


def hide_words(words: Tensor, share: float) -> Tensor:
    """Ids int64 [B, T] with about this share of the words made unknown, by torch's global generator."""
    hidden = torch.rand(words.shape, device=words.device) < share
    return words.masked_fill(hidden & (words != PAD), UNK)
