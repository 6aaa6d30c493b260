"""Which classes a caption names: class names, their plurals, and common other words for COCO's classes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from objgan.domain import Domain
from objgan.vocabulary import PAD, Vocabulary, tokenize

SYNONYMS: dict[str, tuple[str, ...]] = {
    "person": (
        *("man", "woman", "boy", "girl", "child", "kid", "baby", "lady", "guy", "player", "rider", "surfer", "skier"),
        *("snowboarder", "skateboarder", "batter", "pitcher", "catcher", "skater", "men", "women", "toddler", "adult"),
    ),
    "bicycle": ("bike",),
    "motorcycle": ("motorbike", "moped", "motor bike", "motor scooter", "scooter"),
    "airplane": ("plane", "aeroplane", "jet", "aircraft", "airliner", "jetliner"),
    "car": ("taxi", "cab", "automobile", "sedan", "hatchback", "limousine", "minivan", "suv"),
    "boat": ("ship", "sailboat", "canoe", "kayak", "ferry", "yacht", "rowboat", "gondola", "dinghy"),
    "traffic light": ("stoplight", "traffic signal", "stop light"),
    "fire hydrant": ("hydrant",),
    "bird": (
        *("gull", "seagull", "pigeon", "parrot", "duck", "goose", "owl", "sparrow", "pelican", "eagle", "hawk", "swan"),
        *("heron", "flamingo", "peacock", "penguin", "chicken", "hen", "rooster", "ostrich", "finch"),
    ),
    "cat": ("kitten", "kitty", "tabby", "siamese cat", "tomcat"),
    "dog": (
        *("puppy", "spaniel", "terrier", "poodle", "retriever", "labrador", "bulldog", "beagle", "dachshund", "collie"),
        *("greyhound", "corgi", "pug", "hound", "dalmatian", "chihuahua", "rottweiler"),
    ),
    "horse": ("pony", "stallion", "mare", "foal", "colt"),
    "sheep": ("lamb", "ram", "ewe"),
    "cow": ("bull", "calf", "cattle", "heifer"),
    "bear": ("polar bear", "grizzly"),
    "handbag": ("purse",),
    "suitcase": ("luggage",),
    "backpack": ("rucksack", "knapsack"),
    "umbrella": ("parasol",),
    "tie": ("necktie",),
    "skis": ("ski",),
    "sports ball": ("ball", "soccer ball", "tennis ball", "football", "baseball"),
    "baseball bat": ("bat",),
    "baseball glove": ("mitt", "catcher mitt"),
    "tennis racket": ("racket", "racquet", "tennis racquet"),
    "surfboard": ("surf board",),
    "skateboard": ("skate board",),
    "wine glass": ("wineglass", "glass of wine"),
    "cup": ("mug", "teacup"),
    "donut": ("doughnut",),
    "hot dog": ("hotdog",),
    "couch": ("sofa", "loveseat", "settee"),
    "chair": ("armchair",),
    "potted plant": ("houseplant", "plant"),
    "dining table": ("table",),
    "tv": ("television", "tv monitor", "monitor", "computer monitor"),
    "cell phone": ("cellphone", "mobile phone", "smartphone", "phone", "iphone"),
    "refrigerator": ("fridge",),
    "hair drier": ("hair dryer", "hairdryer", "blow dryer"),
    "teddy bear": ("teddy", "stuffed bear", "stuffed animal"),
    "remote": ("remote control", "game controller", "wii controller", "wiimote"),
    "book": ("textbook", "cookbook", "booklet", "paperback"),
    "spoon": ("teaspoon", "tablespoon"),
    "sandwich": ("hamburger", "burger", "cheeseburger"),
    "microwave": ("microwave oven",),
    "toilet": ("toilet bowl", "urinal"),
    "laptop": ("laptop computer", "laptop keyboard"),
}
"""Only words that hardly ever mean anything else; used for classes that the data set has under exactly this name."""

NO_OBJECTS: tuple[str, ...] = ("baseball player", "baseball field", "baseball game", "football field", "bus stop")
"""Longer phrases that begin like a class or a synonym but do not name it; `person` is still found in the first."""

COLOUR = "orange"
"""A class of COCO that is more often a colour in captions: of 223 uses, 56 were of images with the fruit."""

_BEFORE_COLOUR = frozenset({"in", "wearing", "bright", "dark", "light", "red", "yellow", "white", "black"})
_FRUITS_WORDS = """slice slices half halves wedge wedges peel peels fruit fruits juice piece pieces segment segments
tree trees is are on in at with by of from that which sits sitting lying laying hanging growing next near beside"""
_AFTER_FRUIT = frozenset(_FRUITS_WORDS.split())

_IRREGULAR_PAIRS = """
person people man men woman women child children sheep sheep mouse mice knife knives goose geese calf calves
aircraft aircraft cattle cattle skis skis scissors scissors luggage luggage
"""
IRREGULAR = dict(zip(_IRREGULAR_PAIRS.split()[::2], _IRREGULAR_PAIRS.split()[1::2], strict=True))


_ALWAYS_PLURAL = frozenset({"men", "women", "people", "cattle", "skis", "scissors"})


def plural(word: str) -> str:
    """The plural of an English noun, most of the time: bus -> buses, puppy -> puppies, person -> people."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return word[:-1] + "ies"
    return word + "s"


