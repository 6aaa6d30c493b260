"""DAMSM: against a plain loop over pairs, against numbers worked out by hand, and its invariants."""

import math

import pytest
import torch
from torch import Tensor

from objgan.losses.damsm import Gammas, damsm_losses, matching_loss, sentence_scores, word_attention, word_scores
from objgan.networks.encoders import TextFeatures

GAMMAS = Gammas()


def features(captions: int, channels: int, counts: list[int], length: int, seed: int = 0) -> TextFeatures:
    draw = torch.Generator().manual_seed(seed)
    words = torch.randn(captions, channels, length, generator=draw, dtype=torch.float64)
    mask = torch.arange(length) < torch.tensor(counts)[:, None]
    sentence = torch.randn(captions, channels, generator=draw, dtype=torch.float64)
    return TextFeatures(words * mask[:, None], sentence, mask)


def score_by_hand(regions: Tensor, words: Tensor) -> float:
    """One image [D, N] and one caption's real words [D, n], pair by pair and step by step as in the paper."""
    n_words, n_regions = words.shape[1], regions.shape[1]
    products = [[float(words[:, t] @ regions[:, n]) for n in range(n_regions)] for t in range(n_words)]
    total = 0.0
    for t in range(n_words):
        shares = [math.exp(products[t][n]) / sum(math.exp(p[n]) for p in products) for n in range(n_regions)]
        sharp = [math.exp(GAMMAS.attention * share) for share in shares]
        context = sum(sharp[n] / sum(sharp) * regions[:, n] for n in range(n_regions))
        cosine = float(context @ words[:, t] / (context.norm() * words[:, t].norm()))
        total += math.exp(GAMMAS.words * cosine)
    return math.log(total)


def test_word_scores_match_a_loop_over_pairs() -> None:
    counts = [3, 5, 1]
    text = features(3, 6, counts, 5)
    regions = torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = [[score_by_hand(regions[i], text.words[c, :, : counts[c]]) for c in range(3)] for i in range(2)]
    torch.testing.assert_close(word_scores(regions, text, GAMMAS), torch.tensor(expected, dtype=torch.float64))


def test_word_score_of_one_word_and_two_regions() -> None:
    # One word: softmax over words is 1 everywhere, so attention is even and the context is (1/2, 1/2); cos = 1/sqrt(2).
    text = TextFeatures(torch.tensor([[[1.0], [0.0]]]), torch.zeros(1, 2), torch.ones(1, 1, dtype=torch.bool))
    score = word_scores(torch.eye(2)[None], text, GAMMAS)
    assert score.item() == pytest.approx(5 / math.sqrt(2), abs=1e-5)


def test_attention_looks_where_the_word_is() -> None:
    # Two words, two regions: shares over words are e/(e+1) on the diagonal, 1/(e+1) off it.
    text = TextFeatures(torch.eye(2)[None], torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    attention, _ = word_attention(torch.eye(2)[None], text, 4.0)
    share = math.e / (math.e + 1)
    expected = math.exp(4 * share) / (math.exp(4 * share) + math.exp(4 * (1 - share)))
    assert attention[0, 0, 0, 0].item() == pytest.approx(expected)
    assert attention[0, 0, 1, 1].item() == pytest.approx(expected)


def test_losses_of_a_perfect_and_of_an_even_batch() -> None:
    even = matching_loss(torch.zeros(4, 4), torch.arange(4))
    torch.testing.assert_close(even, torch.full((4,), 2 * math.log(4)))
    assert matching_loss(100 * torch.eye(4), torch.arange(4)).sum() < 1e-6


def test_other_captions_of_the_same_image_do_not_count() -> None:
    logits = torch.tensor([[0.0, 9.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    loss = matching_loss(logits, torch.tensor([7, 7, 8]))
    # Samples 0 and 1 show one image: each competes with sample 2 alone, and sample 2 with both.
    torch.testing.assert_close(loss, torch.tensor([2 * math.log(2), 2 * math.log(2), 2 * math.log(3)]))


def test_sentence_scores_are_cosines() -> None:
    text = TextFeatures(torch.zeros(2, 2, 1), torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.ones(2, 1).bool())
    scores = sentence_scores(torch.tensor([[2.0, 0.0]]), text)
    torch.testing.assert_close(scores, torch.tensor([[1.0, 1 / math.sqrt(2)]]))


def test_padding_never_counts() -> None:
    text = features(3, 6, [2, 4, 1], 4)
    regions = torch.randn(3, 6, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    vector, ids = torch.randn(3, 6, dtype=torch.float64), torch.arange(3)
    longer = torch.full((3, 6, 9), 50.0, dtype=torch.float64)
    longer[:, :, :4] = torch.where(text.mask[:, None], text.words, 50.0)
    padded = TextFeatures(longer, text.sentence, torch.arange(9) < text.mask.sum(1, keepdim=True))
    losses = damsm_losses(regions, vector, text, ids, GAMMAS)
    for name, loss in damsm_losses(regions, vector, padded, ids, GAMMAS).items():
        torch.testing.assert_close(loss, losses[name])


def test_gradients_are_finite_and_reach_both_sides() -> None:
    text = features(2, 4, [1, 3], 3)
    words, sentence = text.words.float().requires_grad_(), text.sentence.float().requires_grad_()
    regions, vector = torch.randn(2, 4, 5, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    losses = damsm_losses(regions, vector, TextFeatures(words, sentence, text.mask), torch.arange(2), GAMMAS)
    sum(losses.values()).backward()
    for tensor in (words, sentence, regions, vector):
        assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.abs().sum() > 0
    assert (words.grad.transpose(1, 2)[~text.mask] == 0).all()


def test_scores_stay_in_float32_under_autocast() -> None:
    text = features(2, 4, [2, 3], 3)
    half = TextFeatures(text.words.bfloat16(), text.sentence.bfloat16(), text.mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert word_scores(torch.randn(2, 4, 5).bfloat16(), half, GAMMAS).dtype == torch.float32
        assert sentence_scores(torch.randn(2, 4).bfloat16(), half).dtype == torch.float32
