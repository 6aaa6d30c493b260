"""Rules of label temperature 0, by hand."""

import math

import pytest
import torch
from torch import Tensor

from objgan.networks.greedy_labels import GreedyLabels, GreedyRule

END = 2


def logits(*rows: list[float]) -> Tensor:
    """Of probabilities [B, 3]."""
    return torch.tensor(rows).log()


def used(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


def test_without_a_rule_the_most_likely_label_is_taken() -> None:
    labels = GreedyLabels(GreedyRule(), torch.full((2, 2), 9.0))
    assert labels.next(logits([0.2, 0.3, 0.5], [0.6, 0.3, 0.1]), used([0, 0], [4, 0])).tolist() == [END, 0]


def test_it_ends_at_the_median_count() -> None:
    # Counts 0, 1, 2, more: 0.4 (the single likeliest label, and no end), 0.6 x 0.1 = 0.06, 0.54 x 0.3 = 0.162, 0.378.
    # At least one: 0.6, two: 0.54, three: 0.378. The median is 2, where the end is no likelier than class 0.
    labels = GreedyLabels(GreedyRule(median_end=True), None)
    steps = [[0.35, 0.25, 0.4], [0.3, 0.6, 0.1], [0.6, 0.1, 0.3], [0.9, 0.1, 0.0]]
    found = [labels.next(logits(step), used([0, 0])).item() for step in steps]
    assert found == [0, 1, END, END]


def test_each_picture_has_a_median_of_its_own() -> None:
    labels = GreedyLabels(GreedyRule(median_end=True), None)
    rows = logits([0.3, 0.1, 0.6], [0.1, 0.7, 0.2])
    assert labels.next(rows, used([0, 0], [0, 0])).tolist() == [END, 1]
    # 0.8 x 0.8 = 0.64 of the second picture goes on; then 0.512; then 0.41.
    assert [labels.next(rows, used([0, 0], [0, 1]))[1].item() for _ in range(3)] == [1, 1, END]


def test_the_median_ends_where_every_class_is_used_up() -> None:
    labels = GreedyLabels(GreedyRule(median_end=True), None)
    assert labels.next(torch.tensor([[-math.inf, -math.inf, -5.0]]), used([2, 2])).tolist() == [END]


@pytest.mark.parametrize("median", [False, True])
def test_a_named_class_comes_before_a_repeat(median: bool) -> None:
    labels = GreedyLabels(GreedyRule(median, named_first=0.4), torch.tensor([[3.0, 0.0]]))
    row = logits([0.7, 0.2, 0.1])
    assert labels.next(row, used([0, 0])).item() == 0  # a first mention, not a repeat
    assert labels.next(row, used([1, 0])).item() == 1
    assert labels.next(row, used([1, 1])).item() == 0  # nothing is missing
    assert labels.next(logits([0.05, 0.05, 0.9]), used([1, 0])).item() == END  # it does not put off the end


def test_a_class_that_the_bag_doubts_does_not() -> None:
    # sigmoid(-0.5) is 0.378.
    labels = GreedyLabels(GreedyRule(named_first=0.4), torch.tensor([[3.0, -0.5]]))
    assert labels.next(logits([0.7, 0.2, 0.1]), used([1, 0])).item() == 0


def test_a_missing_class_that_may_not_come_does_not() -> None:
    labels = GreedyLabels(GreedyRule(named_first=0.4), torch.tensor([[3.0, 3.0]]))
    assert labels.next(logits([0.9, 0.0, 0.1]), used([1, 0])).item() == 0