class Phrase(NamedTuple):
    """tokens[start:stop] name class `label`.

    plural: whether more than one is named; None where both have one form (sheep)
    """

    start: int
    stop: int
    label: int
    plural: bool | None = False


class NamedClasses:
    """A matcher for one list of classes: the longest phrase first, so that a hot dog is no dog.

    synonyms: class -> further words, beside those of `SYNONYMS`
    language: of the captions (see `objgan.languages`)
    """

    def __init__(
        self, classes: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None, language: str = "en"
    ) -> None:
        self.classes, self.language = tuple(classes), language
        self.phrases: dict[tuple[str, ...], int | None] = {}
        self._plurals: set[tuple[str, ...]] = set()
        self._singulars: set[tuple[str, ...]] = set()
        for phrase in NO_OBJECTS:
            self.phrases[tuple(phrase.split())] = None
        for index, name in enumerate(classes):
            for synonym in (*SYNONYMS.get(name, ()), *(synonyms or {}).get(name, ())):
                self._add(synonym, index)
        for index, name in enumerate(classes):  # last: a class's own name wins over another's synonym
            self._add(name, index)
        self.longest = max(len(phrase) for phrase in self.phrases)

    @classmethod
    def of(cls, domain: Domain) -> Self:
        """The matcher for a domain's classes, in the language of its captions."""
        return cls(domain.classes, domain.synonyms, domain.vocabulary.language)

    def find(self, tokens: Sequence[str]) -> set[int]:
        """Indices of the classes that the caption's lower-case words name."""
        return {phrase.label for phrase in self.phrases_in(tokens)}

    def phrases_in(self, tokens: Sequence[str]) -> list[Phrase]:
        """Where the caption's lower-case words name a class, from the first to the last."""
        found: list[Phrase] = []
        start = 0
        while start < len(tokens):
            for length in range(min(self.longest, len(tokens) - start), 0, -1):
                phrase = tuple(tokens[start : start + length])
                if phrase in self.phrases:
                    colour = phrase == (COLOUR,) and not _is_fruit(tokens, start)
                    index = None if colour else self.phrases[phrase]
                    found += [] if index is None else [Phrase(start, start + length, index, self._is_plural(phrase))]
                    # Of a phrase that names nothing, only the first word is passed over.
                    start += 1 if index is None else length
                    break
            else:
                start += 1
        return found

    def _is_plural(self, phrase: tuple[str, ...]) -> bool | None:
        if phrase not in self._plurals:
            return False
        return None if phrase in self._singulars else True

    def _add(self, name: str, index: int) -> None:
        words = tokenize(name, self.language)
        if not words:
            return
        several = [(*words[:-1], plural(words[-1]))]
        if self.language == "en":  # what people, and benchmarks, write, too: buss, benchs, sheeps
            several.append((*words[:-1], words[-1] + "s"))
        if words[-1] not in _ALWAYS_PLURAL:
            self._singulars.add(tuple(words))
        for phrase in (tuple(words), *several):
            self.phrases[phrase] = index
        self._plurals.update(several)


def _is_fruit(tokens: Sequence[str], at: int) -> bool:
    """Whether "orange" at this place is no colour: "an orange on a table" and not "an orange cat", "in orange"."""
    before = tokens[at - 1] if at else ""
    return before not in _BEFORE_COLOUR and (at + 1 == len(tokens) or tokens[at + 1] in _AFTER_FRUIT)


def named_classes(words: Tensor, vocabulary: Vocabulary, matcher: NamedClasses) -> Tensor:
    """Word ids int64 [B, T] (0: padding) -> bool [B, C] on the same device: the classes that each caption names."""
    named = torch.zeros(len(words), len(matcher.classes), dtype=torch.bool)
    for row, ids in enumerate(words.tolist()):
        tokens = [vocabulary.words[index] for index in ids if index != PAD]
        named[row, sorted(matcher.find(tokens))] = True
    return named.to(words.device)
