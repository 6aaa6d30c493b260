"""Sentences that are true of a scene, in varied words.

Every form is built from noun phrases (count, size, colour, noun), a relation that holds by the boxes, and the place.
A phrase may leave out a size or a colour, and now and then a caption leaves out a group; none says what is not there.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from numpy.random import Generator

from pipelines.data.sample import words
from pipelines.data.sample.relations import Relation, relations
from pipelines.data.sample.scene import Group, Scene

_T = TypeVar("_T")

CAPTIONS = 5
_USUAL = 0.6
_MENTION_SIZE, _MENTION_COLOUR, _MENTION_SKY, _MENTION_VERB = 0.85, 0.9, 0.2, 0.6
_PARTIAL, _RELATE = 0.15, 0.7


def describe(scene: Scene, rng: Generator) -> list[str]:
    """Five different captions of the scene."""
    held = relations(scene)
    captions: dict[str, None] = {}
    while len(captions) < CAPTIONS:
        captions[_caption(scene, held, rng)] = None
    return list(captions)


def _caption(scene: Scene, held: Sequence[Relation], rng: Generator) -> str:
    speaker = _Speaker(scene, rng)
    if not scene.groups:
        return _sentence(speaker.emptiness())
    told = [int(g) for g in rng.permutation(len(scene.groups))]
    if len(told) > 1 and rng.random() < _PARTIAL:
        told.pop()
    usable = [r for r in held if r.subject in told and r.other in told]
    if usable and rng.random() < _RELATE:
        text = speaker.relate(usable[rng.integers(len(usable))], told)
    else:
        text = speaker.alone(told[0]) if len(told) == 1 else speaker.enumerate(told)
    return _sentence(text + speaker.sky())


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


class _Speaker:
    """Phrases about one scene; every call may choose other words."""

    def __init__(self, scene: Scene, rng: Generator) -> None:
        self.scene, self.rng = scene, rng

    def alone(self, number: int) -> str:
        """A sentence about one group."""
        group = self.scene.groups[number]
        phrase, verb, place = self.phrase(group), self.verb(group), self.place(group)
        forms: tuple[Callable[[], str], ...] = (
            lambda: f"{phrase} {verb} {place}",
            lambda: f"{phrase} {_be(phrase, group)} {verb} {place}",
            lambda: f"there {_be(phrase, group)} {phrase} {place}",
            lambda: f"{self.pick(words.OPENINGS)} {phrase} {place}",
            lambda: f"{self.pick(words.SCENES[self.scene.background])} with {phrase}{self.maybe_verb(group)}",
        )
        return forms[self.rng.integers(len(forms))]()

    def relate(self, relation: Relation, told: list[int]) -> str:
        """A sentence around a relation of two groups, the others after it."""
        subject, other = self.scene.groups[relation.subject], self.scene.groups[relation.other]
        phrase, word = self.phrase(subject), self.pick(words.RELATIONS[relation.word])
        verb = self.maybe_verb(subject)
        if verb and self.rng.random() < 0.3:
            verb = f" {_be(phrase, subject)}{verb}"
        opening = ""
        if " is" not in verb and " are" not in verb and self.rng.random() < 0.25:
            opening = f"there {_be(phrase, subject)} " if self.rng.random() < 0.5 else f"{self.pick(words.OPENINGS)} "
        place = self.place(other) if self.rng.random() < 0.6 else self.surroundings([subject, other])
        text = f"{opening}{phrase}{verb} {word} {self.phrase(other)} {place}"
        rest = [self.scene.groups[g] for g in told if g not in (relation.subject, relation.other)]
        if rest:
            text += ", with " + _listing([self.phrase(g) + self.maybe_verb(g) for g in rest])
        return text

    def enumerate(self, told: list[int]) -> str:
        """A sentence that lists groups without relating them."""
        groups = [self.scene.groups[g] for g in told]
        phrases = [self.phrase(g) for g in groups]
        scene = self.scene
        forms: tuple[Callable[[], str], ...] = (
            lambda: f"{_listing(phrases)} {self.surroundings(groups)}",
            lambda: f"{self.pick(words.SCENES[scene.background])} with {_listing(phrases)}",
            lambda: f"there {_be(phrases[0], groups[0])} {_listing(phrases)} {self.surroundings(groups)}",
            lambda: f"{self.pick(words.OPENINGS)} {_listing(phrases)} {self.surroundings(groups)}",
            lambda: _listing([f"{p} {self.place(g)}" for p, g in zip(phrases, groups, strict=True)]),
        )
        return forms[self.rng.integers(len(forms))]()

    def emptiness(self) -> str:
        """A sentence about a background alone."""
        place = self.pick(words.SCENES[self.scene.background])
        if self.rng.random() < 0.4:
            return f"{self.pick(words.OPENINGS)} {place}{self.sky()}"
        sky = self.sky() if self.rng.random() < 0.4 else ""
        return f"{place} {self.pick(words.EMPTINESS)}{sky}"

    def phrase(self, group: Group) -> str:
        """Count, size, colour and noun."""
        noun = self.pick(words.NOUNS[group.kind])[group.count > 1]
        adjectives = []
        if group.size and self.rng.random() < _MENTION_SIZE:
            adjectives.append(self.pick(words.SIZES[group.size]))
        colour = group.colour if self.rng.random() < _MENTION_COLOUR else None
        if group.kind == "person" and colour:
            noun += self.clothes(colour, group.count > 1)
        elif colour:
            adjectives.append(colour)
        described = " ".join([*adjectives, noun])
        if group.count > 1:
            heaps = words.CROWDS[group.kind] if group.crowd else words.COUNTS[group.count]
            return f"{self.pick(heaps)} {described}"
        if self.rng.random() < 0.08:
            return f"one {described}"
        return f"{'an' if described[0] in 'aeiou' else 'a'} {described}"

    def clothes(self, colour: str, several: bool) -> str:
        shirt = f" in {colour} shirts" if several else f" in {'an' if colour[0] in 'aeiou' else 'a'} {colour} shirt"
        return self.pick((f" in {colour}", shirt, f" wearing {colour}"))

    def verb(self, group: Group) -> str:
        if group.zone == "sky":
            return self.pick(words.FLYING[group.kind])
        if group.zone == "wall":
            return self.pick(words.HANGING)
        # Nothing to graze on in the snow.
        choices = words.STANDING.get(group.kind, words.MERELY_STANDING)
        return self.pick(tuple(v for v in choices if v != "grazing" or group.zone == "grass"))

    def maybe_verb(self, group: Group) -> str:
        return f" {self.verb(group)}" if self.rng.random() < _MENTION_VERB else ""

    def place(self, group: Group) -> str:
        """Where the group is."""
        if group.zone == "sky":
            return self.pick(words.SKY_PLACES[self.scene.background])
        return self.pick(words.ZONE_PLACES[group.zone])

    def surroundings(self, groups: Sequence[Group]) -> str:
        """Where the groups are, taken together."""
        if all(group.zone == "sky" for group in groups):
            return self.place(groups[0])
        if self.scene.shore < 1 and self.rng.random() < 0.35:
            return self.pick(words.BEACH_PLACES)
        return self.pick(words.SCENE_PLACES[self.scene.background])

    def sky(self) -> str:
        return f" {self.pick(words.SKIES[self.scene.sky])}" if self.rng.random() < _MENTION_SKY else ""

    def pick(self, choices: Sequence[_T]) -> _T:
        """The first, the usual one, most often; else any of the others."""
        if len(choices) == 1 or self.rng.random() < _USUAL:
            return choices[0]
        return choices[1 + int(self.rng.integers(len(choices) - 1))]


def _be(phrase: str, group: Group) -> str:
    return "is" if group.count == 1 or phrase.startswith(words.SINGULAR_HEAPS) else "are"


def _listing(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
