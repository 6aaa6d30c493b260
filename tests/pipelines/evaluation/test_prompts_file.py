"""Files of prompts: NSR-1K's forms, one's own, and wrong ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from objgan.errors import InputError
from objgan.metrics.prompts import StatedPrompt
from objgan.statements import ABOVE, FEWER, LEFT, Comparison, Count, Relation, Statements
from pipelines.evaluation.prompts_file import read_prompts_file

CLASSES = ("dog", "cat", "sheep")
DOG, CAT, SHEEP = range(3)


def read(tmp_path: Path, *entries: Any) -> list[StatedPrompt]:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(list(entries)))
    return read_prompts_file(path).prompts(CLASSES)


def test_ones_own_prompts(tmp_path: Path) -> None:
    counts, relations = {"dog": 2, "sheep": 0}, [["dog", "left", "cat"]]
    (own,) = read(tmp_path, {"prompt": "two dogs left of a cat", "counts": counts, "relations": relations})
    numbers = (Count(DOG, 2, 2), Count(SHEEP, 0, 0))
    facts = Statements(numbers, (), (Relation(DOG, LEFT, CAT),))
    assert own == StatedPrompt("two dogs left of a cat", numbers, facts)


def test_prompts_of_nsr_1k(tmp_path: Path) -> None:
    numbers = {"id": 1, "prompt": "two dogs, a cat", "num_object": [["dog", 2], ["cat", 1]], "sub-type": "real"}
    fewer = {"prompt": "p", "num_object": [["dog", 2], ["cat", 3]], "sub-type": "comparison", "object_list": []}
    equal = {"prompt": "p", "num_object": [["dog", 2], ["cat", 2]], "sub-type": "comparison"}
    place = {"prompt": "p", "obj1": ["dog", [0, 0, 1, 1]], "obj2": ["cat", [0, 0, 1, 1]], "relation": "top"}
    exact = (Count(DOG, 2, 2), Count(CAT, 1, 1))
    assert read(tmp_path, numbers, fewer, equal, place) == [
        StatedPrompt("two dogs, a cat", exact, Statements(exact)),
        StatedPrompt("p", (), Statements((Count(DOG, 2, 2),), (Comparison(DOG, FEWER, CAT),))),
        StatedPrompt("p", (), Statements((Count(DOG, 2, 2), Count(CAT, 2, 2)))),
        StatedPrompt("p", (), Statements((), (), (Relation(DOG, ABOVE, CAT),))),
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"prompt": "p", "counts": {"dgo": 2}}, "entry 2: unknown class 'dgo': did you mean dog?"),
        ({"prompt": "p", "relations": [["dog", "left", "cow"]]}, "entry 2: unknown class 'cow'"),
        ({"prompt": "p", "counts": {"dog": -1}}, "entry 2: counts.dog: "),
        ({"prompt": "p", "counts": {"dog": "2"}}, "entry 2: counts.dog: "),
        ({"prompt": "p", "counts": {"dog": True}}, "entry 2: counts.dog: "),
        ({"prompt": "p", "counts": {"dog": 2.5}}, "entry 2: counts.dog: "),
        ({"prompt": "p", "counts": {"dog": 10**9}}, "entry 2: counts.dog: "),
        ({"prompt": "p", "count": {"dog": 2}}, "entry 2: count: "),
        ({"prompt": "p", "relations": [["dog", "behind", "cat"]]}, "entry 2: relations.0.1: "),
        ({"prompt": "p", "relations": [["dog", "left"]]}, "entry 2: relations.0"),
        ({"prompt": "p", "relations": "dog left cat"}, "entry 2: relations: "),
        ({"prompt": "", "counts": {"dog": 2}}, "entry 2: prompt: "),
        ({"prompt": 7, "counts": {"dog": 2}}, "entry 2: prompt: "),
        ({"prompt": "x" * 10**6, "counts": {"dog": 2}}, "entry 2: prompt: "),
        ({"counts": {"dog": 2}}, "entry 2: prompt: "),
        ({"prompt": "p"}, "entry 2: states nothing"),
        ({"prompt": "p", "num_object": [["dog", 2], ["dog", 3]]}, "entry 2: num_object must name each class once"),
        ({"prompt": "p", "num_object": [["dog", 2]], "sub-type": "comparison"}, "entry 2: num_object must"),
        ({"prompt": "p", "num_object": [["dog"]]}, "entry 2: num_object.0"),
        ({"prompt": "p", "obj1": ["dog", []], "relation": "left"}, "entry 2: obj2: "),
        ({"prompt": "p", "obj1": ["dog", []], "obj2": ["cat", []], "relation": "in"}, "entry 2: relation: "),
        (["p"], "entry 2: must be "),
        (None, "entry 2: must be "),
    ],
)
def test_a_wrong_entry_is_named_in_one_line(entry: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, {"prompt": "p", "counts": {"dog": 1}}, entry)
    assert message in str(caught.value) and len(str(caught.value)) < 500
    assert str(caught.value).startswith(f"--prompts: {tmp_path / 'prompts.json'}: entry")


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is not JSON"), ("{}", "must hold a list"), ("[]", "must hold a list"), ("[" * 99, "JSON"), ("[NaN]", "NaN")],
)
def test_a_file_that_is_no_list_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_prompts_file(path)
    with pytest.raises(InputError, match="no file"):
        read_prompts_file(tmp_path / "none.json")


@pytest.mark.real
def test_nsr_1k_is_read(repository: Path) -> None:
    folder = repository.parent / "shared" / "nsr1k"
    if not folder.is_dir():
        pytest.skip("no ../shared/nsr1k beside the repository: this test on NSR-1K needs it")
    numbers, places = (read_prompts_file(folder / f"{name}.dev.json") for name in ("counting", "spatial"))
    known = {name for entry in numbers.entries for name, _ in entry.counts}
    classes = sorted(known.union(*((one, other) for entry in places.entries for one, _, other in entry.relations)))
    assert len(numbers.prompts(classes)) == 381 and len(places.prompts(classes)) == 738
    assert sum(not prompt.counts for prompt in numbers.prompts(classes)) > 20, "comparisons"
    assert all(len(prompt.facts.relations) == 1 for prompt in places.prompts(classes))
