"""Retrieval in a pool: how many wrong candidates a true pair has to fear."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from objgan.metrics.arrays import Array, plain

POOL = 100
TIE = 1e-6
"""Cosines of float32 vectors that are no further apart than this may be those of the same words, batched otherwise."""


def ranks(scores: Tensor, ignored: Tensor | None = None) -> Tensor:
    """Rank of each query's true candidate, int64 [P], 0 the best.

    scores:  [P, P], query by candidate; the true candidate of query i is i; higher is better
    ignored: bool [P, P], candidates that count neither way (other captions of the same image); its diagonal is not read

    A tie counts against the query, and so does a score that is not a number: a model that scores all pairs alike, or
    gives NaN, finds nothing.
    """
    own = scores.diagonal()[:, None]
    others = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    if ignored is not None:
        others = others & ~ignored
    return (~(scores < own) & others).sum(1)


def recall(scores: Tensor, k: int = 1, ignored: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """R@k per sample over the pool of P pairs, both directions: rows query columns, columns query rows; float32 [P]."""
    columns = None if ignored is None else ignored.T
    return (ranks(scores, ignored) < k).float(), (ranks(scores.T, columns) < k).float()


def r_precision(
    images: Array,
    captions: Array,
    image_ids: Array,
    wordings: Array | None = None,
    pool: int = POOL,
    seed: int = 0,
) -> np.ndarray:
    """Whether an image's own caption is the nearest of a pool by cosine: float64 [N], 1 or 0, NaN without others.

    images, captions: [N, D], caption n was given for image n
    image_ids:        int [N], the images that the captions were written for; may come again
    wordings:         int [N], equal for captions of the same words; None: no two are alike
    pool:             captions to choose from, the own one among them; where there are fewer, all of them

    The others are captions of other images, worded otherwise, drawn by seed and image id: the order of rows, and how
    they were spread over machines, does not matter. A tie counts against, and so does a score that is not a number.
    Xu et al. 2018 (AttnGAN, arXiv 1711.10485), section 4: chance is 1 / pool.
    """
    seen, read = _unit_rows(images), _unit_rows(captions)
    if seen.shape != read.shape or len(seen) != len(image_ids):
        raise ValueError(f"{seen.shape} images, {read.shape} captions and {len(image_ids)} ids do not fit")
    found = np.full(len(seen), np.nan)
    for row, others in _pools(plain(image_ids), None if wordings is None else plain(wordings), pool, seed):
        if len(others):
            scores = read[np.append(others, row)] @ seen[row]
            found[row] = float((scores[:-1] < scores[-1] - TIE).all())
    return found


def _pools(ids: np.ndarray, wordings: np.ndarray | None, pool: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """(row, rows of at most pool - 1 wrong captions), by draws that do not depend on the order of rows."""
    alike = np.arange(len(ids)) if wordings is None else wordings
    order = np.argsort(ids, kind="stable") if wordings is None else np.lexsort((wordings, ids))
    turns: dict[int, int] = {}
    for row in order.tolist():
        image = int(ids[row])
        turns[image] = turns.get(image, -1) + 1
        rng = np.random.default_rng([seed, abs(image), int(image < 0), turns[image]])
        yield row, _draw_others(row, order, (ids, alike), pool - 1, rng)


def _draw_others(
    row: int, order: np.ndarray, keys: tuple[np.ndarray, np.ndarray], number: int, rng: np.random.Generator
) -> np.ndarray:
    """At most `number` of `order` that share neither key with `row`."""

    def usable(rows: np.ndarray) -> np.ndarray:
        kept: np.ndarray = rows[(keys[0][rows] != keys[0][row]) & (keys[1][rows] != keys[1][row])]
        return kept

    # Twice as many as asked for are nearly always enough, and cheaper than to look at all.
    some = usable(order[rng.choice(len(order), min(len(order), 2 * number + 2), replace=False)])
    if len(some) < number:
        some = rng.permutation(usable(order))
    return some[:number]


def _unit_rows(vectors: Array) -> np.ndarray:
    """[N, D] of length 1, zero rows stay zero; NaN stays NaN."""
    array = plain(vectors).astype(np.float64)
    unit: np.ndarray = array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12)
    return unit
