"""Captions made from layouts: they state numbers, places, sizes and what is absent, and every statement is true.

Trained on beside the real captions, the box generator learns what numbers and words of place mean; COCO's captions
rarely say them. A caption is a list of words, as `objgan.vocabulary.tokenize` makes them.
"""

import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from objgan.batch import Sample
from objgan.caption_parser import NUMBER_WORDS, PAIRED
from objgan.domain import Domain
from objgan.metrics.named_classes import COLOUR, IRREGULAR, SYNONYMS, plural
from objgan.vocabulary import tokenize

_DIGITS = NUMBER_WORDS[:13]
_PLACES: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left of", "on the left side of"),
    "right": ("right of", "to the right of", "on the right of", "on the right side of"),
    "above": ("above", "over"),
    "on": ("on", "on top of"),
    "below": ("below", "under", "beneath", "underneath"),
    "next to": ("next to", "beside"),
}
_BEGINNINGS = ("", "", "", "a scene with", "a view of", "we can see", "it shows", "this is", "a close look at")
_JOINTS = ("and", "and", "with", "plus", "as well as", "along with")
_VERBS = ("", "", "", "is", "can be seen", "placed", "located", "positioned")
_OTHERS = """
a an single are there is we see between on the left right side many as more fewer than no without any but several some
couple of pair dozen large big small little
"""
_LARGE, _SMALL = 0.2, 0.02  # area of the picture from, or up to which an object is called large, or small
_CLEAR = 1.2  # ratio of the two distances from which a relation is clear
_SYNONYM_SHARE = 0.25
_MOVED = 0.6
"""Share of stated captions whose objects are moved: a small data set's layouts are learned by heart, without a word."""


def stated_words(classes: Sequence[str], synonyms: Mapping[str, Sequence[str]]) -> list[str]:
    """Every word that captions made from layouts of these classes may have, sorted; for the vocabulary."""
    texts = [*_BEGINNINGS, *_JOINTS, *_VERBS, _OTHERS, *_DIGITS, *map(str, range(len(_DIGITS)))]
    texts += [text for phrases in _PLACES.values() for text in phrases]
    nouns = [noun for name in classes for noun in _nouns(name, synonyms)]
    return sorted({word for text in texts for word in text.split()} | {w for n in nouns for w in (*n.one, *n.several)})


@dataclass(frozen=True)
class _Noun:
    """One way to name a class: its words for one object, and for several."""

    one: tuple[str, ...]
    several: tuple[str, ...]


@dataclass(frozen=True)
class _Scene:
    """labels [n], xywh boxes [n, 4], how many there are of each class; complete: no object was left out."""

    labels: Sequence[int]
    boxes: np.ndarray
    counts: Counter[int]
    complete: bool


