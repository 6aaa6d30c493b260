"""Captions made from layouts: true, varied, grammatical, and a function of the seed."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from objgan.batch import Sample
from objgan.caption_parser import read_statements
from objgan.domain import Domain, LayoutStatistics
from objgan.layout import Layout
from objgan.metrics.named_classes import NamedClasses
from objgan.stated_captions import StatedCaptions, StatedWords, stated_words
from objgan.statements import Count, kept
from objgan.vocabulary import SPECIAL, Vocabulary

CLASSES = ("dog", "cat", "person", "orange", "scissors", "sheep")
LONGEST = 20


@pytest.fixture(scope="module")
def animals() -> Domain:
    words = (
        *SPECIAL,
        *[
            "a",
            "an",
            "and",
            "dog",
            "dogs",
            "cat",
            "cats",
            "person",
            "people",
            "orange",
            "oranges",
            "scissors",
            "sheep",
            "two",
            "three",
            "left",
            "of",
        ],
    )
    shares = LayoutStatistics((0.5,) * 4, (0.2,) * 4, (9,) * 6, (0, 10), (4,) * 6, 10)
    return Domain(Vocabulary(words, np.zeros((len(words), 4), np.float32)), CLASSES, shares)


def scenes(number: int) -> list[tuple[list[int], np.ndarray]]:
    numbers = np.random.default_rng(3)
    found = []
    for _ in range(number):
        n = int(numbers.integers(1, 9))
        sides = numbers.uniform(0.05, 0.5, (n, 2))
        boxes = np.concatenate([numbers.uniform(0, 1 - sides), sides], 1).astype(np.float32)
        found.append((numbers.integers(0, len(CLASSES), n).tolist(), boxes))
    return found


def test_every_statement_is_true_and_read_by_the_parser(animals: Domain) -> None:
    captions, matcher, draw = StatedCaptions.of(animals, LONGEST), NamedClasses(CLASSES), random.Random(0)
    kinds = set()
    for labels, boxes in scenes(1500):
        words = captions.write(labels, boxes, True, draw)
        assert 0 < len(words) <= LONGEST
        stated = read_statements(words, matcher)
        layout = Layout(torch.tensor([labels]), torch.from_numpy(boxes)[None], torch.tensor([len(labels)]))
        held = kept(stated, layout)
        assert held.all(), (" ".join(words), stated)
        kinds |= {type(fact).__name__ for fact in stated.facts} | {one.word for one in stated.relations}
        kinds |= {"absent" for count in stated.counts if count.high == 0}
    expected = {"Count", "Comparison", "Relation", "left", "right", "above", "below", "next to", "between", "absent"}
    assert expected <= kinds


def test_captions_vary_and_are_grammatical(animals: Domain) -> None:
    captions, draw = StatedCaptions.of(animals, LONGEST), random.Random(1)
    texts = [" ".join(captions.write(labels, boxes, True, draw)) for labels, boxes in scenes(1500)]
    assert len(set(texts)) > 1200
    for text in texts:
        padded = f" {text} "
        for wrong in (
            " a orange",
            " an dog",
            " a two",
            " one dogs ",
            " two dog ",
            " two cat ",
            "  ",
            " a pair of person ",
        ):
            assert wrong not in padded, text
    for word in ("large", "small", "several", "a couple of", "more", "as many", "no", "without", "between", "2"):
        assert any(f" {word} " in f" {text} " for text in texts), word


def test_where_objects_were_left_out_no_number_above_one_is_exact(animals: Domain) -> None:
    captions, matcher, draw = StatedCaptions.of(animals, LONGEST), NamedClasses(CLASSES), random.Random(2)
    for labels, boxes in scenes(300):
        stated = read_statements(captions.write(labels, boxes, False, draw), matcher)
        assert not [count for count in stated.counts if count.high is not None and count.low > 1], stated
        assert not [count for count in stated.counts if count == Count(count.label, 0, 0)]


def test_no_object_no_caption(animals: Domain) -> None:
    assert StatedCaptions.of(animals, LONGEST).write([], np.zeros((0, 4), np.float32), True, random.Random(0)) == []


def test_a_share_of_the_captions_is_replaced_and_depends_on_seed_epoch_and_image(animals: Domain) -> None:
    samples = [
        Sample(image_id=number, words=np.array([2, 3]), labels=np.array(labels), boxes=boxes)
        for number, (labels, boxes) in enumerate(scenes(40))
    ]

    def words(share: float, seed: int, epoch: int) -> list[list[int]]:
        stated = StatedWords(animals, LONGEST, share)
        return [stated.replace(sample, True, seed, epoch).words.tolist() for sample in samples]

    before = [sample.words.tolist() for sample in samples]
    every = words(1.0, 5, 0)
    assert every == words(1.0, 5, 0) != words(1.0, 5, 1) != words(1.0, 6, 1)
    assert all(1 <= len(new) <= LONGEST for new in every)
    assert words(0.0, 5, 0) == before
    replaced = sum(new != old for new, old in zip(words(0.5, 5, 0), before, strict=True))
    assert 8 <= replaced <= 32


def test_moved_objects_stand_as_their_caption_says_and_pictures_stay(animals: Domain) -> None:
    """The vocabulary has each word of the captions here, so that they can be read back."""
    words = stated_words(CLASSES, {})
    domain = replace(animals, vocabulary=Vocabulary((*SPECIAL, *words), np.zeros((len(words) + 2, 4), np.float32)))
    stated, matcher, moved = StatedWords(domain, LONGEST, 1.0), NamedClasses(CLASSES), 0
    read = 0
    for number, (labels, boxes) in enumerate(scenes(300)):
        sample = Sample(number, np.array([2]), np.array(labels), boxes)
        made = stated.replace(sample, True, 0, 0)
        facts = read_statements([domain.vocabulary.words[word] for word in made.words], matcher)
        layout = Layout(torch.tensor([labels]), torch.from_numpy(made.boxes)[None], torch.tensor([len(labels)]))
        assert kept(facts, layout).all()
        assert np.array_equal(made.boxes[:, 2:], boxes[:, 2:]) and made.boxes.dtype == np.float32
        assert (made.boxes[:, :2] >= 0).all() and (made.boxes[:, :2] + made.boxes[:, 2:] <= 1 + 1e-6).all()
        if not np.array_equal(made.boxes, boxes):
            moved, read = moved + 1, read + bool(facts.relations)
        pictured = stated.replace(replace(sample, image=np.zeros((3, 4, 4), np.uint8)), True, 0, 0)
        assert np.array_equal(pictured.boxes, boxes)
        assert np.array_equal(StatedWords(domain, LONGEST, 1.0, False).replace(sample, True, 0, 0).boxes, boxes)
    assert 60 < moved < 240 and read > 0.8 * moved, "the parser leaves out a few, such as those of an orange"
