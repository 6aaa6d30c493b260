"""What captions state, word for word."""

import pytest

from objgan.caption_parser import read_statements
from objgan.metrics.named_classes import NamedClasses
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
    Relation,
    Statements,
)  # fmt: skip
from objgan.vocabulary import tokenize

CLASSES = (
    *("person", "dog", "cat", "sheep", "pizza", "skis", "scissors", "dining table", "bottle", "couch", "traffic light"),
    *("orange", "bench", "hot dog", "tie", "bus"),
)
PERSON, DOG, CAT, SHEEP, PIZZA, SKIS, SCISSORS, TABLE, BOTTLE, COUCH, LIGHT, ORANGE, BENCH, HOT_DOG, TIE, BUS = range(
    16
)
MATCHER = NamedClasses(CLASSES)


def read(caption: str) -> Statements:
    return read_statements(tokenize(caption), MATCHER)


def counts(caption: str) -> dict[int, tuple[int, int | None]]:
    return {count.label: (count.low, count.high) for count in read(caption).counts}


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Three white sheep graze.", {SHEEP: (3, 3)}),
        ("3 sheep", {SHEEP: (3, 3)}),
        ("sheep on a hill", {SHEEP: (1, None)}),
        ("A small brown dog", {DOG: (1, 1)}),
        ("Dog in the snow", {DOG: (1, 1)}),
        ("dogs in the snow", {DOG: (2, None)}),
        ("the dog and the cats", {DOG: (1, 1), CAT: (2, None)}),
        ("A couple of dogs", {DOG: (2, 2)}),
        ("a pair of very old cats", {CAT: (2, 2)}),
        ("two pairs of cats", {CAT: (4, 4)}),
        ("a pair of scissors and two pairs of skis", {SCISSORS: (1, 1), SKIS: (2, 2)}),
        ("a dozen bottles, half a dozen cats and two dozen sheep", {BOTTLE: (12, 12), CAT: (6, 6), SHEEP: (24, 24)}),
        ("several dogs, a few cats and some people", {DOG: (3, None), CAT: (2, 5), PERSON: (2, None)}),
        ("a herd of sheep and a group of four dogs", {SHEEP: (3, None), DOG: (4, 4)}),
        ("two slices of pizza", {PIZZA: (2, 2)}),
        ("a plate with pizza", {PIZZA: (1, None)}),
        ("a photo of two dogs", {DOG: (2, 2)}),
        ("a photo of dogs", {DOG: (2, None)}),
        ("at least two dogs and at most three cats", {DOG: (2, None), CAT: (1, 3)}),
        ("more than two dogs, fewer than three cats", {DOG: (3, None), CAT: (1, 2)}),
        ("A dog lies beside another dog.", {DOG: (2, 2)}),
        ("a man and a woman", {PERSON: (2, 2)}),
        ("Two dogs play; the dogs are wet and both dogs bark.", {DOG: (2, 2)}),
        ("two of the three cats", {CAT: (3, 3)}),
        ("a cat's tail", {CAT: (1, 1)}),
        ("two men walk dogs", {PERSON: (2, 2), DOG: (2, None)}),
        ("two hot dogs", {HOT_DOG: (2, 2)}),
        ("two buss and four benchs", {BUS: (2, 2), BENCH: (4, 4)}),
        ("a dog house at a bus station", {}),
        ("an orange cat", {CAT: (1, 1)}),
        ("a sunset over the sea", {}),
        ("", {}),
    ],
)
def test_numbers(caption: str, expected: dict[int, tuple[int, int | None]]) -> None:
    assert counts(caption) == expected


