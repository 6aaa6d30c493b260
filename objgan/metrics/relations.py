"""Where captions say that objects are relative to one another, and whether layouts have them there."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objgan.layout import Layout
from objgan.metrics.named_classes import NamedClasses, Phrase

ABOVE, BELOW, LEFT, RIGHT = "above", "below", "left", "right"
RELATION_WORDS: dict[str, tuple[str, ...]] = {
    ABOVE: ("above", "over", "on top of", "on"),
    BELOW: ("below", "under", "beneath", "underneath"),
    LEFT: ("left of", "to the left of", "on the left of", "on the left side of", "to the left side of"),
    RIGHT: ("right of", "to the right of", "on the right of", "on the right side of", "to the right side of"),
}
"""Relation -> the phrases that state it. Anything else (near, behind, in, with) says nothing of up, down or sides."""

# What ends the search for the phrase that a relation is about: behind these words another statement begins.
_BEFORE = frozenset({"and", "while", "as", "or"})
_AFTER = _BEFORE | frozenset(
    {"with", "in", "at", "by", "near", "next", "beside", "behind", "of", "that", "who", "which"}
)
_ARTICLES = frozenset({"a", "an", "the", "its", "his", "her", "their"})  # but for the first, they begin another phrase
_MOST_BEFORE, _MOST_AFTER = 7, 4
_PHRASES = {tuple(words.split()): relation for relation, all_ in RELATION_WORDS.items() for words in all_}
_LONGEST = max(map(len, _PHRASES))


@dataclass(frozen=True)
class Relation:
    """An object of class `subject` is above, below, left or right of one of class `other`."""

    subject: int
    word: str
    other: int


def find_relations(tokens: Sequence[str], matcher: NamedClasses) -> list[Relation]:
    """What the lower-case words of a caption state, in order and each once.

    The subject is the class phrase nearest before the relation ("a man in a red shirt standing to the left of"), the
    other the nearest behind it ("two small white sheep"); a relation that has another relation or a conjunction in
    between is passed over, and so is one between objects of one class, which any two of them fulfil.
    """
    phrases, stated = matcher.phrases_in(tokens), _stated(tokens)
    found: dict[Relation, None] = {}
    for start, stop, word in stated:
        others = [span[:2] for span in stated if span[0] != start]
        subject = _before(start, tokens, phrases, others)
        other = _after(stop, tokens, phrases, others)
        if subject is not None and other is not None and subject != other:
            found[Relation(subject, word, other)] = None
    return list(found)


def relation_accuracy(layout: Layout, relations: Sequence[Sequence[Relation]]) -> Tensor:
    """The share of each caption's relations that its layout fulfils, float32 [B]; NaN where none is stated.

    relations: of each of the B captions, see `find_relations`

    Fulfilled: some object of the one class has its centre above (below, left, right) of one of the other class. So a
    relation between many objects is easily fulfilled, and one whose class is missing never. The order of two random
    centres is right half the time. The true layouts' value is the ceiling: 0.99 of the sample's captions, 0.72 of
    COCO's, most of which say "on" (the centre of a cat on a couch need not be above the couch's).
    """
    centres = layout.boxes[..., :2] + layout.boxes[..., 2:] / 2
    values = [
        torch.tensor([_fulfilled(points[:n], labels[:n], relation) for relation in stated]).float().mean()
        if stated
        else torch.tensor(torch.nan)
        for points, labels, n, stated in zip(centres, layout.labels, layout.count.tolist(), relations, strict=True)
    ]
    return torch.stack(values).to(centres.device)


def _fulfilled(centres: Tensor, labels: Tensor, relation: Relation) -> bool:
    """centres [n, 2], labels [n]: whether any pair fits."""
    axis = 1 if relation.word in (ABOVE, BELOW) else 0
    ours, theirs = centres[labels == relation.subject, axis], centres[labels == relation.other, axis]
    if not len(ours) or not len(theirs):
        return False
    lower = relation.word in (ABOVE, LEFT)
    return bool(ours.min() < theirs.max()) if lower else bool(ours.max() > theirs.min())


def _stated(tokens: Sequence[str]) -> list[tuple[int, int, str]]:
    """Start, stop and relation of each relation phrase, the longest at each place."""
    found, start = [], 0
    while start < len(tokens):
        for length in range(min(_LONGEST, len(tokens) - start), 0, -1):
            word = _PHRASES.get(tuple(tokens[start : start + length]))
            if word:
                found.append((start, start + length, word))
                start += length
                break
        else:
            start += 1
    return found


def _before(at: int, tokens: Sequence[str], phrases: Sequence[Phrase], others: Sequence[tuple[int, ...]]) -> int | None:
    """The class of the phrase that ends nearest before `at`, None where something else stands between."""
    ends = [phrase for phrase in phrases if phrase.stop <= at]
    if not ends:
        return None
    nearest = max(ends, key=lambda phrase: phrase.stop)
    return nearest.label if _clear(tokens, (nearest.stop, at), others, _BEFORE, _MOST_BEFORE) else None


def _after(at: int, tokens: Sequence[str], phrases: Sequence[Phrase], others: Sequence[tuple[int, ...]]) -> int | None:
    """The class of the phrase that starts nearest behind `at`, None where something else stands between."""
    starts = [phrase for phrase in phrases if phrase.start >= at]
    if not starts:
        return None
    nearest = min(starts, key=lambda phrase: phrase.start)
    if not _ARTICLES.isdisjoint(tokens[at + 1 : nearest.start]):
        return None
    return nearest.label if _clear(tokens, (at, nearest.start), others, _AFTER, _MOST_AFTER) else None


def _clear(
    tokens: Sequence[str],
    gap: tuple[int, int],
    others: Sequence[tuple[int, ...]],
    breaks: frozenset[str],
    longest: int,
) -> bool:
    """Whether tokens[gap] are few, and neither a breaking word nor another relation."""
    start, stop = gap
    crossed = any(first < stop and start < last for first, last in others)
    return stop - start <= longest and not crossed and breaks.isdisjoint(tokens[start:stop])
