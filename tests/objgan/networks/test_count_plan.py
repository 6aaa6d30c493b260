import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from objgan.networks.count_plan import at_least, best_set, likely_or_named, median_total, plan_counts

CLASSES = 6
SETS = list(itertools.product((0, 1), repeat=CLASSES))


def _probability(presence: Sequence[float], chosen: Sequence[int]) -> float:
    return math.prod(p if there else 1 - p for p, there in zip(presence, chosen, strict=True))


def _f1(ours: Sequence[int], true: Sequence[int]) -> float:
    total = sum(ours) + sum(true)
    return 2 * sum(a * b for a, b in zip(ours, true, strict=True)) / total if total else 1.0


def _logits(*classes: tuple[float, Sequence[float]]) -> Tensor:
    """(probability of presence, those of 1, 2, ... objects) of each class -> [1, C, R + 1]."""
    rows = [[math.log(p / (1 - p)), *(math.log(max(share, 1e-12)) for share in numbers)] for p, numbers in classes]
    return torch.tensor([rows])


def test_no_set_has_a_higher_expected_f1() -> None:
    torch.manual_seed(0)
    presence = torch.rand(40, CLASSES, dtype=torch.float64) ** 2
    presence[0] = 1e-3
    chosen = best_set(presence).int().tolist()
    assert chosen[0] == [0] * CLASSES and len({sum(row) for row in chosen}) > 3
    for row, ours in zip(presence.tolist(), chosen, strict=True):
        expected = {
            some: sum(_probability(row, true) * _f1(some, true) for true in SETS) for some in (*SETS, tuple(ours))
        }
        assert expected[tuple(ours)] == pytest.approx(max(expected.values()), abs=1e-9)


def test_the_median_total_is_that_of_all_combinations() -> None:
    torch.manual_seed(0)
    counts = 2 * torch.randn(30, 3, 4, dtype=torch.float64)
    presence, fewest = counts[..., 0].sigmoid(), at_least(counts)
    number = counts[..., 1:].softmax(-1)
    shares = torch.cat([1 - presence[..., None], presence[..., None] * number], -1)  # [B, 3, 4]: of 0 to 3 objects
    for row, total in zip(shares.tolist(), median_total(presence, fewest).tolist(), strict=True):
        found = [0.0] * 10
        for numbers in itertools.product(range(4), repeat=3):
            found[sum(numbers)] += math.prod(row[c][n] for c, n in enumerate(numbers))
        median = next(n for n in range(10) if sum(found[: n + 1]) >= 0.5)
        assert total == min(median, 3)


def test_a_certain_number_stays_whatever_the_total_is() -> None:
    sure = [1e-9, 1e-9, 1.0, 1e-9, 1e-9, 1e-9]
    doubtful = [(0.2, [0.2, 0.2, 0.2, 0.2, 0.1, 0.1])] * 4
    assert plan_counts(_logits((0.999, sure), *doubtful)).tolist() == [[3, 0, 0, 0, 0]]


def test_doubtful_numbers_reach_the_total() -> None:
    # One person for sure, and more in four of ten pictures; objects that are unlikely one by one make the total 4.
    person = (0.999, [0.6, 0.02, 0.38, 1e-9, 1e-9, 1e-9])
    others = [(0.4, [0.1, 0.1, 0.4, 0.4, 1e-9, 1e-9])] * 2
    counts = _logits(person, *others)
    presence, fewest = counts[..., 0].double().sigmoid(), at_least(counts.double())
    assert median_total(presence, fewest).tolist() == [4]
    assert plan_counts(counts)[0, 0] == 3 and (plan_counts(_logits(person)) == 1).all()


def test_a_caption_alone_or_in_a_batch_has_the_same_plan() -> None:
    torch.manual_seed(1)
    counts = 2 * torch.randn(200, 80, 11)
    together = plan_counts(counts)
    assert torch.equal(together[17:18], plan_counts(counts[17:18])) and together.min() == 0


def test_unlikely_classes_that_a_caption_does_not_name_do_not_come() -> None:
    logits = _logits((0.6, (1.0, 0.0)), (0.9, (1.0, 0.0)), (0.3, (0.0, 1.0)), (0.6, (1.0, 0.0))).expand(3, -1, -1)
    fewest = torch.tensor([[0, 0, 2, 0], [0] * 4, [0] * 4])
    most = torch.tensor([[2, 2, 2, 1], [2] * 4, [2, 2, 2, 0]])
    kept = likely_or_named(logits, (fewest, most), 0.7)
    assert torch.equal(kept[1:], logits[1:]), "captions that name nothing, and only what is absent"
    assert kept[0, :, 0].isinf().tolist() == [True, False, False, False]
    assert torch.equal(kept[0, 1:], logits[0, 1:])
    assert plan_counts(logits)[0].tolist() == [1, 1, 0, 1] and plan_counts(kept)[0].tolist() == [0, 1, 0, 1]
