"""Baselines of the learning benchmark, by hand and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from objgan.layout import Layout
from tests.benchmarks.learn import real_boxes
from tests.benchmarks.learn.baselines import (
    Captioned,
    LabelRegression,
    marginal_layouts,
    nearest_layouts,
    set_f1,
    word_counts,
)

WORDS = [np.array(ids) for ids in ([2, 3, 3], [2, 4, 5], [6, 1, 7, 2], [8, 8, 3])]


def layouts(labels: list[list[int]]) -> Layout:
    """Two objects at most; the box's x tells the image."""
    count = torch.tensor([len(row) for row in labels])
    padded = torch.tensor([[*row, 0, 0][:2] for row in labels])
    boxes = torch.tensor([[[0.1 * i, 0.1, 0.5, 0.5], [0.1 * i, 0.2, 0.3, 0.3]] for i in range(len(labels))])
    return Layout(padded, boxes * (torch.arange(2) < count[:, None])[..., None], count)


@pytest.fixture
def train() -> Captioned:
    """Four captions of three images; the last two captions are of one image."""
    return Captioned(WORDS, layouts([[0, 1], [1], [2]]), torch.tensor([0, 1, 2, 2]))


def test_counts_leave_out_padding_and_unknown_words() -> None:
    counts = word_counts([np.array([0, 1, 5, 5, 2]), np.array([1])], 6).toarray()
    assert counts.tolist() == [[0, 0, 1, 0, 0, 2], [0, 0, 0, 0, 0, 0]]


def test_nearest_caption_is_that_of_scikit_learn(train: Captioned) -> None:
    asked = [np.array([3, 8]), np.array([5, 9]), np.array([7, 2, 2])]
    model = TfidfVectorizer(analyzer=lambda ids: [i for i in ids.tolist() if i > 1])
    scores = model.fit_transform(WORDS) @ model.transform(asked).T
    expected = train.image[torch.from_numpy(np.asarray(scores.toarray().argmax(0)))]
    assert len(set(expected.tolist())) > 1
    torch.testing.assert_close(nearest_layouts(train, asked, 10).boxes, train.layout.boxes[expected])


def test_marginals_keep_counts_labels_and_boxes_of_training(train: Captioned) -> None:
    drawn = marginal_layouts(train.layout, 4000, 0)
    labels = torch.bincount(drawn.labels[drawn.valid], minlength=3) / drawn.valid.sum()
    torch.testing.assert_close(labels, torch.tensor([0.25, 0.5, 0.25]), atol=0.03, rtol=0)
    assert drawn.count.float().mean() == pytest.approx(4 / 3, abs=0.05)
    known = {tuple(box) for box in train.layout.boxes[train.layout.valid].tolist()}
    assert {tuple(box) for box in drawn.boxes[drawn.valid].tolist()} == known


def test_regression_learns_which_word_is_which_label() -> None:
    rng = np.random.default_rng(0)
    present = rng.random((200, 3)) < 0.4
    # Word 2 + k says class k, the rest is chatter; class 3 never appears.
    words = [np.array([2 + k for k in range(3) if row[k]] + rng.integers(5, 9, 2).tolist()) for row in present]
    layout = Layout(torch.arange(3).expand(200, 3), torch.rand(200, 3, 4), torch.full((200,), 3))
    order = np.argsort(~present, axis=1, kind="stable")
    layout = Layout(torch.from_numpy(order), layout.boxes, torch.from_numpy(present.sum(1)))
    known = Captioned(words, layout, torch.arange(200))
    model = LabelRegression(known, 9, 4)
    assert model.tune(known) > 0.99
    assert torch.equal(model.label_sets(words)[:, :3], torch.from_numpy(present))
    assert not model.label_sets(words)[:, 3].any()


def test_f1_of_sets_by_hand() -> None:
    ours = torch.tensor([[True, True, False], [False, False, False], [False, False, True]])
    theirs = torch.tensor([[True, False, True], [False, False, False], [True, False, False]])
    assert set_f1(ours, theirs).tolist() == [0.5, 1.0, 0.0]


def test_the_table_pairs_images_and_skips_what_was_not_measured() -> None:
    measures = {"label_f1": [0.5, 1.0], "count_error": [1.0, 2.0], "best_iou": [0.2, None]}
    ours = {"measures": measures, "seconds": 9.0, "seed": 0}
    theirs = {"measures": {"label_f1": [0.25, 0.75]}, "seconds": 1.0, "seed": 0}
    text = real_boxes.table({"ours_0": ours, "regression": theirs})
    assert "generator - (c)" in text and "+0.250 [+0.250, +0.250]" in text
    assert "generator - (b)" not in text and "nan" not in text.split("generator - (c)")[1]
