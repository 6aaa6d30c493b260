"""Finding the classes that captions name."""

import pytest
import torch

from objgan.domain import Domain
from objgan.metrics.named_classes import NamedClasses, named_classes, plural

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
    ],
)
def test_captions(caption: str, expected: set[str]) -> None:
    assert {CLASSES[index] for index in NamedClasses(CLASSES).find(caption.split())} == expected


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
