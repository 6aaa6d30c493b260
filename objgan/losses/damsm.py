"""Deep attentional multimodal similarity: how well images fit captions (Xu et al. 2018, arXiv 1711.10485, 3.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from objgan.networks.encoders import TextFeatures


@dataclass(frozen=True)
class Gammas:
    """Sharpness of a word's attention over regions, weight of the best word, sharpness of matching over the batch."""

    attention: float = 4.0
    words: float = 5.0
    matching: float = 10.0


def word_attention(regions: Tensor, text: TextFeatures, gamma: float) -> tuple[Tensor, Tensor]:
    """Every word of every caption looks at every region of every image.

    regions: [I, D, N]; text: C captions of T words

    Returns attention [I, C, T, N] (sums to 1 over N; padding rows mean nothing) and the dot products e^T v of the
    same shape. Softmax over a caption's real words per region, then over regions with `gamma`.
    """
    products = torch.einsum("idn,cdt->ictn", regions, text.words)
    over_words = products.masked_fill(~text.mask[None, :, :, None], float("-inf")).softmax(2)
    return (gamma * over_words).softmax(3), products


def word_scores(regions: Tensor, text: TextFeatures, gammas: Gammas) -> Tensor:
    """R(image, caption) by words: log of the sum over real words of exp(gamma_words cos(word, its context)).

    regions: [I, D, N]; text: C captions of T words. Returns [I, C], float32 or wider, without `matching`'s factor.
    Memory goes with [I, C, T, max(N, D)]: one contraction instead of the published loop over captions.
    """
    regions, words = _exact(regions), _exact(text.words)
    with torch.autocast(regions.device.type, enabled=False):
        attention, products = word_attention(regions, TextFeatures(words, text.sentence, text.mask), gammas.attention)
        contexts = torch.einsum("ictn,idn->ictd", attention, regions)
        norms = contexts.norm(dim=-1) * words.norm(dim=1)[None]
        # The dot product of word and context is the attention's mean of the products at hand.
        cosine = (attention * products).sum(-1) / norms.clamp_min(1e-8)  # [I, C, T]
        scores: Tensor = (gammas.words * cosine).masked_fill(~text.mask[None], float("-inf")).logsumexp(-1)
        return scores


def sentence_scores(vector: Tensor, text: TextFeatures) -> Tensor:
    """R(image, caption) by whole sentences: cosine of [I, D] and [C, D], [I, C], float32 or wider."""
    vector, sentence = _exact(vector), _exact(text.sentence)
    with torch.autocast(vector.device.type, enabled=False):
        return functional.normalize(vector, dim=1, eps=1e-8) @ functional.normalize(sentence, dim=1, eps=1e-8).T


def damsm_losses(
    regions: Tensor, vector: Tensor, text: TextFeatures, image_ids: Tensor, gammas: Gammas
) -> dict[str, Tensor]:
    """Cross-entropy of finding the caption of each image and the image of each caption within the batch.

    regions: [B, D, N]; vector: [B, D]; text: B captions, the b-th belongs to image b; image_ids: int64 [B]

    Returns "words" and "sentences", scalars: the sum over both directions of the mean over the batch. Other captions
    of the same image are neither right nor wrong: they do not count.
    """
    return {
        "words": matching_loss(gammas.matching * word_scores(regions, text, gammas), image_ids).mean(),
        "sentences": matching_loss(gammas.matching * sentence_scores(vector, text), image_ids).mean(),
    }


def matching_loss(logits: Tensor, image_ids: Tensor) -> Tensor:
    """[B, B] (image, caption), int64 [B] -> [B]: cross-entropy of both directions, for image b and for caption b."""
    masked = logits.masked_fill(same_image(image_ids), float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    forth = functional.cross_entropy(masked, target, reduction="none")
    return forth + functional.cross_entropy(masked.T, target, reduction="none")


def same_image(image_ids: Tensor) -> Tensor:
    """bool [B, B]: pairs of different samples that show the same image."""
    return (image_ids[:, None] == image_ids) & ~torch.eye(len(image_ids), dtype=torch.bool, device=image_ids.device)


def _exact(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
