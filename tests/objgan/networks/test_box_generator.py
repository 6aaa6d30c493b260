"""Box generator: sampling's promises, invariants, gradients, and that it can learn eight layouts by heart."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from objgan.batch import Batch
from objgan.domain import Domain
from objgan.geometry import cxywr_to_xywh
from objgan.layout import Layout
from objgan.losses.boxes import label_nll, masked_mean, mixture_nll
from objgan.networks.box_generator import BoxGenerator, BoxSizes, Candidates, Temperatures, sort_layout
from objgan.networks.encoders import TextEncoder, TextFeatures
from objgan.networks.mixture_sampling import draw_mixture, draw_one_hot, sample_labels, sample_mixture
from objgan.statements import LEFT, Count, Relation, Statements, kept

MakeBatch = Callable[..., Batch]
SIZES = BoxSizes(text=12, hidden=24, label_embedding=8, coordinate_embedding=6, components=3)
END = 5


@pytest.fixture
def generator(domain: Domain) -> BoxGenerator:
    torch.manual_seed(0)
    encoder = TextEncoder(20, 8, 12, 0.5)
    return BoxGenerator(SIZES, domain.statistics, 4, encoder=encoder).eval()


def encode(generator: BoxGenerator, batch: Batch) -> TextFeatures:
    return generator.encode(batch.words, batch.word_count)


def noise(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, 4, 7, generator=torch.Generator().manual_seed(seed))


def rows(layout: Layout, i: int) -> list[list[float]]:
    n = int(layout.count[i])
    return torch.cat([layout.labels[i, :n, None].float(), layout.boxes[i, :n]], 1).tolist()


def losses(generator: BoxGenerator, text: TextFeatures, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Per step: label, centre, size; [B, R + 1], [B, R], [B, R]."""
    outputs, boxes = generator(text, layout), generator.standardise(layout.boxes)
    labels, _ = generator.targets(layout)
    return (
        label_nll(outputs.labels, labels),
        mixture_nll(outputs.position, boxes[..., :2]),
        mixture_nll(outputs.size, boxes[..., 2:]),
    )


