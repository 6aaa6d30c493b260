"""Ranks and recall, by hand."""

import numpy as np
import torch

from objgan.metrics.retrieval import r_precision, ranks, recall

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


def test_r_precision_of_permuted_captions_is_chance() -> None:
    rng = np.random.default_rng(0)
    vectors, ids = rng.standard_normal((4000, 16)), np.arange(4000)
    assert r_precision(vectors, 3 * vectors, ids).mean() == 1
    permuted = r_precision(vectors, vectors[rng.permutation(4000)], ids)
    assert 0.005 < permuted.mean() < 0.016  # 0.01, give or take three to four standard errors


def test_r_precision_of_a_constant_generator() -> None:
    rng = np.random.default_rng(1)
    captions, ids = rng.standard_normal((2000, 8)), np.arange(2000)
    constant = np.ones((2000, 8))
    assert r_precision(constant, captions, ids).mean() < 0.02
    rounded = constant + 1e-8 * rng.standard_normal((2000, 8))
    assert r_precision(captions, constant, ids).sum() == r_precision(captions, rounded, ids).sum() == 0  # all tie
    assert r_precision(np.full((2000, 8), np.nan), captions, ids).sum() == 0


def test_r_precision_depends_on_the_pool_and_not_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(2)
    captions = rng.standard_normal((500, 8))
    images, ids = captions + 1.2 * rng.standard_normal((500, 8)), 10 * np.arange(500) + 7
    found = r_precision(images, captions, ids)
    order = rng.permutation(500)
    assert (r_precision(images[order], captions[order], ids[order]) == found[order]).all()
    assert (r_precision(images, captions, ids, seed=1) != found).any()
    assert (
        r_precision(images, captions, ids, pool=2).mean()
        > found.mean()
        > r_precision(images, captions, ids, pool=500).mean()
    )


def test_captions_of_the_same_image_or_wording_do_not_compete() -> None:
    captions = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.0]])
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    # The second image finds the other caption of its image (passed over) and the same words elsewhere (a wrong one).
    assert r_precision(images, captions, torch.tensor([5, 5, 6, 7])).tolist() == [0, 0, 1, 0]
    found = r_precision(images, captions, torch.tensor([5, 5, 6, 7]), torch.tensor([1, 2, 3, 1]))
    assert found.tolist() == [1, 0, 1, 1]
    assert np.isnan(r_precision(images, captions, np.zeros(4, int))).all()


def test_every_candidate_is_used_where_the_pool_is_larger() -> None:
    captions = np.eye(6)
    images = np.eye(6)
    images[0] = [1, 0, 0, 0, 0, 1.1]  # only the last caption is nearer
    assert r_precision(images, captions, np.arange(6), pool=100).tolist() == [0, 1, 1, 1, 1, 1]
