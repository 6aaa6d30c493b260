"""Finding the classes that captions name."""

import pytest
import torch

from objgan.domain import Domain
from objgan.metrics.named_classes import SYNONYMS, NamedClasses, Phrase, named_classes, plural
from objgan.vocabulary import tokenize

CLASSES = (
    "person",
    "dog",
    "hot dog",
    "bear",
    "teddy bear",
    "stop sign",
    "sheep",
    "bus",
    "knife",
    "sports ball",
    "kite",
)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("two men and a puppy", {"person", "dog"}),
        ("a hot dog on a table", {"hot dog"}),
        ("dogs eat hot dogs", {"dog", "hot dog"}),
        ("a teddy bear beside stuffed animals", {"teddy bear"}),
        ("stop at the stop signs", {"stop sign"}),
        ("people feed sheep near the buses", {"person", "sheep", "bus"}),
        ("a bus stop with knives", {"knife"}),
        ("a baseball player throws a baseball", {"person", "sports ball"}),
        ("the sea and the snow", set()),
        ("", set()),
        ("a man , a woman and a boy", {"person"}),
        ("people", {"person"}),
        ("children and ladies watch babies", {"person"}),
        ("skateboarders , snowboarders and surfers", {"person"}),
        ("women with puppies and lambs", {"person", "dog", "sheep"}),
    ],
)
def test_captions(caption: str, expected: set[str]) -> None:
    assert {CLASSES[index] for index in NamedClasses(CLASSES).find(caption.split())} == expected


def test_every_synonym_and_plural_names_its_class() -> None:
    """With all of COCO's classes that have synonyms: no phrase is taken by another class."""
    classes = tuple(SYNONYMS)
    matcher = NamedClasses(classes)
    for name, synonyms in SYNONYMS.items():
        for phrase in (name, *(s for s in synonyms if s not in classes)):
            words = phrase.split()
            assert [classes[i] for i in matcher.find(words)] == [name], phrase
            assert [classes[i] for i in matcher.find([*words[:-1], plural(words[-1])])] == [name], phrase


@pytest.mark.parametrize(
    ("caption", "fruit"),
    [
        ("an orange on a table", True),
        ("a banana and an orange", True),
        ("many oranges in a bowl", True),
        ("slices of orange fruit", True),
        ("an orange cat", False),
        ("an orange and white bus", False),
        ("two people in orange", False),
        ("two people in orange are standing", False),
    ],
)
def test_orange_is_a_fruit_or_a_colour(caption: str, fruit: bool) -> None:
    assert NamedClasses(("orange", "kite")).find(caption.split()) == ({0} if fruit else set())


def test_phrases_and_where_they_stand() -> None:
    found = NamedClasses(CLASSES).phrases_in(tokenize("Two men eat a hot dog at the bus stop."))
    assert found == [Phrase(1, 2, CLASSES.index("person"), plural=True), Phrase(4, 6, CLASSES.index("hot dog"))]


def test_a_class_of_the_data_set_wins_over_a_synonym() -> None:
    assert NamedClasses(("cup", "mug")).find(["mug"]) == {1}


def test_plurals() -> None:
    assert [plural(w) for w in ("kite", "bus", "bench", "puppy", "toy", "mouse", "box")] == [
        *("kites", "buses", "benches", "puppies", "toys", "mice", "boxes")
    ]


def test_ids_of_a_batch(domain: Domain) -> None:
    ids = domain.vocabulary.ids
    captions = [["two", "red", "kites", "above", "the", "sea"], ["people", "on", "boats"], ["sea"]]
    words = torch.zeros(3, 8, dtype=torch.int64)
    for row, caption in enumerate(captions):
        words[row, : len(caption)] = torch.tensor([ids[word] for word in caption])
    words[2, 1] = 1  # an unknown word
    named = named_classes(words, domain.vocabulary, NamedClasses(domain.classes))
    expected = [{"kite"}, {"person", "boat"}, set()]
    assert [{domain.classes[i] for i in row.nonzero()[:, 0].tolist()} for row in named] == expected
