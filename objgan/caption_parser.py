"""Reads what a caption states about its picture, with closed word lists; it needs no model.

The words are those of `objgan.vocabulary.tokenize`. Only English captions state anything.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from objgan.metrics.named_classes import NamedClasses, Phrase
from objgan.statements import (
    ABOVE,
    BELOW,
    BETWEEN,
    EQUAL,
    FEWER,
    LEFT,
    MORE,
    NEXT_TO,
    RIGHT,
    Comparison,
    Count,
    Relation,
    Statements,
)

MANY = 3
"""The fewest objects of "several dogs", "a group of dogs", "many dogs"."""

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
NUMBER_WORDS = f"{_UNITS} seventeen eighteen nineteen twenty".split()
"""From zero."""
PAIRED = frozenset({"skis", "scissors"})
"""Classes of which "a pair" is one object."""
_NUMBERS = {word: value for value, word in enumerate(NUMBER_WORDS)}
_NUMBERS |= {"a": 1, "an": 1, "another": 1, "single": 1, "lone": 1, "both": 2, "dozen": 12, "thirty": 30, "forty": 40}
_VAGUE: dict[str, tuple[int, int | None]] = {
    "few": (2, 5),
    "some": (2, None),
    "several": (MANY, None),
    "many": (MANY, None),
    "multiple": (2, None),
    "numerous": (MANY, None),
    "various": (2, None),
    "dozens": (MANY, None),
    "hundreds": (MANY, None),
}
# "a group of dogs": nouns that stand for a number of what follows "of".
_GROUPS: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("couple", "pair"), (2, 2)),
    "dozen": (12, 12),
    "trio": (3, 3),
    **dict.fromkeys(("group", "herd", "flock", "bunch", "crowd", "pack", "row", "line", "lot", "lots"), (MANY, None)),
    **dict.fromkeys(("number", "collection", "array", "team", "plenty", "pile", "stack"), (MANY, None)),
}
_PARTS = frozenset({"slice", "slices", "piece", "pieces", "half", "halves"})  # "two slices of pizza" are two objects
_MASS = frozenset({"broccoli", "cake", "pizza"})  # "with cake" states no number
_NEGATIONS = frozenset({"no", "without", "not", "n't", "minus", "zero", "0", "neither"})
_DEFINITE = frozenset({"the", "its", "his", "her", "their", "this", "that", "these", "those", "my", "your", "our"})
_ANY = frozenset({"any", "a", "an", "single"})
# What ends the search for the number of a phrase: these words belong to no noun phrase.
_STOPS_TEXT = """
and or nor while as but is are was were be been being has have had with in on at by near next to of from for into
onto over under above below behind beside beneath between along together up down out off through across around that
which who there it he she they them than plus like who's where when then also sits sit stands stand lies lie lays lay
flies fly looks look holds hold rides ride
"""
_STOPS = frozenset(_STOPS_TEXT.split())
# "a dog house" holds no dog: nouns that make a class name before them part of another thing.
_HEADS_TEXT = """
station stations track tracks stop house houses food feeder feeders pan stand holder rack room spread lot park shop
store show race trailer dock paper server tree trees sculpture factory scratcher
"""
_HEADS = frozenset(_HEADS_TEXT.split())
_VERBS = frozenset({"stand", "park", "race", "show"})  # heads that are verbs where two subjects come before
_WORDS_BETWEEN = 4
_RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    ABOVE: ("above", "over", "on top of", "atop", "on"),
    BELOW: ("below", "under", "beneath", "underneath", "under neath"),
    LEFT: ("left of", "on the left of", "to the left of", "on the left side of", "to the left side of"),
    RIGHT: ("right of", "on the right of", "to the right of", "on the right side of", "to the right side of"),
    NEXT_TO: ("next to", "beside", "alongside", "adjacent to"),
    BETWEEN: ("between", "in between"),
}
"""Relation -> the phrases that state it. Others (near, behind, in front of, in) have no place in the picture plane."""
_PHRASES = {tuple(words.split()): relation for relation, all_ in _RELATION_PHRASES.items() for words in all_}
_LONGEST = max(map(len, _PHRASES))
_COPULAS = frozenset({"is", "are", "there", "sits", "sit", "stands", "stand", "lies", "lie", "stays"})
# What ends the search for the classes of a relation: behind these words another statement begins.
_BEFORE = frozenset({"and", "while", "as", "or"})
_AFTER = frozenset({"while", "as", "or", "with", "in", "at", "by", "near", "behind", "that", "who", "which"})
_ARTICLES = frozenset({"a", "an", "the", "its", "his", "her", "their"})  # but for the first, they begin another phrase
_MOST_BEFORE, _MOST_AFTER, _MOST_BESIDE = 9, 6, 8
_PRONOUNS = frozenset({"it", "them", "him", "her"})
_MUTUAL = (("each", "other"), ("one", "another"))
_PARTS_OF_PICTURE = frozenset({"left", "right", "side", "bottom", "sides"})  # "on the left"
_REFLEXIVE = frozenset({"itself", "themselves", "himself", "herself"})
_SIDES = re.compile(r"(?:on|at|to) (?:the|its) (left|right)(?: side| hand side)?(?! of| side of| hand side of)\b")
_COMPARISONS = (
    (
        r"number of (?:the )?<(\d+)> (?:is|are) (?:\w+ ){0,2}?(\w+) (?:than|to|as) "
        r"(?:that|those|the number) of <(\d+)>",
        0,
    ),
    (r"(more|fewer|less) (?:[\w-]+ ){0,2}?<(\d+)> than (?:[\w-]+ ){0,2}?<(\d+)>", 1),
    (r"(as many) (?:[\w-]+ ){0,2}?<(\d+)> as (?:[\w-]+ ){0,2}?<(\d+)>", 1),
    (r"((?:equal|same) number) of <(\d+)> (?:and|as) (?:[\w-]+ ){0,2}?<(\d+)>", 1),
    (r"<(\d+)> (?:[\w-]+ ){0,4}?((?:equal|same) number) of <(\d+)>", 0),
)
"""A pattern over the caption with its class phrases as <0>, <1>, ..., and whether the word comes before the first."""
_COMPARING = {
    **dict.fromkeys(("more", "greater", "larger", "bigger", "higher"), MORE),
    **dict.fromkeys(("less", "fewer", "smaller", "lower"), FEWER),
    **dict.fromkeys(("equal", "same", "as many", "equal number", "same number"), EQUAL),
}


def read_statements(tokens: Sequence[str], matcher: NamedClasses) -> Statements:
    """What the lower-case words of an English caption state; nothing in other languages."""
    if matcher.language != "en":
        return Statements()
    phrases = _object_phrases(tokens, matcher.phrases_in(tokens))
    if not phrases:
        return Statements()
    counts, absent = _counts(tokens, phrases, matcher)
    comparisons = _comparisons(tokens, phrases)
    for comparison in comparisons:
        _adjust(counts, comparison)
    present = [phrase for phrase in phrases if phrase.label in counts]
    relations = (*_relations(tokens, present), *_sides(tokens, present))
    missing = [Count(label, 0, 0) for label in absent]
    stated = [Count(label, low, high) for label, (low, high, _) in counts.items()]
    return Statements((*stated, *missing), comparisons, tuple(dict.fromkeys(relations)))


def _object_phrases(tokens: Sequence[str], phrases: Sequence[Phrase]) -> list[Phrase]:
    """Phrases that stand for objects: no "dog" of a "dog house", no "laptop" of a "laptop keyboard"."""
    starts = {phrase.start for phrase in phrases}
    objects, stop = [], 0
    for phrase in phrases:
        # "A dog and a cat stand next to each other", and not "a truck next to a hot dog stand".
        several = stop and "and" in tokens[stop : phrase.start] and phrase.start - stop <= _WORDS_BETWEEN
        head = next(iter(tokens[phrase.stop : phrase.stop + 1]), "")
        part = phrase.stop in starts or (head in _HEADS and not (several and head in _VERBS))
        stop = phrase.stop
        if phrase.plural or not part:
            objects.append(phrase)
    return objects


class _Number(NamedTuple):
    """What a phrase says of its number. exact: a number or an article; adds: to those that came before."""

    low: int
    high: int | None
    exact: bool = False
    adds: bool = False


_Bounds = tuple[int, int | None, bool]


def _counts(
    tokens: Sequence[str], phrases: Sequence[Phrase], matcher: NamedClasses
) -> tuple[dict[int, _Bounds], dict[int, None]]:
    """Bounds of each class that is present (the third: whether they are exact), and the classes that are absent."""
    counts: dict[int, _Bounds] = {}
    absent: dict[int, None] = {}
    stop, denied = 0, False
    for phrase in phrases:
        gap = tokens[stop : phrase.start]
        # "no dogs or cats": the negation goes on over "or".
        denied = denied and bool(gap) and gap[0] in ("or", "nor") and set(gap[1:]) <= _ANY
        number = None if denied else _number(tokens, phrase, stop, matcher.classes[phrase.label])
        stop, denied = phrase.stop, number is None
        if number is None:
            absent[phrase.label] = None
        elif phrase.label not in counts:
            counts[phrase.label] = number.low, number.high, number.exact
        elif number.adds:
            low, high, exact = counts[phrase.label]
            total = None if high is None or number.high is None else high + number.high
            counts[phrase.label] = low + number.low, total, exact and number.exact
    return counts, absent


def _number(tokens: Sequence[str], phrase: Phrase, first: int, name: str) -> _Number | None:
    """What stands before a phrase, at or after token `first`; None: a negation."""
    plural = phrase.plural
    for at in range(phrase.start - 1, max(first, phrase.start - 1 - _WORDS_BETWEEN) - 1, -1):
        word = tokens[at]
        if word in _NEGATIONS:
            return None
        if word in _DEFINITE:
            return _bare(plural, name)
        compared = word in ("many", "as") and tokens[at - 1 : at] != ["well"] and "as" in tokens[at - 1 : at + 1]
        if word in ("more", "fewer", "less", "than") or compared:
            return _Number(1, None)
        if word == "of":
            return _of_group(tokens, at, first, phrase, name)
        if word in _STOPS:
            break
        number = _spoken(tokens, at)
        if number is not None and not (word in ("a", "an") and plural):
            return None if _denied(tokens, at) else number
        if word in ("any", "a", "an"):
            return None if _denied(tokens, at) else _bare(plural, name)
    return _bare(plural, name)


def _bare(plural: bool | None, name: str) -> _Number:
    """A phrase without a number: "the dog", "dogs", "sheep"."""
    if plural:
        return _Number(1 if name in PAIRED else 2, None)
    return _Number(1, None) if plural is None or name in _MASS else _Number(1, 1)


def _spoken(tokens: Sequence[str], at: int) -> _Number | None:
    """The number that ends at a token: "three", "3", "two dozen", "at least two", "a few"; None: no number."""
    word = tokens[at]
    if word in _VAGUE:
        return _Number(*_VAGUE[word], adds=True)
    value = _NUMBERS.get(word) or (int(word) if word.isdecimal() and len(word) < 4 else None)
    if value is None:
        return None
    before = tokens[max(0, at - 2) : at]
    if word == "dozen" and before:
        value = 6 if "half" in before else 12 * (_NUMBERS.get(before[-1]) or 1)
    if before == ["at", "least"]:
        return _Number(value, None, adds=True)
    if before == ["more", "than"]:
        return _Number(value + 1, None, adds=True)
    if before in (["at", "most"], ["up", "to"]):
        return _Number(1, value, adds=True)
    if before in (["fewer", "than"], ["less", "than"]):
        return _Number(1, max(1, value - 1), adds=True)
    definite = word == "both" or (bool(before) and before[-1] in _DEFINITE)
    return _Number(value, value, exact=True, adds=not definite)


def _denied(tokens: Sequence[str], at: int) -> bool:
    """Whether a negation stands before a number: "without a car", "not wearing a tie"."""
    before = at - 1
    if before > 0 and tokens[before].endswith("ing"):
        before -= 1
    return before >= 0 and tokens[before] in _NEGATIONS


def _of_group(tokens: Sequence[str], of: int, first: int, phrase: Phrase, name: str) -> _Number | None:
    """The number of "a group of dogs", "two pairs of skis", "two slices of pizza"; of the noun before "of"."""
    noun = tokens[of - 1] if of > first else ""
    before = tokens[max(first, of - 3) : of - 1]
    if noun == "number" and not {"the", "equal", "same"}.isdisjoint(before):
        return _Number(1, None)  # of a comparison
    if noun in _PARTS:
        return _number(tokens, Phrase(of - 1, of, phrase.label, noun.endswith("s")), first, name)
    low, high = _GROUPS.get(noun) or _GROUPS.get(noun.removesuffix("s")) or (0, None)
    if not low:
        return _bare(phrase.plural, name)
    number = _spoken(tokens, of - 2) if of - 2 >= first else None
    times = number.low if number is not None and number.exact else 1
    if name in PAIRED and low == high:
        return _Number(times, times, exact=True, adds=True)
    return _Number(low * times, None if high is None else high * times, exact=high is not None, adds=True)


def _comparisons(tokens: Sequence[str], phrases: Sequence[Phrase]) -> tuple[Comparison, ...]:
    """Which classes come more often than others, in order and each once."""
    marked, at = [], 0
    for number, phrase in enumerate(phrases):
        marked += [*tokens[at : phrase.start], f"<{number}>"]
        at = phrase.stop
    text = " ".join([*marked, *tokens[at:]])
    found: dict[Comparison, None] = {}
    for pattern, word_first in _COMPARISONS:
        for match in re.finditer(pattern, text):
            one, two, other = match.groups()
            word, label = (one, two) if word_first else (two, one)
            ours, theirs = phrases[int(label)].label, phrases[int(other)].label
            if word in _COMPARING and ours != theirs:
                found[Comparison(ours, _COMPARING[word], theirs)] = None
    return tuple(found)


def _adjust(counts: dict[int, _Bounds], comparison: Comparison) -> None:
    """Move the vaguer of two numbers so that the comparison can hold: two dogs, more than a few cats: one cat."""
    if comparison.label not in counts or comparison.other not in counts:
        return
    label, word, other = comparison
    if counts[other][2] and not counts[label][2]:
        label, other = other, label
        word = {MORE: FEWER, FEWER: MORE, EQUAL: EQUAL}[word]
    (low, high, _), (least, most, exact) = counts[label], counts[other]
    if word == EQUAL:
        counts[other] = low, high, exact
    elif word == MORE and high is not None:
        most = max(0, high - 1) if most is None else min(most, max(0, high - 1))
        counts[other] = min(least, most), most, exact
    elif word == FEWER:
        least = max(least, low + 1)
        counts[other] = least, None if most is None else max(most, least), exact


class _Stated(NamedTuple):
    """tokens[start:stop] state a relation."""

    start: int
    stop: int
    word: str


def _relations(tokens: Sequence[str], phrases: Sequence[Phrase]) -> list[Relation]:
    """What stands where, in order: the class nearest before the words of a relation, and the nearest behind them.

    "A man in a red shirt stands to the left of two small white sheep". One that has a conjunction in between is passed
    over. Of "a cat on a table next to a bottle", the cat is next to the bottle.
    """
    stated = _stated(tokens)
    found: list[Relation] = []
    carriers: dict[Phrase, Phrase] = {}  # what lies below -> what lies on it
    for one in stated:
        subject = _before(one, tokens, phrases)
        if subject is not None and one.word == NEXT_TO:
            subject = _inside(carriers.get(subject, subject), tokens, phrases)
        others = _pointed(one, subject, tokens, phrases) or _after(one, tokens, phrases, stated)
        if not others:
            continue
        other = others[0]
        if subject is None:
            subject = _inverted(one, other, tokens, phrases)
        if subject is None:
            continue
        if one.word == BETWEEN:
            found += _between_of(subject, others, tokens)
            continue
        if one.word == ABOVE:
            carriers[other] = subject
        found.append(Relation(subject.label, one.word, other.label))
    return found


def _inside(holder: Phrase, tokens: Sequence[str], phrases: Sequence[Phrase]) -> Phrase:
    """The man of "a man in a tie", the cat of "a cat sitting in the refrigerator"; else the phrase itself."""
    before = [phrase for phrase in phrases if phrase.stop <= holder.start]
    gap = tokens[before[-1].stop : holder.start] if before else []
    apart = (_BEFORE | _AFTER | {"front"}) - {"in"}
    return before[-1] if "in" in gap and len(gap) <= _MOST_AFTER and apart.isdisjoint(gap) else holder


def _pointed(at: _Stated, subject: Phrase | None, tokens: Sequence[str], phrases: Sequence[Phrase]) -> list[Phrase]:
    """What a word right behind a relation points back to: "each other", "it", "itself"."""
    if subject is None:
        return []
    before = [phrase for phrase in phrases if phrase.stop <= subject.start]
    behind = tuple(tokens[at.stop : at.stop + 2])
    if behind in _MUTUAL:
        joined = before and "and" in tokens[before[-1].stop : subject.start]
        return before[-1:] if joined else [subject]
    if behind[:1] and behind[0] in _REFLEXIVE:
        return [subject]
    return before[-1:] if behind[:1] and behind[0] in _PRONOUNS else []


def _between_of(subject: Phrase, behind: Sequence[Phrase], tokens: Sequence[str]) -> list[Relation]:
    """ "Between a dog and a cat" needs both; "between two cats" has both in one."""
    first = behind[0]
    if len(behind) > 1 and "and" in tokens[first.stop : behind[1].start]:
        return [Relation(subject.label, BETWEEN, first.label, behind[1].label)]
    return [Relation(subject.label, BETWEEN, first.label, first.label)] if first.plural is not False else []


def _stated(tokens: Sequence[str]) -> list[_Stated]:
    """The phrases of relations, the longest at each place."""
    found, start = [], 0
    while start < len(tokens):
        for length in range(min(_LONGEST, len(tokens) - start), 0, -1):
            word = _PHRASES.get(tuple(tokens[start : start + length]))
            if word and not (
                tokens[start] == "on" and set(tokens[start + length : start + length + 2]) & _PARTS_OF_PICTURE
            ):
                found.append(_Stated(start, start + length, word))
                start += length
                break
        else:
            start += 1
    return found


def _before(at: _Stated, tokens: Sequence[str], phrases: Sequence[Phrase]) -> Phrase | None:
    """The phrase that ends nearest before a relation, None where another statement begins between."""
    ends = [phrase for phrase in phrases if phrase.stop <= at.start]
    if not ends:
        return None
    gap = tokens[ends[-1].stop : at.start]
    if "as" in gap and not {"it", "they"}.isdisjoint(gap):  # "a cat looks up as it sits next to a dog"
        gap = [word for word in gap if word != "as"]
    if gap[-2:-1] == ["and"]:  # "a bowl of nuts and fruit next to a cup", "a dog sitting and waiting next to a cat"
        gap = [*gap[:-2], gap[-1]]
    return ends[-1] if len(gap) <= _MOST_BEFORE and _BEFORE.isdisjoint(gap) else None


def _after(at: _Stated, tokens: Sequence[str], phrases: Sequence[Phrase], stated: Sequence[_Stated]) -> list[Phrase]:
    """The phrases behind a relation, the nearest first; none where something else stands between."""
    starts = [phrase for phrase in phrases if phrase.start >= at.stop]
    if not starts:
        return []
    gap = tokens[at.stop : starts[0].start]
    crossed = any(at.start < one.start < starts[0].start for one in stated)
    if at.word == NEXT_TO and not crossed and _is_beside(gap, starts[0], stated):
        return starts
    # "a white and gray cat" is one thing, "a fence and a cat" are two; "the hood of a car" is the car's.
    thing = gap[gap.index("of") + 1 :] if "of" in gap else gap
    joined = thing[thing.index("and") + 1 : thing.index("and") + 2] if "and" in thing else ["and"]
    two = not joined or joined[0] in _NUMBERS or joined[0].isdecimal() or not _ARTICLES.isdisjoint(thing[1:])
    return [] if len(gap) > _MOST_AFTER or crossed or two or not _AFTER.isdisjoint(gap) else starts


def _is_beside(gap: Sequence[str], other: Phrase, stated: Sequence[_Stated]) -> bool:
    """What is with a thing, in it or joined to it by "and" is beside what the thing is beside.

    "A dog next to a window with a cat", "next to a plate holding a cake", "next to a kiwi and a banana". Not "next to a
    fence and a cat on a chair", where the cat has a place of its own.
    """
    if len(gap) > _MOST_BESIDE or not ((_AFTER | {"front"}) - {"with", "in", "at"}).isdisjoint(gap):
        return False
    return "and" not in gap or not any(other.stop <= one.start < other.stop + _WORDS_BETWEEN for one in stated)


def _inverted(at: _Stated, other: Phrase, tokens: Sequence[str], phrases: Sequence[Phrase]) -> Phrase | None:
    """The subject of "to the left of the cat there is a dog"."""
    behind = [phrase for phrase in phrases if phrase.start >= other.stop]
    if at.start > 1 or not behind:
        return None
    gap = tokens[other.stop : behind[0].start]
    return behind[0] if len(gap) <= _MOST_AFTER + 1 and not _COPULAS.isdisjoint(gap) else None


def _sides(tokens: Sequence[str], phrases: Sequence[Phrase]) -> list[Relation]:
    """ "A dog on the left and a cat on the right": the one is left of the other."""
    places: dict[str, int] = {}
    starts = [0]
    for token in tokens:
        starts.append(starts[-1] + len(token) + 1)
    for match in _SIDES.finditer(" ".join(tokens)):
        start = starts.index(match.start()) if match.start() in starts else -1
        stop = next(index for index, place in enumerate(starts) if place > match.end() - 1)
        before = [phrase for phrase in phrases if phrase.stop <= start <= phrase.stop + _MOST_AFTER]
        behind = [phrase for phrase in phrases if stop <= phrase.start <= stop + _MOST_AFTER]
        copula = not _COPULAS.isdisjoint(tokens[stop : behind[0].start]) if behind else False
        if behind and (copula or not before):
            places.setdefault(match[1], behind[0].label)
        elif before:
            places.setdefault(match[1], before[-1].label)
    if len(places) < 2 or places[LEFT] == places[RIGHT]:
        return []
    return [Relation(places[LEFT], LEFT, places[RIGHT])]
