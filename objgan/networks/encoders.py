"""Text and image encoders, trained together as DAMSM (Xu et al. 2018, arXiv 1711.10485, section 3.2)."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from objgan.networks.backbones import Backbone
from objgan.transfers import send
from objgan.vocabulary import UNK, project_vectors


@dataclass(frozen=True)
class TextFeatures:
    """What the networks know of B captions.

    words:    [B, D, T], one column a word, 0 where padded
    sentence: [B, D]
    mask:     bool [B, T], which columns are words
    """

    words: Tensor
    sentence: Tensor
    mask: Tensor

    def detach(self) -> Self:
        """The same features without their graph."""
        return type(self)(self.words.detach(), self.sentence.detach(), self.mask)

    def scaled(self, factor: float) -> Self:
        """Words and sentence times `factor`."""
        return self if factor == 1 else type(self)(self.words * factor, self.sentence * factor, self.mask)

    def __getitem__(self, index: Tensor | slice) -> Self:
        """Some of the captions, in the order of `index`."""
        return type(self)(self.words[index], self.sentence[index], self.mask[index])


class TextEncoder(nn.Module):
    """Embedding, dropout and one bi-directional LSTM with D / 2 channels a direction."""

    def __init__(self, vocabulary: int, embedding: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.channels = channels
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(embedding, channels // 2, batch_first=True, bidirectional=True)
        with torch.no_grad():
            # Unit variance (torch's start), not AttnGAN's +-0.1: words differ from the first step on. Padding and
            # unknown words start neutral; the latter may never occur in training.
            self.embedding.weight[:2] = 0

    def forward(self, words: Tensor, count: Tensor) -> TextFeatures:
        """Ids int64 [B, T], numbers of words int64 [B] (0 is taken as 1) -> features; padding changes nothing.

        Numbers in main memory, where a batch keeps them, spare a GPU the wait: packing wants them there.
        """
        length, device = words.shape[1], words.device
        count = count.cpu().clamp(1, length)
        # Torch's own sorting (`enforce_sorted=False`) waits for a GPU twice.
        lengths, order = count.sort(descending=True)
        back = send(order.argsort(), device)
        embedded = self.dropout(self.embedding(words)).index_select(0, send(order, device))  # [B, T, E]
        packed_outputs, (last, _) = self.lstm(pack_padded_sequence(embedded, lengths, batch_first=True))
        outputs, _ = pad_packed_sequence(packed_outputs, batch_first=True, total_length=length)  # [B, T, D]
        outputs, last = outputs.index_select(0, back), last.index_select(1, back)
        mask = torch.arange(length, device=device) < send(count, device)[:, None]
        # `last` is [2, B, D / 2] whatever B is: no squeeze, so a batch of one keeps its dimension.
        return TextFeatures(outputs.transpose(1, 2), torch.cat([last[0], last[1]], 1), mask)


@torch.no_grad()
def start_from_vectors(embedding: nn.Embedding, vectors: np.ndarray) -> None:
    """Let the words' embeddings start from word vectors, float32 [N, V], scaled to a mean square of 1 per entry.

    Wider vectors are projected to the embedding's channels (`project_vectors`). Narrower ones take its first channels,
    and the others keep their random start. So do words without a vector; padding and unknown words stay as they are.
    """
    start = torch.from_numpy(project_vectors(vectors, min(vectors.shape[1], embedding.embedding_dim)))
    known = start.any(1)
    known[: UNK + 1] = False
    if known.any():
        start = start / start[known].square().mean().sqrt()
        embedding.weight[known, : start.shape[1]] = start[known].to(embedding.weight)


class ImageEncoder(nn.Module):
    """A backbone, and projections of its regions and of its pooled vector into the text's space."""

    def __init__(self, channels: int, backbone: Backbone) -> None:
        super().__init__()
        self.channels = channels
        self.backbone = backbone
        self.regions = nn.Conv2d(backbone.region_channels, channels, 1, bias=False)
        self.vector = nn.Linear(backbone.vector_channels, channels)
        nn.init.uniform_(self.regions.weight, -0.1, 0.1)
        nn.init.uniform_(self.vector.weight, -0.1, 0.1)
        nn.init.zeros_(self.vector.bias)

    def requires_grad_(self, requires_grad: bool = True) -> "ImageEncoder":
        """As everywhere, but a frozen backbone stays frozen (a module does not ask its parts)."""
        super().requires_grad_(requires_grad)
        self.backbone.requires_grad_(requires_grad)
        return self

    def activations(self, images: Tensor) -> list[Tensor]:
        """[B, 3, S, S] in [-1, 1], any S -> [B, K, h, w] of each layer of the backbone."""
        return self.backbone.activations(images)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, S, S] in [-1, 1], any S -> regions [B, D, N] (row by row, N a square), vector [B, D]."""
        return self._project(*self.backbone(images))

    def embed(self, activations: list[Tensor]) -> tuple[Tensor, Tensor]:
        """`activations` of images -> what `forward` gives for them."""
        return self._project(*self.backbone.outputs(activations))

    def _project(self, regions: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return self.regions(regions).flatten(2), self.vector(pooled)
