"""Scores of layouts for prompts whose numbers and relations are known, as NSR-1K defines them.

NSR-1K: Feng et al. 2023, LayoutGPT, arXiv 2305.15393, section 4.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objgan.layout import Layout
from objgan.metrics.layouts import class_counts
from objgan.statements import Count, Statements, kept


@dataclass(frozen=True)
class StatedPrompt:
    """A prompt and what is true of a picture that follows it.

    counts: exact numbers of its classes, for precision and recall; empty where it states none, or only compares
    facts:  what a layout has to keep
    """

    text: str
    counts: tuple[Count, ...]
    facts: Statements


def prompt_scores(layout: Layout, prompts: Sequence[StatedPrompt], classes: int) -> dict[str, Tensor]:
    """Scores of B layouts, float32 [B], and `objects` [B, 3]; NaN where a prompt states nothing of the kind.

    `numerical_accuracy`: whether all numbers and comparisons hold. `spatial_accuracy`: whether all relations hold.
    `all_named`: whether each class that the facts need appears. `objects`: how many of the prompt's objects the layout
    has (no class more often than in the prompt), all objects of the layout, all objects of the prompt.
    """
    numbers, places, named, objects = [], [], [], []
    drawn = class_counts(layout, classes)
    for row, prompt in enumerate(prompts):
        held = kept(prompt.facts, layout[row : row + 1])[0]
        split = len(held) - len(prompt.facts.relations)
        numbers.append(_all(held[:split]))
        places.append(_all(held[split:]))
        named.append(_all(drawn[row, sorted(_needed(prompt.facts))] > 0))
        right = sum(min(int(drawn[row, count.label]), count.low) for count in prompt.counts)
        total = sum(count.low for count in prompt.counts)
        objects.append([right, int(drawn[row].sum()), total] if prompt.counts else [torch.nan] * 3)
    scores = {"numerical_accuracy": numbers, "spatial_accuracy": places, "all_named": named}
    return {name: torch.tensor(values) for name, values in scores.items()} | {"objects": torch.tensor(objects)}


def _all(held: Tensor) -> float:
    return float(held.all()) if len(held) else torch.nan


def _needed(facts: Statements) -> set[int]:
    """The classes without which a fact cannot hold, and those that are compared."""
    needed = {count.label for count in facts.counts if count.low}
    needed |= {label for fact in facts.comparisons for label in (fact.label, fact.other)}
    return needed | {label for fact in facts.relations for label in (fact.subject, fact.other)}
