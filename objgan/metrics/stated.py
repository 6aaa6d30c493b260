"""How much of what captions state layouts keep."""

from collections.abc import Sequence

import torch
from torch import Tensor

from objgan.layout import Layout
from objgan.statements import Relation, Statements, kept


def stated_accuracy(layout: Layout, statements: Sequence[Statements]) -> dict[str, Tensor]:
    """Shares of each caption's facts that its layout keeps, float32 [B]; NaN where none is stated.

    statements: of each of the B captions

    `count_accuracy`: numbers and comparisons of numbers. `relation_accuracy`: places (see `objgan.statements`); two
    random centres are left (right, above, below) of one another a quarter of the time.
    """
    numbers, places = [], []
    for row, stated in enumerate(statements):
        held = kept(stated, layout[row : row + 1])[0].float()
        split = sum(not isinstance(fact, Relation) for fact in stated.facts)
        # The mean of nothing is NaN.
        numbers.append(held[:split].mean())
        places.append(held[split:].mean())
    return {"count_accuracy": torch.stack(numbers), "relation_accuracy": torch.stack(places)}