def test_targets_have_one_end_and_padding_never_counts(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    layout = make_batch(3, counts=[0, 2, 4], masks=False).layout
    labels, mask = generator.targets(layout)
    assert mask.sum(1).tolist() == [1, 3, 5]
    assert (labels == END).sum(1).tolist() == [5, 3, 1]
    assert labels[1, :2].tolist() == layout.labels[1, :2].tolist() and labels[1, 2] == END


def test_standardised_boxes_by_hand(generator: BoxGenerator) -> None:
    # Centre (0.7, 0.25), width 0.45, ratio 0.6 / 0.45 x ...: (0.7 - 0.5) / 0.2 and so on, with the domain's figures.
    box = torch.tensor([0.475, 0.0, 0.45, 0.5])
    expected = torch.tensor([1.0, -1.0, 1.0, (0.5 / 0.45 - 1.2) / 0.6])
    torch.testing.assert_close(generator.standardise(box), expected)
    torch.testing.assert_close(cxywr_to_xywh(expected * generator.std + generator.mean), box)


def test_padding_changes_nothing(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    batch = make_batch(3, counts=[0, 2, 3], masks=False)
    layout, valid = batch.layout, batch.layout.valid
    dirty = replace(
        layout,
        labels=torch.where(valid, layout.labels, 3),
        boxes=torch.where(valid[..., None], layout.boxes, torch.tensor([0.2, 0.1, 0.5, 0.7])),
    )
    text = encode(generator, batch)
    padded = generator.encode(torch.cat([batch.words, torch.full((3, 4), 9)], 1), batch.word_count)
    _, steps = generator.targets(layout)
    plain = losses(generator, text, layout)
    for other in (losses(generator, text, dirty), losses(generator, padded, layout)):
        for mask, ours, theirs in zip((steps, valid, valid), plain, other, strict=True):
            torch.testing.assert_close(ours[mask], theirs[mask])


def test_batch_of_one_is_as_batch_of_many(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    batch = make_batch(4, counts=[1, 0, 4, 2], masks=False)
    many = losses(generator, encode(generator, batch), batch.layout)
    hot = Temperatures(label=1.0)
    sampled = generator.sample(encode(generator, batch), noise(4), hot, generator.caps)
    for i in range(4):
        one = slice(i, i + 1)
        text = generator.encode(batch.words[one], batch.word_count[one])
        for ours, theirs in zip(losses(generator, text, batch.layout[one]), many, strict=True):
            torch.testing.assert_close(ours, theirs[one], atol=1e-5, rtol=1e-4)
        alone = generator.sample(text, noise(4)[one], hot, generator.caps)
        torch.testing.assert_close(rows(alone, 0), rows(sampled, i), atol=1e-5, rtol=1e-4)


def test_samples_are_sorted_legal_and_follow_their_noise(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    batch = make_batch(3)
    text = TextFeatures(*(t.repeat(40, *[1] * (t.dim() - 1)) for t in vars(encode(generator, batch)).values()))
    hot = Temperatures(label=3.0, mixture=4.0)
    layout = generator.sample(text, noise(120), hot, generator.caps)
    again = generator.sample(text, noise(120), hot, generator.caps)
    other = generator.sample(text, noise(120, seed=1), hot, generator.caps)
    assert torch.equal(layout.boxes, again.boxes) and not torch.equal(layout.boxes, other.boxes)
    x, y, w, h = layout.boxes.unbind(-1)
    assert (x >= 0).all() and (y >= 0).all() and (x + w <= 1 + 1e-6).all() and (y + h <= 1 + 1e-6).all()
    assert ((w > 0) & (h > 0) == layout.valid).all()
    area = w * h
    assert (area[:, :-1] >= area[:, 1:]).all()
    assert (layout.labels[~layout.valid] == 0).all() and (layout.labels < END).all()
    assert len(set(layout.count.tolist())) > 2, "hot samples differ in their number of objects"


def test_an_empty_layout_is_legal(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    with torch.no_grad():
        generator.to_label.bias[END] = 1e4
    batch = make_batch(2, counts=[0, 0], masks=False)
    layout = generator.sample_layout(batch.words, batch.word_count, None, noise(2)[:, None])
    assert layout.count.tolist() == [0, 0] and (layout.boxes == 0).all() and (layout.labels == 0).all()
    nll = losses(generator, encode(generator, batch), batch.layout)
    assert masked_mean(nll[1], batch.layout.valid) == 0 and nll[0].isfinite().all()


def test_no_class_appears_more_often_than_its_cap(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    with torch.no_grad():
        generator.to_label.bias[1] = 1e4  # always class 1 while it may
        generator.to_label.bias[2] = 1e2  # then class 2
    batch = make_batch(3)
    caps = torch.tensor([4, 3, 4, 4, 4])
    generator.mean, generator.std = torch.tensor([0.5, 0.5, 0.3, 1.0]), torch.tensor([0.01, 0.01, 0.01, 0.01])
    layout = generator.sample(encode(generator, batch), noise(3), Temperatures(), caps)
    assert [sorted(row.tolist()) for row in layout.labels] == [[1, 1, 1, 2]] * 3


def test_sorting_drops_degenerate_boxes() -> None:
    boxes = torch.tensor([[[0, 0, 0.1, 0.1], [0.2, 0.2, 0.0, 0.5], [0, 0, 0.5, 0.5], [0, 0, 0.9, 0.9]]])
    layout = sort_layout(torch.tensor([[1, 2, 3, 4]]), boxes, torch.tensor([[True, True, True, False]]))
    assert layout.count.tolist() == [2] and layout.labels.tolist() == [[3, 1, 0, 0]]
    torch.testing.assert_close(layout.boxes[0, :2], boxes[0, [2, 0]])


def test_size_is_conditioned_on_the_next_centre(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    # The published code feeds the previous y. The first object's size must see its own x and y, and nothing else new.
    batch = make_batch(1, counts=[2], masks=False)
    text = encode(generator, batch)
    for axis in (0, 1):
        moved = batch.layout.boxes.clone()
        moved[0, 0, axis] += 0.1
        before, after = generator(text, batch.layout), generator(text, replace(batch.layout, boxes=moved))
        assert torch.equal(before.position[0, 0], after.position[0, 0])
        assert not torch.equal(before.size[0, 0], after.size[0, 0])
        assert torch.equal(before.labels[0, 0], after.labels[0, 0])
        assert not torch.equal(before.labels[0, 1], after.labels[0, 1])


def test_the_start_input_is_the_mean_box(generator: BoxGenerator, make_batch: MakeBatch, domain: Domain) -> None:
    # The published start input is in pixels where every later one is standardised.
    _, box, _ = generator._start(encode(generator, make_batch(2)))
    torch.testing.assert_close(box * generator.std + generator.mean, torch.tensor([domain.statistics.mean] * 2))


def test_features_count_whatever_their_scale(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    batch = make_batch(2, masks=False)
    raw = generator.encoder(batch.words, batch.word_count)
    generator.encoder = None
    scaled = TextFeatures(1e3 * raw.words, 1e3 * raw.sentence, raw.mask)
    ours = generator(generator.encode(batch.words, batch.word_count, scaled), batch.layout)
    same = TextFeatures(1e2 * raw.words, 1e2 * raw.sentence, raw.mask)
    theirs = generator(generator.encode(batch.words, batch.word_count, same), batch.layout)
    torch.testing.assert_close(ours.labels, theirs.labels, atol=1e-3, rtol=1e-3)


def test_training_and_sampling_condition_alike(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    """Sampled with one sharp component, each box is the mean of the mixture that teacher forcing on it predicts."""
    with torch.no_grad():
        generator.to_label.bias[END] = -1e4
        for head in (generator.to_position, generator.to_size):
            head[-1].bias.view(-1, 6)[0, 0] = 1e4
        generator.to_label.weight.zero_()  # a fixed order of labels, so that sorting can be undone
    batch = make_batch(1, masks=False)
    text = encode(generator, batch)
    layout = generator.sample(text, torch.zeros(1, 4, 7), Temperatures(mixture=1e-6), torch.full((5,), 1))
    first = int(generator.to_label.bias.argmax())
    box = layout.boxes[0, layout.labels[0].tolist().index(first)]
    alone = Layout(torch.tensor([[first, 0, 0, 0]]), torch.zeros(1, 4, 4), torch.tensor([1]))
    alone.boxes[0, 0] = box
    outputs = generator(text, alone)
    means = torch.cat([outputs.position[0, 0, 0, 1:3], outputs.size[0, 0, 0, 1:3]])
    torch.testing.assert_close(generator.standardise(box), means, atol=1e-3, rtol=1e-3)


def test_zero_temperature_is_the_most_likely_label() -> None:
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample_labels(logits, torch.full((50,), 3.0), 0.0), logits.argmax(1))


def test_labels_are_drawn_with_their_probabilities() -> None:
    logits = torch.tensor([-math.inf, math.log(0.2), -math.inf, math.log(0.8)]).expand(4000, 4)
    drawn = sample_labels(logits, torch.randn(4000, generator=torch.Generator().manual_seed(0)), 1.0)
    assert torch.bincount(drawn, minlength=4)[[0, 2]].sum() == 0
    assert (drawn == 1).float().mean().item() == pytest.approx(0.2, abs=0.02)
    # The extremes of the noise still land on a class that is possible.
    assert sample_labels(logits[:2], torch.tensor([-40.0, 40.0]), 1.0).tolist() == [1, 3]


def test_mixture_samples_have_the_mixtures_moments() -> None:
    parameters = torch.tensor([[0.0, 1.0, -1.0, math.log(0.5), math.log(2.0), math.atanh(0.6)]]).expand(20000, 1, 6)
    draws = torch.randn(20000, 3, generator=torch.Generator().manual_seed(0))
    points = sample_mixture(parameters, draws, 1.0)
    torch.testing.assert_close(points.mean(0), torch.tensor([1.0, -1.0]), atol=0.05, rtol=0)
    expected = torch.tensor([[0.25, 0.6], [0.6, 4.0]])
    torch.testing.assert_close(points.T.cov(), expected, atol=0.1, rtol=0)
    torch.testing.assert_close(sample_mixture(parameters, draws, 0.25).T.cov(), expected / 4, atol=0.03, rtol=0)


def test_drawn_labels_and_points_follow_their_distributions() -> None:
    torch.manual_seed(0)
    labels = draw_one_hot(torch.tensor([-math.inf, math.log(0.2), math.log(0.8)]).expand(4000, 3))
    assert ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()
    torch.testing.assert_close(labels.mean(0), torch.tensor([0.0, 0.2, 0.8]), atol=0.02, rtol=0)
    sharp, wide = [math.log(3.0), 4.0, 0.0, -3.0, -3.0, 0.0], [0.0, 1.0, -1.0, math.log(0.5), math.log(2.0), 0.7]
    points = draw_mixture(torch.tensor([sharp, wide]).expand(20000, 2, 6))
    near = points[:, 0] > 3.5
    assert near.float().mean().item() == pytest.approx(0.75, abs=0.02)
    torch.testing.assert_close(points[~near].mean(0), torch.tensor([1.0, -1.0]), atol=0.1, rtol=0)
    covariance = math.tanh(0.7)
    expected = torch.tensor([[0.25, covariance], [covariance, 4.0]])
    torch.testing.assert_close(points[~near].T.cov(), expected, atol=0.2, rtol=0)


def test_a_drawn_layout_ends_keeps_caps_and_carries_gradients(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    torch.manual_seed(0)
    generator.caps = torch.tensor([1, 2, 1, 1, 1])
    drawn = generator.draw(encode(generator, make_batch(200)))
    present = drawn.classes.sum(-1)
    assert ((present == 0) | (present == 1)).all() and (present[:, 1:] <= present[:, :-1]).all()
    assert len(set(present.sum(1).tolist())) > 1, "some end before others"
    assert (drawn.classes.sum(1) <= generator.caps).all()
    low, high = drawn.boxes[..., :2], drawn.boxes[..., :2] + drawn.boxes[..., 2:]
    assert (low >= 0).all() and (high <= 1 + 1e-6).all()
    (gradient,) = torch.autograd.grad(present.sum(), generator.to_label.bias, retain_graph=True)
    assert gradient[END] < 0, "a likelier end leaves fewer objects"
    (drawn.classes.square().sum() + drawn.boxes.square().sum()).backward()
    quiet = [name for name, p in generator.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert not quiet


def test_gradients_reach_every_parameter(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    batch = make_batch(4, counts=[4, 3, 2, 1], masks=False)
    text = encode(generator, batch)
    sum(part.mean() for part in losses(generator, text, batch.layout)).backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_without_an_encoder_it_wants_features(domain: Domain, make_batch: MakeBatch) -> None:
    generator, batch = BoxGenerator(SIZES, domain.statistics, 4), make_batch(1)
    with pytest.raises(ValueError, match="text features"):
        generator.encode(batch.words, batch.word_count)


def test_it_learns_eight_layouts_by_heart(domain: Domain, make_batch: MakeBatch) -> None:
    torch.manual_seed(0)
    generator = BoxGenerator(replace(SIZES, hidden=48), domain.statistics, 4, encoder=TextEncoder(20, 16, 12, 0.0))
    batch = make_batch(8, masks=False)
    labels, steps = generator.targets(batch.layout)
    optimiser = torch.optim.Adam(generator.parameters(), 5e-3)
    for _ in range(150):
        label, position, size = losses(generator, encode(generator, batch), batch.layout)
        loss = masked_mean(label, steps) + 0.1 * masked_mean(position + size, batch.layout.valid)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    outputs = generator(encode(generator, batch), batch.layout)
    assert (outputs.labels.argmax(-1) == labels)[steps].float().mean() > 0.95
    assert masked_mean(position + size, batch.layout.valid) < 0, "boxes are known to a fraction of their spread"
    sampled = generator.eval().sample(
        encode(generator, batch), noise(8), Temperatures(mixture=1e-4), torch.full((5,), 4)
    )
    same = [sorted(a) == sorted(b) for a, b in zip(sampled.labels.tolist(), batch.layout.labels.tolist(), strict=True)]
    assert sum(same) >= 6, "sampling finds the same pictures again"


def drawn(generator: BoxGenerator, batch: Batch, stated: list[Statements], seed: int = 0) -> Layout:
    shape = (len(batch), *generator.noise_shape)
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return generator.sample_layout(batch.words, batch.word_count, None, numbers, stated)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_stated_numbers_bound_how_often_a_class_comes(
    generator: BoxGenerator, make_batch: MakeBatch, label: float
) -> None:
    generator.candidates = Candidates(1, numbers=True)
    generator.temperatures = Temperatures(label, 0.4)
    counts = [Count(0, 3, 3), Count(1, 0, 0), Count(2, 2, None), Count(3, 4, 4), Count(4, 9, 9), Count(0, 1, 1)]
    stated = [*(Statements((count,)) for count in counts), Statements((Count(0, 1, 1), Count(3, 2, 2), Count(1, 1, 1)))]
    batch = make_batch(len(stated), masks=False)
    for seed in range(5):
        layout = drawn(generator, batch, stated, seed)
        for row, one in enumerate(stated):
            assert kept(one, layout[row : row + 1]).all() or row == 4, (one, layout[row : row + 1])
        assert (layout.labels[4] == 4).sum() == 4, "no room for nine: as many as there is room for"


def test_of_the_candidates_the_one_that_breaks_the_fewest_facts_is_taken(
    generator: BoxGenerator, make_batch: MakeBatch
) -> None:
    stated = [Statements((Count(0, 1, 1), Count(1, 1, 1)), (), (Relation(0, LEFT, 1),))] * 24
    batch = make_batch(24, masks=False)

    def share(candidates: int) -> float:
        generator.candidates = Candidates(candidates, numbers=True)
        layout = drawn(generator, batch, stated)
        return float(kept(stated[0], layout).all(1).float().mean())

    assert share(1) < 0.8 and share(32) > share(1) and share(32) > 0.95


def test_candidates_change_nothing_where_nothing_is_stated(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    batch = make_batch(3, masks=False)
    generator.candidates = Candidates(8, numbers=True)
    one = drawn(generator, batch, [Statements()] * 3)
    numbers = torch.randn((3, *generator.noise_shape), generator=torch.Generator().manual_seed(0))
    assert rows(one, 0) == rows(generator.sample_layout(batch.words, batch.word_count, None, numbers), 0)


def test_a_caption_is_drawn_alike_in_every_batch(generator: BoxGenerator, make_batch: MakeBatch) -> None:
    generator.candidates = Candidates(8, numbers=True)
    stated = [Statements((Count(0, 1, 1),), (), (Relation(0, LEFT, 1),)), Statements(), Statements((Count(1, 2, 2),))]
    batch = make_batch(3, masks=False)
    numbers = torch.randn((3, *generator.noise_shape), generator=torch.Generator().manual_seed(3))
    together = generator.sample_layout(batch.words, batch.word_count, None, numbers, stated)
    for row in range(3):
        part = slice(row, row + 1)
        alone = generator.sample_layout(batch.words[part], batch.word_count[part], None, numbers[part], stated[part])
        assert rows(alone, 0) == [pytest.approx(one, abs=1e-5) for one in rows(together, row)]
