"""Bag of words: sums by hand, what it adds to label logits, and that a box generator trains and samples with it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from objgan.batch import Batch
from objgan.domain import Domain
from objgan.losses.boxes import bag_loss, label_nll
from objgan.networks.box_generator import BoxGenerator, BoxSizes
from objgan.networks.encoders import TextEncoder
from objgan.networks.word_bag import _STEP, CaptionFeatures, WordBag, hide_words

MakeBatch = Callable[..., Batch]
SIZES = BoxSizes(
    text=12, hidden=24, label_embedding=8, coordinate_embedding=6, components=3, word_bag=20, word_dropout=0.3
)


@pytest.fixture
def generator(domain: Domain) -> BoxGenerator:
    torch.manual_seed(0)
    made = BoxGenerator(SIZES, domain.statistics, 4, encoder=TextEncoder(20, 8, 12, 0.0))
    assert made.word_bag is not None
    torch.nn.init.normal_(made.word_bag.weights.weight)
    return made


def test_words_count_once_and_unknown_ones_never() -> None:
    bag = WordBag(6, torch.tensor([0.0, 0.5, 0.2]))
    torch.nn.init.normal_(bag.weights.weight)
    found = bag(torch.tensor([[4, 2, 4, 1, 0], [1, 0, 0, 0, 0], [2, 4, 0, 0, 0]]))
    torch.testing.assert_close(found[0] - bag.bias, _STEP * (bag.weights.weight[4] + bag.weights.weight[2]))
    torch.testing.assert_close(found[2], found[0])
    torch.testing.assert_close(found[1].sigmoid(), torch.tensor([0.001, 0.5, 0.2]))


def test_guide_by_hand_without_gradient_to_the_bag() -> None:
    module = WordBag(6, torch.tensor([0.1, 0.1]))
    with torch.no_grad():
        module.trust.copy_(torch.tensor([[0.5, 1.0], [-1.0, 0.0]]))
    bag = torch.tensor([[2.0, 3.0]], requires_grad=True)
    used = torch.tensor([[[False, False], [True, False]]])
    guided = module.guide(torch.ones(1, 2, 3), bag, used)
    assert guided.tolist() == [[[2.0, 4.0, 1.0], [-1.0, 4.0, 1.0]]]
    torch.testing.assert_close(module.guide(torch.ones(1, 3), bag, used[:, 1]), guided[:, 1])
    guided.sum().backward()
    assert bag.grad is None and module.trust.grad is not None


def test_hidden_words_become_unknown_and_padding_stays() -> None:
    words = torch.tensor([[5, 6, 7, 0]]).repeat(4000, 1)
    torch.manual_seed(0)
    hidden = hide_words(words, 0.25)
    assert (hidden[:, 3] == 0).all() and ((hidden == words) | (hidden == 1)).all()
    assert (hidden[:, :3] == 1).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_sampling_takes_the_label_that_teacher_forcing_finds_likeliest(
    generator: BoxGenerator, make_batch: MakeBatch
) -> None:
    generator.eval()
    batch = make_batch(40, counts=[1] * 40, masks=False)
    text = generator.encode(batch.words, batch.word_count)
    noise = torch.randn(40, 4, 7, generator=torch.Generator().manual_seed(0))
    sampled = generator.sample(text, noise, generator.temperatures, torch.ones(5, dtype=torch.int64))
    logits = generator(text, sampled).labels[:, 0]
    # Only where there is one object is the order of sampling known from the layout.
    single, empty = sampled.count == 1, sampled.count == 0
    assert single.any() or empty.any()
    assert torch.equal(logits.argmax(1)[single], sampled.labels[single, 0])
    assert (logits.argmax(1)[empty] == 5).all()


def test_it_learns_and_hides_words_in_training_alone(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    batch = make_batch(8, counts=[0, 1, 2, 3, 4, 4, 1, 2], masks=False)
    encoded = [generator.encode(batch.words, batch.word_count) for _ in range(2)]
    assert isinstance(encoded[0], CaptionFeatures) and isinstance(encoded[1], CaptionFeatures)
    assert not torch.equal(encoded[0].bag, encoded[1].bag)
    generator.eval()
    encoded = [generator.encode(batch.words, batch.word_count) for _ in range(2)]
    assert torch.equal(encoded[0].bag, encoded[1].bag)
    outputs = generator(encoded[0], batch.layout)
    labels, steps = generator.targets(batch.layout)
    assert outputs.bag is not None
    loss = (label_nll(outputs.labels, labels) * steps).sum()
    loss = loss + bag_loss(outputs.bag, batch.layout.labels, batch.layout.valid).sum()
    loss.backward()
    assert generator.word_bag is not None
    assert generator.word_bag.weights.weight.grad.abs().sum() > 0
    assert generator.word_bag.trust.grad.abs().sum() > 0


def test_features_can_be_cut_and_detached(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    batch = make_batch(3, masks=False)
    text = generator.eval().encode(batch.words, batch.word_count)
    assert isinstance(text, CaptionFeatures)
    assert torch.equal(text[1:].bag, text.bag[1:]) and not text.detach().bag.requires_grad
    assert functional.mse_loss(replace(text, bag=text.bag + 1).bag, text.bag) > 0
