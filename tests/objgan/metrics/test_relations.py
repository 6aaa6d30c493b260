"""Relations that captions state, and whether layouts have them."""

import math

import pytest
import torch

from objgan.layout import Layout
from objgan.metrics.named_classes import NamedClasses
from objgan.metrics.relations import Relation, find_relations, relation_accuracy
from objgan.vocabulary import tokenize

CLASSES = ("person", "kite", "boat", "bus", "dog", "dining table")
PERSON, KITE, BOAT, BUS, DOG, TABLE = range(6)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A red kite flying high above two white boats at the sea.", [(KITE, "above", BOAT)]),
        ("There is a man in a red shirt to the left of a bus.", [(PERSON, "left", BUS)]),
        ("A bus is on the right of three large people.", [(BUS, "right", PERSON)]),
        ("Two dogs under the table", [(DOG, "below", TABLE)]),
        ("a puppy on top of a dining table", [(DOG, "above", TABLE)]),
        ("A boat beneath kites, with a dog left of a bus", [(BOAT, "below", KITE), (DOG, "left", BUS)]),
        # Nothing that is stated of two classes.
        ("A bus on a street under a blue sky with a dog", []),
        ("A dog and a bus on the left.", []),
        ("A man standing on the beach with a kite", []),
        ("A person next to a boat", []),
        ("A white bus to the left of a red bus", []),
        ("A kite over the sea and a boat", []),
        ("A bus on the sidewalk, a red boat in the sea", []),
        ("", []),
    ],
)
def test_what_captions_state(caption: str, expected: list[tuple[int, str, int]]) -> None:
    found = find_relations(tokenize(caption), NamedClasses(CLASSES))
    assert found == [Relation(*one) for one in expected]


def layout(*pictures: list[tuple[int, float, float]]) -> Layout:
    """Pictures of (label, centre x, centre y), boxes of differing sizes around them; padding at the top left."""
    boxes, labels = torch.zeros(len(pictures), 3, 4), torch.zeros(len(pictures), 3, dtype=torch.int64)
    for row, picture in enumerate(pictures):
        for at, (label, x, y) in enumerate(picture):
            side = 0.1 * (at + 1)
            labels[row, at] = label
            boxes[row, at] = torch.tensor([x - side / 2, y - side / 2, side, side])
    return Layout(labels, boxes, torch.tensor([len(picture) for picture in pictures]))


def test_accuracy_by_hand() -> None:
    objects = [(KITE, 0.8, 0.3), (BOAT, 0.5, 0.6)]
    above, left = Relation(KITE, "above", BOAT), Relation(KITE, "left", BOAT)
    below, right = Relation(BOAT, "below", KITE), Relation(KITE, "right", BOAT)
    stated = [[above, below, right], [above, left], [Relation(PERSON, "above", BOAT)], []]
    values = relation_accuracy(layout(objects, objects, objects, objects), stated).tolist()
    # Padding has label 0, a person's, and must not count as one.
    assert values[:3] == pytest.approx([1, 0.5, 0]) and math.isnan(values[3])


def test_any_pair_will_do_and_equal_places_will_not() -> None:
    objects = [(KITE, 0.5, 0.7), (KITE, 0.5, 0.2), (BOAT, 0.5, 0.5)]
    stated = [[Relation(KITE, word, BOAT) for word in ("above", "below")], [Relation(KITE, "left", BOAT)]]
    assert relation_accuracy(layout(objects, objects), stated).tolist() == [1, 0]