@pytest.mark.parametrize(
    ("caption", "absent"),
    [
        ("no dog", {DOG}),
        ("a street without a dog", {DOG}),
        ("without any dogs or cats", {DOG, CAT}),
        ("there isn't a dog", {DOG}),
        ("a man not wearing a tie", {TIE}),
        ("zero cats", {CAT}),
        ("a couch with no cats and a dog", {CAT}),
    ],
)
def test_negations(caption: str, absent: set[int]) -> None:
    assert {label for label, bounds in counts(caption).items() if bounds == (0, 0)} == absent


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog to the left of a cat", (DOG, LEFT, CAT)),
        ("on the right side of the couch there is a dog", (DOG, RIGHT, COUCH)),
        ("a dog on the left and a cat on the right side", (DOG, LEFT, CAT)),
        ("a cat sleeping on top of a couch", (CAT, ABOVE, COUCH)),
        ("a cat on a blanket on a couch", (CAT, ABOVE, COUCH)),
        ("a cat on the arm of a couch", (CAT, ABOVE, COUCH)),
        ("a dog under a black and white cat", (DOG, BELOW, CAT)),
        ("a dog sits next to a bottle", (DOG, NEXT_TO, BOTTLE)),
        ("a dog and a cat next to each other", (CAT, NEXT_TO, DOG)),
        ("a bottle with a cat beside it", (CAT, NEXT_TO, BOTTLE)),
        ("a small dog and a cat stand next to each other", (CAT, NEXT_TO, DOG)),
        ("a dog next to a window with a cat", (DOG, NEXT_TO, CAT)),
        ("a dog lies next to a plate holding a bottle", (DOG, NEXT_TO, BOTTLE)),
        ("a dog next to a road and a small white cat", (DOG, NEXT_TO, CAT)),
        ("a bottle of milk and water next to a cat", (BOTTLE, NEXT_TO, CAT)),
        ("a dog sitting and waiting under a table", (DOG, BELOW, TABLE)),
        ("a cat in a blue tie next to a dog", (CAT, NEXT_TO, DOG)),
        ("a dog in a park and a cat next to a bottle", (CAT, NEXT_TO, BOTTLE)),
        ("a dog in front of a cat next to a bottle", (CAT, NEXT_TO, BOTTLE)),
        ("a cat to the left of itself", (CAT, LEFT, CAT)),
    ],
)
def test_relations(caption: str, expected: tuple[int, str, int]) -> None:
    assert read(caption).relations == (Relation(*expected),)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog between a cat and a bottle", Relation(DOG, BETWEEN, CAT, BOTTLE)),
        ("a dog between two cats", Relation(DOG, BETWEEN, CAT, CAT)),
    ],
)
def test_between(caption: str, expected: Relation) -> None:
    assert read(caption).relations == (expected,)


def test_what_is_joined_and_has_a_place_of_its_own_is_not_beside() -> None:
    assert read("a dog next to a road and a cat on a couch").relations == (Relation(CAT, ABOVE, COUCH),)


def test_what_lies_on_something_is_the_subject_of_what_follows() -> None:
    found = read("A cat on a table next to a bottle").relations
    assert found == (Relation(CAT, ABOVE, TABLE), Relation(CAT, NEXT_TO, BOTTLE))


@pytest.mark.parametrize(
    "caption",
    [
        *("a dog and a cat", "a dog near a cat", "a dog in front of a cat", "a dog with a ball and a hat on a cat"),
        *("a dog sits next to a road while a cat sleeps", "a dog on a road with a cat"),
        "a dog next to a road in front of a cat",
    ],
)
def test_no_relation(caption: str) -> None:
    assert read(caption).relations == ()


@pytest.mark.parametrize(
    ("caption", "comparison", "expected"),
    [
        ("more dogs than cats", Comparison(DOG, MORE, CAT), {DOG: (1, None), CAT: (1, None)}),
        ("two dogs and a few cats: more dogs than cats", Comparison(DOG, MORE, CAT), {DOG: (2, 2), CAT: (1, 1)}),
        ("three dogs and a few cats: fewer dogs than cats", Comparison(DOG, FEWER, CAT), {DOG: (3, 3), CAT: (4, 5)}),
        ("five dogs, with an equal number of cats", Comparison(DOG, EQUAL, CAT), {DOG: (5, 5), CAT: (5, 5)}),
        ("as many dogs as cats", Comparison(DOG, EQUAL, CAT), {DOG: (1, None), CAT: (1, None)}),
        (
            "two dogs and some cats where the number of dogs is smaller than that of cats",
            Comparison(DOG, FEWER, CAT),
            {DOG: (2, 2), CAT: (3, None)},
        ),
    ],
)
def test_comparisons(caption: str, comparison: Comparison, expected: dict[int, tuple[int, int | None]]) -> None:
    assert read(caption).comparisons == (comparison,)
    assert counts(caption) == expected


def test_captions_in_other_languages_state_nothing() -> None:
    german = NamedClasses(("Hund",), language="de")
    assert read_statements(["zwei", "hund", "left", "of"], german) == Statements()
