"""Facts in words, the bounds they set, and whether layouts keep them."""

import torch

from objgan.caption_parser import read_statements
from objgan.layout import Layout
from objgan.metrics.named_classes import NamedClasses
from objgan.statements import (
    ABOVE,
    BELOW,
    BETWEEN,
    EQUAL,
    LEFT,
    NEXT_TO,
    RIGHT,
    Comparison,
    Count,
    Relation,
    Statements,
    fact_text,
    kept,
)  # fmt: skip
from objgan.vocabulary import tokenize

CLASSES = ("dog", "cat", "sheep", "bottle")
DOG, CAT, SHEEP, _ = range(4)


def read(caption: str) -> Statements:
    return read_statements(tokenize(caption), NamedClasses(CLASSES))


def test_facts_in_words() -> None:
    stated = read("two dogs left of several cats and no sheep; more cats than bottles")
    texts = [fact_text(fact, CLASSES) for fact in stated.facts]
    assert {"at least 3 x cat", "no sheep", "dog left of cat", "more cat than bottle"} <= set(texts)
    assert fact_text(Relation(DOG, BETWEEN, CAT, CAT), CLASSES) == "dog between cat and cat"
    assert fact_text(Count(CAT, 2, 5), CLASSES) == "2 to 5 x cat"
    assert fact_text(Comparison(DOG, EQUAL, CAT), CLASSES) == "as many dog as cat"


def test_bounds_leave_room() -> None:
    low, high = read("40 sheep and a dog").bounds(len(CLASSES), 10)
    assert (low[SHEEP], high[SHEEP], low[DOG], high[DOG]) == (10, 10, 0, 1)
    low, high = read("a dog but no dog").bounds(len(CLASSES), 10)
    assert (low[DOG], high[DOG]) == (1, 1)
    assert (low[CAT], high[CAT]) == (0, 10)


def layouts(*rows: list[tuple[int, float, float]]) -> Layout:
    """Objects (class, centre x, centre y) of boxes with a side of 0.1; padded with dogs that do not count."""
    most = max(map(len, rows)) + 1
    labels, boxes = torch.full((len(rows), most), DOG), torch.zeros(len(rows), most, 4)
    for row, objects in enumerate(rows):
        for place, (label, x, y) in enumerate(objects):
            labels[row, place] = label
            boxes[row, place] = torch.tensor([x - 0.05, y - 0.05, 0.1, 0.1])
    return Layout(labels, boxes, torch.tensor([len(objects) for objects in rows]))


def test_layouts_keep_numbers() -> None:
    rows = layouts([(DOG, 0.5, 0.5)], [(DOG, 0.5, 0.5), (DOG, 0.2, 0.2), (CAT, 0.1, 0.1)], [])
    assert kept(read("two dogs"), rows).tolist() == [[False], [True], [False]]
    assert kept(read("no cat"), rows).tolist() == [[True], [False], [True]]
    assert kept(read("more dogs than cats"), rows)[:, -1].tolist() == [True, True, False]
    assert kept(Statements(), rows).shape == (3, 0)


def test_layouts_keep_places() -> None:
    rows = layouts(
        [(DOG, 0.2, 0.5), (CAT, 0.8, 0.6)],
        [(DOG, 0.8, 0.5), (CAT, 0.2, 0.5)],
        [(DOG, 0.5, 0.2), (CAT, 0.6, 0.9)],
        [(DOG, 0.2, 0.5)],
    )
    found = {
        word: kept(Statements(relations=(Relation(DOG, word, CAT),)), rows)[:, 0].tolist()
        for word in (LEFT, RIGHT, ABOVE, BELOW, NEXT_TO)
    }
    assert found == {
        LEFT: [True, False, False, False],
        RIGHT: [False, True, False, False],
        ABOVE: [False, False, True, False],
        BELOW: [False, False, False, False],
        NEXT_TO: [True, True, False, False],
    }
    alone = layouts([(CAT, 0.5, 0.5)], [(CAT, 0.2, 0.5), (CAT, 0.8, 0.5)])
    assert kept(read("a cat left of itself"), alone)[:, -1].tolist() == [False, True]


def test_layouts_keep_what_is_between() -> None:
    stated = Statements(relations=(Relation(DOG, BETWEEN, CAT, CAT),))
    rows = layouts(
        [(DOG, 0.5, 0.5), (CAT, 0.1, 0.5), (CAT, 0.9, 0.4)],
        [(DOG, 0.1, 0.5), (CAT, 0.5, 0.5), (CAT, 0.9, 0.4)],
        [(DOG, 0.5, 0.5), (CAT, 0.1, 0.5)],
        [(DOG, 0.1, 0.5), (CAT, 0.2, 0.1), (CAT, 0.3, 0.9)],
    )
    assert kept(stated, rows)[:, 0].tolist() == [True, False, False, True]
