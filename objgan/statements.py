"""Facts about a picture that a caption states: how many objects of each class, how they are placed, what is absent.

`objgan.caption_parser` reads them. The box generator's decoder and the measures use the same statements.

Placement is judged by box centres as NSR-1K does (Feng et al. 2023, LayoutGPT, arXiv 2305.15393, section 4.1): the
larger of the horizontal and the vertical distance decides between left/right and above/below.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from objgan.layout import Layout

LEFT, RIGHT, ABOVE, BELOW, NEXT_TO, BETWEEN = "left", "right", "above", "below", "next to", "between"
MORE, FEWER, EQUAL = "more", "fewer", "equal"


class Count(NamedTuple):
    """A picture has from `low` to `high` objects of class `label`; `high` None: any number."""

    label: int
    low: int
    high: int | None


class Comparison(NamedTuple):
    """A picture has more (fewer, equally many) objects of class `label` than (as) of class `other`."""

    label: int
    word: str
    other: int


class Relation(NamedTuple):
    """Some object of class `subject` is placed so relative to another one of class `other`.

    second: between: the class of the object on the other side
    """

    subject: int
    word: str
    other: int
    second: int | None = None


Fact = Count | Comparison | Relation


@dataclass(frozen=True)
class Statements:
    """What one caption states. At most one `Count` a class, but for contradictions."""

    counts: tuple[Count, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    relations: tuple[Relation, ...] = ()

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Counts, comparisons, relations."""
        return (*self.counts, *self.comparisons, *self.relations)

    def bounds(self, classes: int, most: int) -> tuple[Tensor, Tensor]:
        """Fewest and most objects of each class, int64 [C] each, where a picture has at most `most` objects.

        Where a caption contradicts itself, what is present wins. Where more objects are stated than a picture has
        room for, the classes that are stated first get them.
        """
        low, high = torch.zeros(classes, dtype=torch.int64), torch.full((classes,), most, dtype=torch.int64)
        room = most
        for count in sorted(self.counts, key=lambda count: count.low == 0):
            if count.low == 0 and low[count.label]:
                continue
            low[count.label] = min(count.low, room)
            high[count.label] = most if count.high is None else min(count.high, most)
            room -= int(low[count.label])
        return low, high


def fact_text(fact: Fact, classes: Sequence[str]) -> str:
    """One fact in words: "2 x dog", "at least 3 x person", "no car", "dog left of cat", "more dog than cat"."""
    if isinstance(fact, Count):
        return _count_text(fact, classes[fact.label])
    if isinstance(fact, Comparison):
        word, than = ("as many", "as") if fact.word == EQUAL else (fact.word, "than")
        return f"{word} {classes[fact.label]} {than} {classes[fact.other]}"
    subject, other = classes[fact.subject], classes[fact.other]
    if fact.second is not None:
        return f"{subject} between {other} and {classes[fact.second]}"
    return f"{subject} {fact.word}{' of' if fact.word in (LEFT, RIGHT) else ''} {other}"


def _count_text(count: Count, name: str) -> str:
    if count.high == 0:
        return f"no {name}"
    if count.high is None:
        return f"at least {count.low} x {name}"
    return f"{count.low} x {name}" if count.low == count.high else f"{count.low} to {count.high} x {name}"


def kept(statements: Statements, layout: Layout) -> Tensor:
    """Which facts each of B layouts keeps, bool [B, F] in the order of `Statements.facts`."""
    if not statements.facts:
        return torch.zeros(len(layout.labels), 0, dtype=torch.bool, device=layout.labels.device)
    places = _Places(layout.labels, layout.boxes, layout.valid)
    return torch.stack([places.keep(fact) for fact in statements.facts], 1)


@dataclass
class _Places:
    """Numbers and centres of the objects of K layouts."""

    labels: Tensor
    boxes: Tensor
    valid: Tensor
    _fits: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.centres = self.boxes[..., :2] + self.boxes[..., 2:] / 2

    def keep(self, fact: Fact) -> Tensor:
        """bool [K]."""
        if isinstance(fact, Count):
            n = self._of(fact.label).sum(1)
            return (n >= fact.low) & (n <= (n if fact.high is None else fact.high))
        if isinstance(fact, Comparison):
            ours, theirs = self._of(fact.label).sum(1), self._of(fact.other).sum(1)
            return {MORE: ours > theirs, FEWER: ours < theirs, EQUAL: ours == theirs}[fact.word]
        if fact.second is not None:
            return self._between(fact)
        pairs = self._of(fact.subject)[:, :, None] & self._of(fact.other)[:, None] & self._fit(fact.word)
        return pairs.flatten(1).any(1)

    def _of(self, label: int) -> Tensor:
        return self.valid & (self.labels == label)

    def _fit(self, word: str) -> Tensor:
        """bool [K, R, R]: whether the first object is placed so relative to the second."""
        if not self._fits:
            x, y = (self.centres[:, :, None] - self.centres[:, None]).unbind(-1)
            across = x.abs() > y.abs()
            down = y.abs() > x.abs()
            self._fits = {LEFT: across & (x < 0), RIGHT: across & (x > 0), NEXT_TO: across}
            self._fits |= {ABOVE: down & (y < 0), BELOW: down & (y > 0)}
        return self._fits[word]

    def _between(self, relation: Relation) -> Tensor:
        """Whether one's centre lies between two others', along the axis on which those are farther apart."""
        assert relation.second is not None
        first, second = self.centres[:, :, None], self.centres[:, None]  # [K, R, 1, 2], [K, 1, R, 2]
        apart = (first - second).abs()
        axis = (apart[..., 1:] > apart[..., :1]).long()  # [K, R, R, 1]
        size = axis.shape[1]
        ends = [part.expand(-1, size, size, -1).gather(-1, axis).squeeze(-1) for part in (first, second)]
        middle = self.centres[:, :, None, None].expand(-1, -1, size, size, -1)
        place = middle.gather(-1, axis[:, None].expand(-1, size, -1, -1, -1)).squeeze(-1)  # [K, R, R, R]
        inside = (place > torch.minimum(*ends)[:, None]) & (place < torch.maximum(*ends)[:, None])
        ours, other, last = (self._of(label) for label in (relation.subject, relation.other, relation.second))
        return (inside & ours[:, :, None, None] & other[:, None, :, None] & last[:, None, None]).flatten(1).any(1)
