"""Boxes are moved until a stated relation holds, and no other fact breaks."""

import pytest
import torch

from objgan.layout import Layout
from objgan.placing import place
from objgan.statements import ABOVE, BELOW, LEFT, NEXT_TO, RIGHT, Count, Relation, Statements, kept

DOG, CAT = 0, 1


def layout(*objects: tuple[int, list[float]]) -> Layout:
    labels = torch.tensor([[label for label, _ in objects] + [0]])
    boxes = torch.tensor([[box for _, box in objects] + [[0.0] * 4]])
    return Layout(labels, boxes, torch.tensor([len(objects)]))


def holds(stated: Statements, found: Layout) -> list[bool]:
    return kept(stated, found)[0].tolist()


@pytest.mark.parametrize("word", [LEFT, RIGHT, ABOVE, BELOW, NEXT_TO])
@pytest.mark.parametrize(
    "cat",
    [[0.1, 0.1, 0.2, 0.2], [0.7, 0.7, 0.3, 0.3], [0.0, 0.0, 1.0, 1.0], [0.4, 0.4, 0.3, 0.3], [0.0, 0.4, 1.0, 0.2]],
)
def test_a_broken_relation_is_mended(word: str, cat: list[float]) -> None:
    stated = Statements((Count(DOG, 1, 1),), (), (Relation(DOG, word, CAT),))
    found = place(layout((CAT, cat), (DOG, [0.4, 0.4, 0.3, 0.3])), stated)
    assert holds(stated, found) == [True, True]
    x, y, w, h = found.boxes[0, :2].unbind(-1)
    assert (x >= 0).all() and (y >= 0).all() and (x + w <= 1 + 1e-6).all() and (y + h <= 1 + 1e-6).all()
    assert w[0] * h[0] >= w[1] * h[1], "the largest comes first"


def test_what_holds_stays_and_what_cannot_hold_changes_nothing() -> None:
    good = layout((CAT, [0.0, 0.0, 0.4, 0.4]), (DOG, [0.6, 0.1, 0.2, 0.2]))
    for stated in (
        Statements(relations=(Relation(DOG, RIGHT, CAT),)),
        Statements(relations=(Relation(DOG, LEFT, DOG),)),
        Statements(relations=(Relation(DOG, RIGHT, CAT), Relation(DOG, LEFT, CAT))),
        Statements(),
    ):
        found = place(good, stated)
        assert torch.equal(found.boxes, good.boxes) and torch.equal(found.labels, good.labels)
