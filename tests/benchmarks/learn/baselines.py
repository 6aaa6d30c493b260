"""Layouts of captions without a network: drawn from marginals, the nearest caption's, labels by logistic regression.

Captions are sequences of word ids, as the reader gives them; ids under 2 (padding, unknown) never count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from objgan.batch import collate
from objgan.layout import Layout
from objgan.losses.boxes import label_set
from objgan.networks.box_generator import sort_layout
from objgan.vocabulary import UNK
from pipelines.data.loading.reader import ShardReader


@dataclass(frozen=True)
class Captioned:
    """Captions and the layouts that they are of.

    words:  N captions, int64 ids
    layout: layouts of M images
    image:  int64 [N], the image of each caption
    """

    words: list[np.ndarray]
    layout: Layout
    image: Tensor


def captioned(reader: ShardReader, seed: int, every_caption: bool) -> Captioned:
    """All images of a split with all captions, or with the one that the reader's evaluation takes."""
    words, image, firsts = [], [], []
    for index in range(len(reader)):
        count = reader.caption_count(index) if every_caption else 1
        samples = [reader.evaluation_sample(index, seed, number) for number in range(count)]
        words += [sample.words for sample in samples]
        image += [index] * count
        firsts.append(samples[0])
    layout = collate(firsts, reader.max_words, reader.config.data.max_objects).layout
    return Captioned(words, layout, torch.tensor(image))


def marginal_layouts(train: Layout, number: int, seed: int) -> Layout:
    """`number` layouts: a count, and for each object a class and a box, drawn apart from each other as in training."""
    generator = torch.Generator().manual_seed(seed)

    def draw(values: Tensor, *shape: int) -> Tensor:
        return values[torch.randint(len(values), shape, generator=generator)]

    size = train.labels.shape[1]
    kept = torch.arange(size) < draw(train.count, number)[:, None]
    labels, boxes = train.labels[train.valid], train.boxes[train.valid]
    return sort_layout(draw(labels, number, size), draw(boxes, number, size), kept)


def nearest_layouts(train: Captioned, words: Sequence[np.ndarray], vocabulary: int) -> Layout:
    """For each caption the layout of the training caption with the largest cosine of TF-IDF vectors; the first wins.

    Term frequencies are counts; idf = log((1 + N) / (1 + n)) + 1 over the N training captions (scikit-learn's).
    """
    known = word_counts(train.words, vocabulary)
    idf = np.log((1 + known.shape[0]) / (1 + np.bincount(known.indices, minlength=vocabulary))) + 1
    scores = _unit(word_counts(words, vocabulary), idf) @ _unit(known, idf).T
    nearest = torch.from_numpy(np.asarray(scores.toarray().argmax(1)))
    return train.layout[train.image[nearest]]


class LabelRegression:
    """A logistic regression for each class on which words a caption has (scikit-learn, L2, C = `strength`)."""

    def __init__(self, train: Captioned, vocabulary: int, classes: int, strength: float = 1.0) -> None:
        """A class that no image, or every image, has keeps that probability."""
        self.vocabulary, self.threshold = vocabulary, 0.5
        self.classes = classes
        present = self.true_sets(train.layout)[train.image].numpy()
        inputs = self._inputs(train.words)
        self._constant = present.mean(0)
        self._models = {
            label: LogisticRegression(C=strength, solver="liblinear").fit(inputs, present[:, label])
            for label in range(classes)
            if 0 < self._constant[label] < 1
        }

    def probabilities(self, words: Sequence[np.ndarray]) -> Tensor:
        """float64 [N, C]: which classes the images of N captions have."""
        inputs = self._inputs(words)
        found = np.tile(self._constant, (len(words), 1))
        for label, model in self._models.items():
            found[:, label] = model.predict_proba(inputs)[:, 1]
        return torch.from_numpy(found)

    def tune(self, held_out: Captioned) -> float:
        """Take the threshold of the best mean F1 of label sets, in steps of 0.01, and return that F1."""
        found = self.probabilities(held_out.words)
        true = self.true_sets(held_out.layout)[held_out.image]
        thresholds = [step / 100 for step in range(5, 96)]
        scores = [float(set_f1(found >= threshold, true).mean()) for threshold in thresholds]
        self.threshold = thresholds[int(np.argmax(scores))]
        return max(scores)

    def label_sets(self, words: Sequence[np.ndarray]) -> Tensor:
        """bool [N, C]: the classes at or over the threshold."""
        return self.probabilities(words) >= self.threshold

    def true_sets(self, layout: Layout) -> Tensor:
        """bool [B, C]: the classes that B layouts have."""
        return label_set(layout.labels, layout.valid, self.classes)

    def _inputs(self, words: Sequence[np.ndarray]) -> csr_matrix:
        return (word_counts(words, self.vocabulary) > 0).astype(np.float64)


def set_f1(ours: Tensor, theirs: Tensor) -> Tensor:
    """F1 of sets bool [N, C], float32 [N], as `label_f1` has it: 1 where both are empty."""
    total = ours.sum(1) + theirs.sum(1)
    return torch.where(total > 0, 2 * (ours & theirs).sum(1) / total.clamp_min(1), 1.0)


def word_counts(words: Sequence[np.ndarray], vocabulary: int) -> csr_matrix:
    """float64 [N, vocabulary]: how often each known word stands in each caption."""
    rows = np.repeat(np.arange(len(words)), [len(one) for one in words])
    ids = np.concatenate([*words, np.zeros(0, np.int64)])
    known = ids > UNK
    shape = (len(words), vocabulary)
    counts = csr_matrix((np.ones(int(known.sum())), (rows[known], ids[known])), shape=shape)
    counts.sum_duplicates()
    return counts


def _unit(counts: csr_matrix, idf: np.ndarray) -> csr_matrix:
    weighted = counts.multiply(idf).tocsr()
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    return weighted.multiply(1 / np.maximum(length, 1e-12)[:, None]).tocsr()
