"""Scores of layouts for prompts whose numbers and relations are known."""

import pytest
import torch

from objgan.layout import Layout
from objgan.metrics.prompts import StatedPrompt, prompt_scores
from objgan.statements import ABOVE, LEFT, MORE, Comparison, Count, Relation, Statements

DOG, CAT, SHEEP = range(3)


def layout(*pictures: list[tuple[int, float, float]]) -> Layout:
    """Pictures of (label, centre x, centre y) of boxes with a side of 0.1; padded with dogs that do not count."""
    labels, boxes = torch.full((len(pictures), 5), DOG), torch.zeros(len(pictures), 5, 4)
    for row, picture in enumerate(pictures):
        for at, (label, x, y) in enumerate(picture):
            labels[row, at], boxes[row, at] = label, torch.tensor([x - 0.05, y - 0.05, 0.1, 0.1])
    return Layout(labels, boxes, torch.tensor([len(picture) for picture in pictures]))


def counting(*counts: Count) -> StatedPrompt:
    return StatedPrompt("", counts, Statements(counts))


def test_scores_by_hand() -> None:
    two_dogs = [(DOG, 0.2, 0.2), (DOG, 0.4, 0.2), (CAT, 0.8, 0.3)]
    prompts = [
        counting(Count(DOG, 2, 2)),
        counting(Count(DOG, 3, 3), Count(CAT, 1, 1)),
        counting(Count(SHEEP, 0, 0), Count(DOG, 2, 2)),
        StatedPrompt("", (), Statements((Count(DOG, 2, 2),), (Comparison(DOG, MORE, CAT),))),
        StatedPrompt("", (), Statements((), (), (Relation(DOG, LEFT, CAT),))),
        StatedPrompt("", (), Statements((), (), (Relation(DOG, ABOVE, SHEEP),))),
    ]
    scores = prompt_scores(layout(*[two_dogs] * 6), prompts, 3)
    assert scores["numerical_accuracy"].tolist()[:4] == [1, 0, 1, 1]
    assert scores["numerical_accuracy"].isnan().tolist() == [False] * 4 + [True] * 2
    assert scores["spatial_accuracy"].isnan().tolist() == [True] * 4 + [False] * 2
    assert scores["spatial_accuracy"].tolist()[4:] == [1, 0]
    assert scores["all_named"].tolist() == [1, 1, 1, 1, 1, 0]
    # Right, drawn and stated objects; a comparison states no number of its second class.
    assert scores["objects"].tolist()[:3] == [[2, 3, 2], [3, 3, 4], [2, 3, 2]]
    assert scores["objects"].isnan().all(1).tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize(("dogs", "right"), [(1, [0, 0]), (2, [1, 0]), (3, [0, 0])])
def test_a_comparison_needs_the_first_number_and_the_order(dogs: int, right: list[int]) -> None:
    facts = Statements((Count(DOG, 2, 2),), (Comparison(DOG, MORE, CAT),))
    one_cat = [(DOG, 0.5, 0.5)] * dogs + [(CAT, 0.5, 0.5)]
    two_cats = [(DOG, 0.5, 0.5)] * dogs + [(CAT, 0.5, 0.5)] * 2
    scores = prompt_scores(layout(one_cat, two_cats), [StatedPrompt("", (), facts)] * 2, 3)
    assert scores["numerical_accuracy"].tolist() == right
