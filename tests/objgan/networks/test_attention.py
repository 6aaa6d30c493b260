"""Attention over words: hand-computed cases, padding, pairing of samples, unknown words, precision."""

import math

import pytest
import torch
from torch import Tensor, nn

from objgan.networks.attention import GridAttention, ObjectAttention, masked_softmax, words_before


def test_masked_softmax_is_exact_about_padding() -> None:
    scores = torch.tensor([[math.log(3.0), 0.0, 50.0], [1.0, 2.0, 3.0]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    torch.testing.assert_close(masked_softmax(scores, mask), torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 0.0]]))


def test_grid_attention_by_hand() -> None:
    attention = GridAttention(2, 2)
    nn.init.eye_(attention.project.weight)
    features = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).repeat(1, 1, 1, 2)
    features[..., 1] = 0
    words = torch.tensor([[[math.log(3.0), 0.0, 9.0], [0.0, 4.0, 9.0]]])  # columns: words
    context, weights = attention(features, words, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(weights[0, :, 0].T, torch.tensor([[0.75, 0.25, 0.0], [0.5, 0.5, 0.0]]))
    torch.testing.assert_close(context[0, :, 0, 0], torch.tensor([0.75 * math.log(3.0), 1.0]))


def test_grid_attention_keeps_cells_in_place_in_either_memory_format() -> None:
    torch.manual_seed(0)
    attention = GridAttention(5, 4)
    features, words, mask = torch.randn(2, 4, 3, 6), torch.randn(2, 5, 7), torch.ones(2, 7, dtype=torch.bool)
    context, weights = attention(features, words, mask)
    assert weights.shape == (2, 7, 3, 6)
    cell, _ = attention(features[1:, :, 2:, 4:5], words[1:], mask[1:])
    torch.testing.assert_close(context[1, :, 2, 4], cell[0, :, 0, 0])
    last, _ = attention(features.to(memory_format=torch.channels_last), words, mask)
    torch.testing.assert_close(last, context)


def _objects(similarity: str, temperature: float = 1.0) -> ObjectAttention:
    attention = ObjectAttention(2, 2, similarity, temperature)  # type: ignore[arg-type]
    nn.init.eye_(attention.project.weight)
    return attention


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [("cosine", [math.e**2, 1.0]), ("dot", [math.e**6, 1.0])],
)
def test_object_attention_by_hand(similarity: str, expected: list[float]) -> None:
    labels, keys = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[3.0, 0.0], [0.0, 5.0], [7.0, 7.0]]])
    words = torch.tensor([[[1.0, 10.0, 99.0], [2.0, 20.0, 99.0]]])
    context, weights = _objects(similarity, 2.0)(labels, keys, words, torch.tensor([[True, True, False]]))
    share = torch.tensor([*expected, 0.0]) / sum(expected)
    torch.testing.assert_close(weights[0, 0], share)
    torch.testing.assert_close(context[0, 0], words[0] @ share)


def test_words_before_are_those_of_the_noun_and_fade() -> None:
    """Of "two red kites and a boat", kites: red, and half as much two; the boat: a, and half as much and."""
    keys = torch.eye(6)[None]
    weights = torch.tensor([[[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0], [0] * 6]]).float()
    expected = torch.tensor([[0.5, 1, 0, 0, 0, 0], [0, 0, 0, 0.5, 1, 0], [0] * 6, [0] * 6])
    torch.testing.assert_close(words_before(weights, keys, 2)[0], expected.float())
    torch.testing.assert_close(words_before(weights, keys, 1)[0], expected.floor())
    assert words_before(weights, keys, 8).shape == (1, 4, 6)


def _weights(temperature: float) -> Tensor:
    keys = torch.eye(8)[None]
    _, weights = _objects("cosine", temperature)(keys[:, :1], keys, torch.zeros(1, 2, 8), torch.ones(1, 8).bool())
    return weights[0, 0]


def test_temperature_1_is_nearly_flat_and_10_is_peaked() -> None:
    """The published softmax of cosines gives the one fitting word of eight little more than its neighbours."""
    assert _weights(1.0)[0] < 0.3
    assert _weights(10.0)[0] > 0.99


