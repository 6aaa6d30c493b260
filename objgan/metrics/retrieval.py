"""Retrieval in a pool: how many wrong candidates a true pair has to fear."""

import torch
from torch import Tensor


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
