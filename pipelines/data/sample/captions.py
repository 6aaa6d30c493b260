"""Captions of a scene, and the words that they are made of.

Every form is built from noun phrases (count, size, colour, noun), a relation that holds by the boxes, and the place.
A phrase may leave out a size or a colour, and now and then a caption leaves out a group; none says what is not there.
Of the words, the first of each tuple is the usual one and is chosen most often.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from numpy.random import Generator

from pipelines.data.sample.relations import Relation, relations
from pipelines.data.sample.scene import Group, Scene

_T = TypeVar("_T")

CAPTIONS = 5
_USUAL = 0.6
_MENTION_SIZE, _MENTION_COLOUR, _MENTION_SKY, _MENTION_VERB = 0.85, 0.9, 0.2, 0.6
_PARTIAL, _RELATE = 0.15, 0.7

Words = tuple[str, ...]

NOUNS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "person": (("person", "people"),),
    "car": (("car", "cars"),),
    "airplane": (("airplane", "airplanes"), ("plane", "planes")),
    "boat": (("boat", "boats"), ("sailboat", "sailboats")),
    "traffic light": (("traffic light", "traffic lights"), ("stoplight", "stoplights")),
    "stop sign": (("stop sign", "stop signs"),),
    "bench": (("bench", "benches"), ("park bench", "park benches")),
    "bird": (("bird", "birds"),),
    "dog": (("dog", "dogs"), ("puppy", "puppies")),
    "sheep": (("sheep", "sheep"),),
    "cow": (("cow", "cows"),),
    "umbrella": (("umbrella", "umbrellas"), ("parasol", "parasols")),
    "frisbee": (("frisbee", "frisbees"),),
    "sports ball": (("ball", "balls"), ("beach ball", "beach balls")),
    "kite": (("kite", "kites"),),
    "pizza": (("pizza", "pizzas"),),
    "clock": (("clock", "clocks"),),
}
"""Singular and plural."""

COUNTS: Mapping[int, Words] = {
    2: ("two", "a pair of", "a couple of"),
    3: ("three", "several", "some"),
    4: ("four", "several", "some"),
}
CROWDS: Mapping[str, Words] = {
    "person": ("a crowd of", "many", "lots of"),
    "sheep": ("a flock of", "many", "lots of"),
    "bird": ("a flock of", "many", "lots of"),
    "kite": ("a bunch of", "many", "lots of"),
}
SINGULAR_HEAPS: Words = ("a pair of", "a crowd of", "a flock of", "a bunch of")
"""Followed by "is"."""

SIZES: Mapping[str, Words] = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}

FLYING: Mapping[str, Words] = {
    "kite": ("flying", "floating", "soaring"),
    "bird": ("flying", "gliding", "soaring"),
    "airplane": ("flying",),
    "frisbee": ("flying", "floating"),
    "sports ball": ("flying", "floating"),
}
STANDING: Mapping[str, Words] = {
    "person": ("standing", "waiting", "posing"),
    "car": ("parked", "driving"),
    "boat": ("sailing", "floating"),
    "sheep": ("standing", "grazing"),
    "cow": ("standing", "grazing"),
    "dog": ("standing", "waiting"),
    "frisbee": ("lying", "resting"),
    "sports ball": ("lying", "resting"),
    "pizza": ("lying", "sitting"),
    "clock": ("standing", "sitting"),
    "bench": ("sitting", "standing"),
    "umbrella": ("standing", "sitting"),
}
HANGING: Words = ("hanging", "mounted")
MERELY_STANDING: Words = ("standing",)

ZONE_PLACES: Mapping[str, Words] = {
    "grass": ("on the grass", "in the grass", "in a field", "in a meadow", "in a grassy field"),
    "snow": ("in the snow", "on the snow", "on snowy ground", "in a snowy field"),
    "water": ("on the sea", "on the ocean", "on the water", "in the sea"),
    "sand": ("on the beach", "on the sand by the sea", "on a sandy beach", "on the beach by the ocean"),
    "pavement": ("on the sidewalk", "by the street", "on the side of the street"),
    "road": ("on the road", "on the street", "in the street"),
    "wall": ("on a building by the street", "on a wall over the street", "on a building in the city"),
}
SKY_PLACES: Mapping[str, Words] = {
    "grass": ("in the sky over a field", "over a field", "over the grass", "in the air over a meadow"),
    "sea": ("in the sky over the sea", "over the sea", "over the ocean", "in the air over the water"),
    "snow": ("in the sky over the snow", "over a snowy field", "over the snow", "in the air over snowy ground"),
    "street": ("in the sky over a street", "over the street", "over a city street", "in the air over the road"),
}
SCENE_PLACES: Mapping[str, Words] = {
    "grass": ("in a field", "in a grassy field", "in a meadow", "in a green field"),
    "sea": ("at the sea", "by the ocean", "by the sea", "by the water"),
    "snow": ("in the snow", "in a snowy field", "on a snowy day"),
    "street": ("on a street", "on a city street", "in the city", "along a road"),
}
BEACH_PLACES: Words = ("at the beach",)
SCENES: Mapping[str, Words] = {
    "grass": ("a field", "a grassy field", "a meadow", "a green field", "a field of grass"),
    "sea": ("the sea", "the ocean", "the water", "a calm sea"),
    "snow": ("a snowy field", "a field of snow", "a snowy landscape", "snowy ground"),
    "street": ("a city street", "a street", "a road", "a street in the city"),
}
SKIES: Mapping[str, Words] = {
    "blue": ("under a blue sky", "with a blue sky"),
    "cloudy": ("under a cloudy sky", "on a cloudy day", "under a gray sky"),
    "sunset": ("at sunset", "at dusk"),
}
RELATIONS: Mapping[str, Words] = {
    "above": ("above", "over", "high above"),
    "below": ("below", "under", "beneath"),
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "near": ("next to", "beside", "near"),
    "front": ("in front of",),
    "behind": ("behind",),
}
OPENINGS: Words = ("a picture of", "a photo of", "a view of", "an image of")
"""Before a noun phrase."""

EMPTINESS: Words = ("with nothing in it", "with nobody around", "with no one in sight", "without a single object")
"""After the name of a scene without objects."""


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
    named = [int(g) for g in rng.permutation(len(scene.groups))]
    if len(named) > 1 and rng.random() < _PARTIAL:
        named.pop()
    usable = [r for r in held if r.subject in named and r.other in named]
    if usable and rng.random() < _RELATE:
        text = speaker.relate(usable[rng.integers(len(usable))], named)
    else:
        text = speaker.alone(named[0]) if len(named) == 1 else speaker.enumerate(named)
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
            lambda: f"{self.pick(OPENINGS)} {phrase} {place}",
            lambda: f"{self.pick(SCENES[self.scene.background])} with {phrase}{self.maybe_verb(group)}",
        )
        return forms[self.rng.integers(len(forms))]()

    def relate(self, relation: Relation, named: list[int]) -> str:
        """A sentence around a relation of two groups, the others after it."""
        subject, other = self.scene.groups[relation.subject], self.scene.groups[relation.other]
        phrase, word = self.phrase(subject), self.pick(RELATIONS[relation.word])
        verb = self.maybe_verb(subject)
        if verb and self.rng.random() < 0.3:
            verb = f" {_be(phrase, subject)}{verb}"
        opening = ""
        if " is" not in verb and " are" not in verb and self.rng.random() < 0.25:
            opening = f"there {_be(phrase, subject)} " if self.rng.random() < 0.5 else f"{self.pick(OPENINGS)} "
        place = self.place(other) if self.rng.random() < 0.6 else self.surroundings([subject, other])
        text = f"{opening}{phrase}{verb} {word} {self.phrase(other)} {place}"
        rest = [self.scene.groups[g] for g in named if g not in (relation.subject, relation.other)]
        if rest:
            text += ", with " + _listing([self.phrase(g) + self.maybe_verb(g) for g in rest])
        return text

    def enumerate(self, named: list[int]) -> str:
        """A sentence that lists groups without relating them."""
        groups = [self.scene.groups[g] for g in named]
        phrases = [self.phrase(g) for g in groups]
        scene = self.scene
        forms: tuple[Callable[[], str], ...] = (
            lambda: f"{_listing(phrases)} {self.surroundings(groups)}",
            lambda: f"{self.pick(SCENES[scene.background])} with {_listing(phrases)}",
            lambda: f"there {_be(phrases[0], groups[0])} {_listing(phrases)} {self.surroundings(groups)}",
            lambda: f"{self.pick(OPENINGS)} {_listing(phrases)} {self.surroundings(groups)}",
            lambda: _listing([f"{p} {self.place(g)}" for p, g in zip(phrases, groups, strict=True)]),
        )
        return forms[self.rng.integers(len(forms))]()

    def emptiness(self) -> str:
        """A sentence about a background alone."""
        place = self.pick(SCENES[self.scene.background])
        if self.rng.random() < 0.4:
            return f"{self.pick(OPENINGS)} {place}{self.sky()}"
        sky = self.sky() if self.rng.random() < 0.4 else ""
        return f"{place} {self.pick(EMPTINESS)}{sky}"

    def phrase(self, group: Group) -> str:
        """Count, size, colour and noun."""
        noun = self.pick(NOUNS[group.kind])[group.count > 1]
        adjectives = []
        if group.size and self.rng.random() < _MENTION_SIZE:
            adjectives.append(self.pick(SIZES[group.size]))
        colour = group.colour if self.rng.random() < _MENTION_COLOUR else None
        if group.kind == "person" and colour:
            noun += self.clothes(colour, group.count > 1)
        elif colour:
            adjectives.append(colour)
        described = " ".join([*adjectives, noun])
        if group.count > 1:
            heaps = CROWDS[group.kind] if group.crowd else COUNTS[group.count]
            return f"{self.pick(heaps)} {described}"
        if self.rng.random() < 0.08:
            return f"one {described}"
        return f"{'an' if described[0] in 'aeiou' else 'a'} {described}"

    def clothes(self, colour: str, several: bool) -> str:
        shirt = f" in {colour} shirts" if several else f" in {'an' if colour[0] in 'aeiou' else 'a'} {colour} shirt"
        return self.pick((f" in {colour}", shirt, f" wearing {colour}"))

    def verb(self, group: Group) -> str:
        if group.zone == "sky":
            return self.pick(FLYING[group.kind])
        if group.zone == "wall":
            return self.pick(HANGING)
        # Nothing to graze on in the snow.
        choices = STANDING.get(group.kind, MERELY_STANDING)
        return self.pick(tuple(v for v in choices if v != "grazing" or group.zone == "grass"))

    def maybe_verb(self, group: Group) -> str:
        return f" {self.verb(group)}" if self.rng.random() < _MENTION_VERB else ""

    def place(self, group: Group) -> str:
        """Where the group is."""
        if group.zone == "sky":
            return self.pick(SKY_PLACES[self.scene.background])
        return self.pick(ZONE_PLACES[group.zone])

    def surroundings(self, groups: Sequence[Group]) -> str:
        """Where the groups are, taken together."""
        if all(group.zone == "sky" for group in groups):
            return self.place(groups[0])
        if self.scene.shore < 1 and self.rng.random() < 0.35:
            return self.pick(BEACH_PLACES)
        return self.pick(SCENE_PLACES[self.scene.background])

    def sky(self) -> str:
        return f" {self.pick(SKIES[self.scene.sky])}" if self.rng.random() < _MENTION_SKY else ""

    def pick(self, choices: Sequence[_T]) -> _T:
        """The first, the usual one, most often; else any of the others."""
        if len(choices) == 1 or self.rng.random() < _USUAL:
            return choices[0]
        return choices[1 + int(self.rng.integers(len(choices) - 1))]


def _be(phrase: str, group: Group) -> str:
    return "is" if group.count == 1 or phrase.startswith(SINGULAR_HEAPS) else "are"


def _listing(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