def test_the_temperature_is_learned_and_starts_where_told() -> None:
    attention = _objects("cosine", 10.0)
    assert attention.log_temperature is not None and attention.log_temperature.exp().item() == pytest.approx(10.0)
    assert _objects("dot", 10.0).log_temperature is None
    context, _ = attention(torch.randn(1, 2, 3), torch.randn(1, 4, 3), torch.randn(1, 2, 4), torch.ones(1, 4).bool())
    context[..., 0].sum().backward()
    assert attention.log_temperature.grad is not None and attention.log_temperature.grad != 0


def test_every_object_attends_to_its_own_caption() -> None:
    """Published: masks repeated in the wrong order pair objects with other captions' padding when B > 1."""
    torch.manual_seed(1)
    attention = ObjectAttention(6, 4)
    labels, keys, words = torch.randn(3, 5, 8), torch.randn(3, 7, 8), torch.randn(3, 6, 7)
    mask = torch.arange(7) < torch.tensor([[1], [7], [4]])
    context, weights = attention(labels, keys, words, mask)
    assert torch.equal(weights > 0, mask[:, None].expand(-1, 5, -1))
    for b in range(3):
        n = int(mask[b].sum())
        alone, _ = attention(labels[b : b + 1], keys[b : b + 1, :n], words[b : b + 1, :, :n], mask[b : b + 1, :n])
        torch.testing.assert_close(context[b], alone[0])


def test_values_are_features_of_the_same_words_as_the_keys() -> None:
    """Published: unknown words are left out of the vectors but not of the features, which shifts the pairing."""
    keys = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])  # unknown, "kite", "sea"
    words = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])
    context, weights = _objects("cosine", 30.0)(torch.tensor([[[4.0, 0.0]]]), keys, words, torch.ones(1, 3).bool())
    assert weights[0, 0].argmax() == 1 and context[0, 0, 0].item() == pytest.approx(2.0, abs=1e-4)


def test_unknown_words_have_cosine_0_and_finite_gradients() -> None:
    attention = _objects("cosine", 10.0)
    labels, keys = torch.zeros(1, 2, 3), torch.zeros(1, 4, 3)
    labels[0, 0] = keys[0, 0] = torch.tensor([1.0, 2.0, 2.0])
    labels.requires_grad_()
    keys.requires_grad_()
    context, weights = attention(labels, keys, torch.randn(1, 2, 4), torch.ones(1, 4).bool())
    torch.testing.assert_close(weights[0, 0, 1:], weights[0, 0, :1].expand(3) / math.e**10)
    torch.testing.assert_close(weights[0, 1], torch.full((4,), 0.25))  # a label of unknown words: flat
    context.sum().backward()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in (labels, keys, attention.log_temperature))


@pytest.mark.parametrize("kind", ["grid", "object"])
def test_what_padded_words_hold_never_matters(kind: str) -> None:
    mask = torch.tensor([[True, False], [False, False]])
    words, keys = torch.randn(2, 6, 2), torch.randn(2, 2, 3)
    dirty_words, dirty_keys = words.clone(), keys.clone()
    dirty_words.transpose(1, 2)[~mask] = float("inf")
    dirty_keys[~mask] = 1e9
    if kind == "grid":
        attention, features = GridAttention(6, 4), torch.randn(2, 4, 2, 2)
        clean, dirty = attention(features, words, mask)[0], attention(features, dirty_words, mask)[0]
    else:
        objects, labels = ObjectAttention(6, 4), torch.randn(2, 5, 3)
        clean, dirty = objects(labels, keys, words, mask)[0], objects(labels, dirty_keys, dirty_words, mask)[0]
    assert torch.equal(clean, dirty) and not clean[1].any()


def test_softmax_is_float32_under_bf16_autocast() -> None:
    torch.manual_seed(0)
    mask = torch.ones(2, 20).bool()
    with torch.autocast("cpu", torch.bfloat16):
        context, on_grid = GridAttention(6, 4)(torch.randn(2, 4, 3, 3), torch.randn(2, 6, 20), mask)
        _, on_objects = ObjectAttention(6, 4)(torch.randn(2, 5, 8), torch.randn(2, 20, 8), torch.randn(2, 6, 20), mask)
    assert context.dtype == torch.bfloat16
    for weights, words in ((on_grid, 1), (on_objects, 2)):
        assert weights.dtype == torch.float32
        total = weights.sum(words)
        torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)
