"""Ranks and recall, by hand."""

import torch

from objgan.metrics.retrieval import ranks, recall

SCORES = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.3], [0.1, 0.6, 0.6]])


def test_ranks_by_hand() -> None:
    assert ranks(SCORES).tolist() == [0, 1, 1]  # the third ties with a wrong candidate
    assert ranks(SCORES.T).tolist() == [0, 1, 0]


def test_recall_in_both_directions() -> None:
    forth, back = recall(SCORES)
    assert forth.tolist() == [1, 0, 0] and back.tolist() == [1, 0, 1]
    assert recall(SCORES, k=2)[0].tolist() == [1, 1, 1]


def test_candidates_of_the_same_image_are_ignored() -> None:
    ignored = torch.zeros(3, 3, dtype=torch.bool)
    ignored[1, 0] = True
    forth, back = recall(SCORES, ignored=ignored)
    assert forth.tolist() == [1, 1, 0] and back.tolist() == [1, 0, 1]


def test_a_model_that_cannot_tell_finds_nothing() -> None:
    assert recall(torch.zeros(4, 4))[0].sum() == 0
    assert recall(torch.full((4, 4), torch.nan))[0].sum() == 0
    assert recall(torch.zeros(1, 1))[0].tolist() == [1]