class StatedCaptions:
    """Writes captions for layouts of these classes, in English."""

    def __init__(
        self,
        classes: Sequence[str],
        synonyms: Mapping[str, Sequence[str]] | None,
        longest: int,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        """Of captions of at most `longest` words.

        synonyms:     class -> other words for it, beside `named_classes.SYNONYMS`; None: only the classes' own names,
                      because a person, for example, is not always a man
        class_counts: how often each class occurs, so that captions deny frequent classes; None: all alike
        """
        self._nouns = [_nouns(name, synonyms) for name in classes]
        self._longest = longest
        counts = np.ones(len(classes)) if class_counts is None else np.array(class_counts, float)
        self._shares = (counts / max(1.0, counts.sum())).tolist()
        self._paired = {index for index, name in enumerate(classes) if name in PAIRED}
        # "An orange and" reads as a colour.
        self._colours = {index for index, name in enumerate(classes) if name == COLOUR}

    @classmethod
    def of(cls, domain: Domain, longest: int) -> Self:
        """For the layouts of a domain."""
        return cls(domain.classes, domain.synonyms, longest, domain.statistics.class_counts)

    def write(self, labels: Sequence[int], boxes: np.ndarray, complete: bool, draw: random.Random) -> list[str]:
        """A caption of at most `longest` words; empty where there is no object.

        labels:   class of each of n objects
        boxes:    xywh fractions [n, 4]
        complete: these are all objects of the picture; otherwise no number above one is stated exactly
        """
        if not len(labels):
            return []
        scene = _Scene(labels, boxes, Counter(labels), complete)
        forms: list[tuple[float, Callable[[_Scene, random.Random], list[str]]]] = [
            (5, self._numbers),
            (10, self._relation),
            (1, self._between),
            (1, self._sides),
            (1, self._comparison),
            (1, self._absence),
        ]
        weights, functions = zip(*forms, strict=True)
        for form in draw.choices(functions, weights, k=4):
            words: list[str] = form(scene, draw)
            if words and len(words) <= self._longest:
                return words
        return self._numbers(scene, draw, 1)[: self._longest]

    def write_place(self, labels: Sequence[int], boxes: np.ndarray, complete: bool, draw: random.Random) -> list[str]:
        """As `write`, but a caption that states a place; empty where none is clear."""
        scene = _Scene(labels, boxes, Counter(labels), complete)
        for form in draw.choices((self._relation, self._sides, self._between), (6, 1, 1), k=3):
            words: list[str] = form(scene, draw)
            if words and len(words) <= self._longest:
                return words
        return []

    def _numbers(self, scene: _Scene, draw: random.Random, most: int = 3) -> list[str]:
        """ "Two dogs and a large cat"."""
        classes = draw.sample(sorted(scene.counts), min(len(scene.counts), draw.randint(1, most)))
        words = draw.choice(_BEGINNINGS).split()
        for number, label in enumerate(classes):
            if number:
                words += draw.choice(_JOINTS).split()
            words += self._phrase(scene, label, draw)
        return words

    def _relation(self, scene: _Scene, draw: random.Random) -> list[str]:
        """ "Two dogs to the left of a cat", "below a kite is a person"."""
        pair = self._pair(scene, draw)
        if pair is None:
            return []
        subject, place, other = pair
        phrase, words = draw.choice(_PLACES[place]).split(), self._phrase(scene, subject, draw)
        behind = self._phrase(scene, other, draw)
        several = scene.counts[subject] > 1
        if draw.random() < 0.15:
            return [*phrase, *behind, *draw.choice(("is", "there is", "we see")).split(), *words]
        verb = draw.choice(_VERBS).replace("is", "are" if several else "is").split()
        return [
            *draw.choice(("", "", "a view of")).split(),
            *words,
            *verb,
            *phrase,
            *behind,
            *self._more(scene, pair, draw),
        ]

    def _more(self, scene: _Scene, pair: tuple[int, str, int], draw: random.Random) -> list[str]:
        """Now and then a number of a third class."""
        if pair[2] in self._colours:
            return []
        rest = sorted(scene.counts.keys() - {pair[0], pair[2]})
        return ["and", *self._phrase(scene, draw.choice(rest), draw)] if rest and draw.random() < 0.2 else []

    def _between(self, scene: _Scene, draw: random.Random) -> list[str]:
        """ "A cup between a fork and a spoon", "a dog between two cats"."""
        centres = _centres(scene)
        for middle, one, other in _some(itertools.permutations(range(len(centres)), 3), draw):
            labels = [scene.labels[index] for index in (middle, one, other)]
            apart = np.abs(centres[one] - centres[other])
            axis = int(apart[1] > apart[0])
            low, high = sorted((centres[one][axis], centres[other][axis]))
            inside = low + 0.2 * (high - low) < centres[middle][axis] < high - 0.2 * (high - low)
            if not inside or labels[0] in labels[1:] or scene.counts[labels[0]] > 1 or labels[1] in self._colours:
                continue
            ends = [self._phrase(scene, label, draw) for label in dict.fromkeys(labels[1:])]
            if len(ends) == 1 and scene.counts[labels[1]] != 2:
                continue
            return [
                *self._phrase(scene, labels[0], draw),
                "between",
                *ends[0],
                *(["and", *ends[1]] if ends[1:] else []),
            ]
        return []

    def _sides(self, scene: _Scene, draw: random.Random) -> list[str]:
        """ "A dog on the left and a cat on the right"."""
        pair = self._pair(scene, draw)
        if pair is None or pair[1] not in ("left", "right"):
            return []
        subject, place, other = pair
        across = {"left": "right", "right": "left"}[place]
        side = draw.choice(("", "side")).split()
        first = [*self._phrase(scene, subject, draw), "on", "the", place, *side]
        return [*first, "and", *self._phrase(scene, other, draw), "on", "the", across, *side]

    def _comparison(self, scene: _Scene, draw: random.Random) -> list[str]:
        """ "More dogs than cats"."""
        if len(scene.counts) < 2 or not scene.complete:
            return []
        one, other = draw.sample(sorted(scene.counts), 2)
        names = [self._noun(label, draw).several for label in (one, other)]
        more = scene.counts[one] - scene.counts[other]
        word, than = ("as many", "as") if not more else ("more" if more > 0 else "fewer", "than")
        return [*draw.choice(_BEGINNINGS).split(), *word.split(), *names[0], than, *names[1]]

    def _absence(self, scene: _Scene, draw: random.Random) -> list[str]:
        """ "Two dogs but no cat"."""
        absent = draw.choices(range(len(self._shares)), self._shares)[0] if sum(self._shares) else 0
        if absent in scene.counts or not scene.complete:
            return []
        noun = self._noun(absent, draw)
        how = draw.choice(
            (("no", noun.one), ("no", noun.several), ("without a", noun.one), ("without any", noun.several))
        )
        words = self._phrase(scene, draw.choice(sorted(scene.counts)), draw)
        joint = [] if how[0].startswith("without") else [draw.choice(("and", "but", "with"))]
        return [*words, *joint, *_articled(how[0].split(), how[1])]

    def _pair(self, scene: _Scene, draw: random.Random) -> tuple[int, str, int] | None:
        """Two classes and where every object of the first is, relative to all of the second."""
        classes = sorted(scene.counts)
        for one, other in _some(itertools.permutations(classes, 2), draw):
            places = {
                _place(scene.boxes[i], scene.boxes[j]) for i, j in itertools.product(_of(scene, one), _of(scene, other))
            }
            if len(places) == 1 and (place := places.pop()) is not None:
                beside = place in ("left", "right") and draw.random() < 0.5
                return one, "next to" if beside else place, other
        return None

    def _phrase(self, scene: _Scene, label: int, draw: random.Random) -> list[str]:
        """ "A small dog", "3 dogs", "several dogs"."""
        count, noun = scene.counts[label], self._noun(label, draw)
        if not scene.complete and count > 1:
            return [draw.choice(("several", "many", "some") if count > 2 else ("some",)), *noun.several]
        if count == 1:
            return self._single(scene, label, noun, draw)
        if count >= 3 and draw.random() < 0.1:
            return ["several", *noun.several]
        if label not in self._paired and count == 2 and draw.random() < 0.25:
            return [*draw.choice(("a couple of", "a pair of")).split(), *noun.several]
        if count == 12 and draw.random() < 0.5:
            return ["a", "dozen", *noun.several]
        digits = count >= len(_DIGITS) or draw.random() < 0.25
        return [str(count) if digits else _DIGITS[count], *noun.several]

    def _single(self, scene: _Scene, label: int, noun: _Noun, draw: random.Random) -> list[str]:
        (index,) = _of(scene, label)
        area = float(scene.boxes[index][2:].prod())
        size = "large" if area >= _LARGE else "small" if area <= _SMALL else ""
        adjective = [draw.choice({"large": ("large", "big"), "small": ("small", "little")}[size])] if size else []
        words = [*(adjective if draw.random() < 0.3 else []), *noun.one]
        if label in self._paired and noun.one == noun.several:
            return ["a", "pair", "of", *words] if draw.random() < 0.5 else words
        return _articled([draw.choice(("a", "a", "a", "one", "a single"))], words)

    def _noun(self, label: int, draw: random.Random) -> _Noun:
        nouns = self._nouns[label]
        return nouns[0] if len(nouns) == 1 or draw.random() > _SYNONYM_SHARE else draw.choice(nouns[1:])


class StatedWords:
    """Puts stated captions in the place of a share of the captions, drawn from (seed, epoch, image).

    In samples without pixels and masks, objects are moved for some of them, where `moves`.
    """

    def __init__(self, domain: Domain, longest: int, share: float, moves: bool = True) -> None:
        self._moves = moves
        self._captions, self._vocabulary, self._share = StatedCaptions.of(domain, longest), domain.vocabulary, share

    def replace(self, sample: Sample, complete: bool, seed: int, epoch: int) -> Sample:
        """The sample, or the same with the words (and places) of a stated caption.

        complete: no object was left out of it
        """
        draw = random.Random(f"{seed} {epoch} {sample.image_id}")
        if draw.random() >= self._share or not len(sample.labels):
            return sample
        labels, boxes = sample.labels.tolist(), sample.boxes
        if self._moves and draw.random() < _MOVED and sample.masks is None and sample.image is None:
            moved = rearranged(boxes, draw)
            tokens = self._captions.write_place(labels, moved, complete, draw)
            if tokens:
                words = self._vocabulary.encode_tokens(tokens)
                return dataclasses.replace(sample, words=words, boxes=moved)
        tokens = self._captions.write(labels, boxes, complete, draw)
        return dataclasses.replace(sample, words=self._vocabulary.encode_tokens(tokens))


def rearranged(boxes: np.ndarray, draw: random.Random) -> np.ndarray:
    """The same boxes [n, 4] at places of chance, each as a whole within the picture."""
    chance = np.array([[draw.random(), draw.random()] for _ in boxes])
    return np.concatenate([chance * (1 - boxes[:, 2:]), boxes[:, 2:]], 1).astype(boxes.dtype)


def _nouns(name: str, synonyms: Mapping[str, Sequence[str]] | None) -> list[_Noun]:
    """The class's own name first."""
    nouns, others = [], () if synonyms is None else (*SYNONYMS.get(name, ()), *synonyms.get(name, ()))
    for text in (name, *others):
        words = tuple(tokenize(text))
        if words and (text == name or words[-1] not in IRREGULAR.values()):
            nouns.append(_Noun(words, (*words[:-1], plural(words[-1]))))
    return nouns or [_Noun(("thing",), ("things",))]


def _articled(before: list[str], words: Sequence[str]) -> list[str]:
    """ "a" becomes "an" before a vowel."""
    if before[-1:] == ["a"] and words[0][:1] in "aeiou":
        before = [*before[:-1], "an"]
    return [*" ".join(before).split(), *words]


def _of(scene: _Scene, label: int) -> list[int]:
    return [index for index, other in enumerate(scene.labels) if other == label]


def _centres(scene: _Scene) -> np.ndarray:
    return scene.boxes[:, :2] + scene.boxes[:, 2:] / 2


def _place(one: np.ndarray, other: np.ndarray) -> str | None:
    """Where a box (x, y, w, h) is, relative to another; None: not clear. "on": above, and the two touch."""
    across, down = (one[:2] + one[2:] / 2 - other[:2] - other[2:] / 2).tolist()
    if abs(across) > _CLEAR * abs(down):
        return "left" if across < 0 else "right"
    if abs(down) > _CLEAR * abs(across):
        touching = down < 0 and one[1] + one[3] >= other[1]
        return "below" if down > 0 else "on" if touching else "above"
    return None


def _some(
    choices: "itertools.permutations[tuple[int, ...]]", draw: random.Random, most: int = 40
) -> list[tuple[int, ...]]:
    """A few of them, in an order of chance."""
    found = list(itertools.islice(choices, 400))
    return draw.sample(found, min(most, len(found)))
