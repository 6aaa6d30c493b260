"""Shares of stated facts that layouts keep."""

import math

import pytest
import torch

from objgan.layout import Layout
from objgan.metrics.stated import stated_accuracy
from objgan.statements import Count, Relation, Statements

PERSON, KITE, BOAT = range(3)


def layout(*pictures: list[tuple[int, float, float]]) -> Layout:
    """Pictures of (label, centre x, centre y), boxes of differing sizes around them; padding at the top left."""
    boxes, labels = torch.zeros(len(pictures), 3, 4), torch.zeros(len(pictures), 3, dtype=torch.int64)
    for row, picture in enumerate(pictures):
        for at, (label, x, y) in enumerate(picture):
            side = 0.1 * (at + 1)
            labels[row, at] = label
            boxes[row, at] = torch.tensor([x - side / 2, y - side / 2, side, side])
    return Layout(labels, boxes, torch.tensor([len(picture) for picture in pictures]))


def test_shares_by_hand() -> None:
    objects = [(KITE, 0.6, 0.3), (BOAT, 0.5, 0.6)]
    above, left = Relation(KITE, "above", BOAT), Relation(KITE, "left", BOAT)
    one, two = Count(KITE, 1, 1), Count(BOAT, 2, 2)
    stated = [
        Statements((one,), (), (above, left)),
        Statements((one, two)),
        Statements((Count(PERSON, 1, None),), (), (Relation(PERSON, "above", BOAT),)),
        Statements(),
    ]
    values = stated_accuracy(layout(objects, objects, objects, objects), stated)
    # Padding has label 0, a person's, and must not count as one.
    assert values["relation_accuracy"].tolist()[:1] == [0.5] and values["relation_accuracy"][2] == 0
    assert values["count_accuracy"].tolist()[:3] == pytest.approx([1, 0.5, 0])
    assert math.isnan(values["relation_accuracy"][1]) and math.isnan(values["count_accuracy"][3])


def test_any_pair_will_do() -> None:
    objects = [(KITE, 0.5, 0.7), (KITE, 0.5, 0.2), (BOAT, 0.5, 0.5)]
    stated = [Statements(relations=tuple(Relation(KITE, word, BOAT) for word in ("above", "below", "left")))]
    assert stated_accuracy(layout(objects), stated)["relation_accuracy"].tolist() == pytest.approx([2 / 3])
