"""Count head: invariants, probabilities and plans by hand, and that a box generator trains and samples with it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from objgan.batch import Batch
from objgan.domain import Domain
from objgan.geometry import overlap
from objgan.layout import Layout
from objgan.losses.boxes import count_loss, label_counts, masked_mean, mixture_nll
from objgan.networks.box_generator import BoxGenerator, BoxSizes, Candidates, Temperatures
from objgan.networks.count_head import CaptionFeatures, CountHead, hide_words
from objgan.networks.encoders import TextEncoder, TextFeatures
from objgan.statements import LEFT, RIGHT, Relation, Statements, kept

MakeBatch = Callable[..., Batch]
SIZES = BoxSizes(
    text=12, hidden=24, label_embedding=8, coordinate_embedding=6, components=3, vocabulary=20, word_dropout=0.3
)


@pytest.fixture
def generator(domain: Domain) -> BoxGenerator:
    torch.manual_seed(0)
    made = BoxGenerator(SIZES, domain.statistics, 4, encoder=TextEncoder(20, 8, 12, 0.0))
    assert made.count_head is not None
    torch.nn.init.normal_(made.count_head.weights.weight)
    return made


def planned(text: CaptionFeatures, *rows: list[int]) -> CaptionFeatures:
    """The text with logits that are sure of these numbers of objects [B, C]."""
    number = torch.tensor(rows)
    counts = torch.full((*number.shape, 5), -20.0)
    counts[..., 0] = torch.where(number > 0, 20.0, -20.0)
    counts.scatter_(2, number.clamp_min(1)[..., None], 20.0)
    return replace(text, counts=counts)


def features(generator: BoxGenerator, batch: Batch) -> CaptionFeatures:
    text = generator.encode(batch.words, batch.word_count)
    assert isinstance(text, CaptionFeatures)
    return text


def numbers(generator: BoxGenerator, size: int, seed: int = 0) -> Tensor:
    shape = (size, *generator.noise_shape[1:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_padding_and_the_order_of_a_batch_change_nothing(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    generator.eval()
    batch = make_batch(3, masks=False)
    text = generator.encode(batch.words, batch.word_count)
    padded = generator.encode(torch.cat([batch.words, torch.zeros(3, 4, dtype=torch.int64)], 1), batch.word_count)
    alone = generator.encode(batch.words[1:2], batch.word_count[1:2])
    assert isinstance(text, CaptionFeatures) and isinstance(padded, CaptionFeatures)
    assert isinstance(alone, CaptionFeatures) and text.counts.shape == (3, 5, 5)
    torch.testing.assert_close(padded.counts, text.counts)
    torch.testing.assert_close(alone.counts, text.counts[1:2])


def test_before_training_presence_is_near_the_shares() -> None:
    torch.manual_seed(0)
    head = CountHead(6, 8, torch.tensor([0.0, 0.5, 0.2]), 3, 0.0)
    with torch.no_grad():
        head.read[-1].weight.zero_()
        head.read[-1].bias.zero_()
    text = TextFeatures(torch.randn(1, 8, 4), torch.randn(1, 8), torch.tensor([[True, True, True, False]]))
    counts = head(torch.tensor([[2, 4, 1, 0]]), text).counts
    torch.testing.assert_close(counts[0, :, 0].sigmoid(), torch.tensor([0.001, 0.5, 0.2]))


def test_a_class_that_the_caption_does_not_name_comes_only_if_it_is_likely(
    generator: BoxGenerator, make_batch: MakeBatch
) -> None:
    """Class 0 is stated, class 1 has a presence of 0.6 and class 2 one of 0.9."""
    generator.eval()
    text = planned(features(generator, make_batch(2, masks=False)), [1, 1, 1, 0, 0], [0, 1, 1, 0, 0])
    text.counts[:, 1, 0], text.counts[:, 2, 0] = torch.tensor(0.6).logit(), torch.tensor(0.9).logit()
    fewest, most = torch.zeros(2, 5, dtype=torch.int64), torch.full((2, 5), 4)
    fewest[0, 0] = most[0, 0] = 1

    def classes(unnamed: float) -> list[list[int]]:
        generator.candidates = Candidates(numbers=True, unnamed=unnamed)
        layout = generator.sample(text, numbers(generator, 2), Temperatures(0.0, 0.4), generator.caps, (fewest, most))
        return [sorted(layout.labels[row, : int(layout.count[row])].tolist()) for row in range(2)]

    assert classes(0.0) == [[0, 1, 2], [1, 2]]
    assert classes(0.7) == [[0, 2], [1, 2]], "the second caption states nothing"


def test_the_plan_is_what_the_layout_has(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    generator.eval()
    batch = make_batch(4, masks=False)
    text = features(generator, batch)
    plan = [[2, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 3, 0, 0, 1], [4, 0, 0, 0, 3]]
    for label in (0.0, 1.0):
        layout = generator.sample(planned(text, *plan), numbers(generator, 4), Temperatures(label), generator.caps)
        found = label_counts(layout.labels, layout.valid, 5)
        assert found[:3].tolist() == plan[:3], "numbers over the cap, too"
        assert layout.count[3] == 4 and (found[3] <= torch.tensor(plan[3])).all(), "as many as there is room for"


def test_stated_numbers_go_before_the_plan(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    generator.eval()
    batch = make_batch(1, masks=False)
    text = planned(features(generator, batch), [4, 2, 0, 1, 0])
    bounds = torch.tensor([[0, 0, 1, 0, 0]]), torch.tensor([[1, 0, 1, 4, 4]])
    layout = generator.sample(text, numbers(generator, 1), Temperatures(), generator.caps, bounds)
    assert label_counts(layout.labels, layout.valid, 5).tolist() == [[1, 0, 1, 1, 0]]


def test_a_word_between_two_names_places_the_second_object(domain: Domain) -> None:
    """Captions "A left B", "A right B"; the larger box, which is placed first, is that of either."""
    torch.manual_seed(0)
    generator = BoxGenerator(
        replace(SIZES, word_dropout=0.0), domain.statistics, 4, encoder=TextEncoder(20, 8, 12, 0.0)
    )
    optimiser = torch.optim.Adam(generator.parameters(), 1e-2)
    length = torch.full((64,), 3)
    for _ in range(120):
        words, layout, _ = sided(64)
        outputs = generator(generator.encode(words, length), layout)
        centre = generator.standardise(layout.boxes)[..., :2]
        counts = count_loss(outputs.counts, layout.labels, layout.valid).mean()
        loss = masked_mean(mixture_nll(outputs.position, centre), layout.valid) + counts
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    words, _, facts = sided(64)
    text = generator.eval().encode(words, length)
    layout = generator.sample(text, numbers(generator, 64), Temperatures(0.0, 0.1), generator.caps)
    held = [bool(kept(stated, layout[row : row + 1]).all()) for row, stated in enumerate(facts)]
    assert sum(held) >= 0.85 * 64


def sided(size: int) -> tuple[Tensor, Layout, list[Statements]]:
    """Words [B, 3], layouts of two objects one unit apart, and what is stated."""
    pair = torch.rand(size, 5).argsort(1)[:, :2]  # the classes, the larger object's first
    side, named_first = torch.randint(2, (size,)), torch.randint(2, (size,))
    first = pair.gather(1, 1 - named_first[:, None])[:, 0]
    second = pair.gather(1, named_first[:, None])[:, 0]
    words = torch.stack([4 + first, 10 + side, 4 + second], 1)
    # The side of the object that is named first, relative to the other; the smaller one is placed by it.
    step = (2.0 * side - 1) * torch.where(named_first == 0, 1, -1)
    large = torch.cat([0.3 + 0.2 * torch.rand(size, 2), torch.full((size, 2), 0.2)], 1)
    small = torch.cat([large[:, :1] + 0.3 * step[:, None], large[:, 1:2], torch.full((size, 2), 0.1)], 1)
    boxes = functional.pad(torch.stack([large, small], 1), (0, 0, 0, 2))
    layout = Layout(functional.pad(pair, (0, 2)), boxes, torch.full((size,), 2))
    stated = zip(first.tolist(), side.tolist(), second.tolist(), strict=True)
    return words, layout, [Statements(relations=(Relation(a, (LEFT, RIGHT)[s], b),)) for a, s, b in stated]


def test_planned_numbers_follow_their_distribution(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    generator.eval()
    batch = make_batch(1, masks=False)
    text = features(generator, batch)[torch.zeros(3000, dtype=torch.int64)]
    counts = torch.full((3000, 5, 5), -20.0)
    counts[:, 2, 0] = torch.tensor(0.6).logit()
    counts[:, 2, 1:] = torch.tensor([0.4, 0.3, 0.3, 1e-9]).log()
    text = replace(text, counts=counts)
    generator.presence = 0.5
    layout = generator.sample(text, numbers(generator, 3000), Temperatures(1.0), generator.caps)
    share = torch.bincount(layout.count, minlength=5) / 3000
    torch.testing.assert_close(share, torch.tensor([0.4, 0.24, 0.18, 0.18, 0.0]), atol=0.03, rtol=0)
    certain = generator.sample(text[:1], numbers(generator, 1), Temperatures(), generator.caps)
    assert certain.count.tolist() == [2], "the median number"
    generator.presence = 0.65
    assert generator.sample(text[:1], numbers(generator, 1), Temperatures(), generator.caps).count.tolist() == [0]


def test_hidden_words_become_unknown_and_padding_stays() -> None:
    words = torch.tensor([[5, 6, 7, 0]]).repeat(4000, 1)
    torch.manual_seed(0)
    hidden = hide_words(words, 0.25)
    assert (hidden[:, 3] == 0).all() and ((hidden == words) | (hidden == 1)).all()
    assert (hidden[:, :3] == 1).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_it_learns_and_hides_words_in_training_alone(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    batch = make_batch(8, counts=[0, 1, 2, 3, 4, 4, 1, 2], masks=False)

    def counts() -> Tensor:
        text = generator.encode(batch.words, batch.word_count)
        assert isinstance(text, CaptionFeatures)
        return text.counts

    assert not torch.equal(counts(), counts())
    generator.eval()
    assert torch.equal(counts(), counts())
    assert generator.count_head is not None
    optimiser = torch.optim.Adam(generator.parameters(), 1e-2)
    for _ in range(60):
        loss = count_loss(counts(), batch.layout.labels, batch.layout.valid).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    quiet = [name for name, p in generator.count_head.named_parameters() if p.grad is None or not p.grad.any()]
    assert quiet == ["place.weight", "place.bias", "passing.weight"], "those learn from boxes"
    layout = generator.sample(
        generator.encode(batch.words, batch.word_count), numbers(generator, 8), Temperatures(), generator.caps
    )
    same = label_counts(layout.labels, layout.valid, 5) == label_counts(batch.layout.labels, batch.layout.valid, 5)
    assert same.all(1).sum() >= 7, "numbers of eight captions learned by heart"


def test_features_can_be_cut_and_detached(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    batch = make_batch(3, masks=False)
    text = generator.eval().encode(batch.words, batch.word_count)
    assert isinstance(text, CaptionFeatures)
    assert torch.equal(text[1:].counts, text.counts[1:]) and not text.detach().counts.requires_grad


def test_boxes_are_drawn_again_where_they_overlap_too_much(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    generator.eval()
    batch = make_batch(4, masks=False)
    text = planned(features(generator, batch), *[[2, 0, 2, 0, 0]] * 4)
    noise = numbers(generator, 4)

    def layout(draws: int, overlaps: tuple[float, float], rows: slice = slice(None)) -> Layout:
        generator.draws, generator.overlaps = draws, overlaps
        return generator.sample(text[rows], noise[rows], Temperatures(0.0, 0.1), generator.caps)

    def pairs(layout: Layout) -> Tensor:
        shares = overlap(layout.boxes[:, :, None], layout.boxes[:, None])
        one, other = torch.triu_indices(4, 4, 1)
        return shares[:, one, other]

    once, again = layout(1, (0.1, 0.1)), layout(8, (0.1, 0.1))
    assert torch.equal(once.boxes, layout(8, (1.0, 1.0)).boxes), "any overlap is usual"
    assert (pairs(once) > 0.1).float().mean() > 0.5
    assert pairs(again).mean() < pairs(once).mean() / 2
    alone = layout(8, (0.1, 0.1), slice(2, 3))
    torch.testing.assert_close(alone.boxes[0], again.boxes[2])
    same, labels = layout(8, (1.0, 0.0)), once.labels
    assert (pairs(same) > 0.1).any() and torch.equal(labels.sort(1).values, same.labels.sort(1).values)
