"""YAML of settings and spaces: nothing that is written twice is dropped, and nothing in it stops the program."""

from pathlib import Path

import pytest

from objgan.errors import InputError
from pipelines.recipes import resolve
from pipelines.yaml_input import parse_yaml

TWICE = {
    "a section": ("boxes:\n  hidden: 32\nseed: 1\nboxes:\n  training:\n    lr: 0.5\n", "boxes", "lines 1 and 4"),
    "a setting": ("boxes:\n  hidden: 32\n  hidden: 64\n", "boxes.hidden", "lines 2 and 3"),
    "in one line": ("boxes: {hidden: 32, hidden: 64}\n", "boxes.hidden", "line 1"),
    "quoted": ("seed: 1\n'seed': 2\n", "seed", "lines 1 and 2"),
    "in a list": ("images:\n  sizes: [{a: 1, a: 2}]\n", "images.sizes.a", "line 2"),
    "at any depth": (
        "images: {training: {\n  batch_size: 4,\n  batch_size: 8}}",
        "images.training.batch_size",
        "lines 2",
    ),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_key_that_is_there_twice_is_refused_by_its_dotted_name_and_lines(tmp_path: Path, name: str) -> None:
    text, key, lines = TWICE[name]
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        resolve("tiny", file, [])
    assert str(caught.value).startswith(f"--config {file}: {key} is there twice ({lines}")


def test_a_key_twice_in_one_assignment_is_refused() -> None:
    with pytest.raises(InputError, match=r"--set boxes: .*hidden is there twice"):
        resolve("tiny", None, ["boxes={hidden: 32, hidden: 64}"])


def test_keys_of_several_sections_and_merged_ones_are_no_repetition(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "encoders: {training: &shared {batch_size: 12, log_every: 7}}\n"
        "boxes: {training: {<<: *shared, batch_size: 6}}\n"
        "shapes: {training: {<<: [*shared]}}\n"
    )
    config = resolve("tiny", file, [])
    assert (config.boxes.training.batch_size, config.boxes.training.log_every) == (6, 7)
    assert config.shapes.training.batch_size == 12


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1", "is not YAML"),
        ("a: \x00", "not YAML"),
        ("a: 2020-13-45", "a value cannot be read"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML"),
        ("? [1, 2]\n: 3", "is not YAML"),
        ("a: 1\n---\na: 2", "is not YAML"),
        ("a: &a {b: *a}", "nested more than 32 deep"),
        ("a: &a [*a]", "nested more than 32 deep"),
        ("[" * 5000 + "]" * 5000, "nested more than 32 deep"),
        (
            "a0: &a0 {x: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{p: *a{n}, q: *a{n}}}\n" for n in range(25)),
            "aliases make",
        ),
    ],
)
def test_what_is_no_settings_is_one_line(text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "here")
    assert str(caught.value).startswith("here: ") and told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"a: 1\n" * 300_000])
def test_files_that_nobody_wrote_by_hand_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "mine.yaml").write_bytes(data)
    with pytest.raises(InputError, match=r"^--config: "):
        resolve("tiny", tmp_path / "mine.yaml", [])


@pytest.mark.parametrize("text", ["1: {a: 2}", "null: 1", "1.5: 1"])
def test_keys_that_are_no_names_are_unknown_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match="settings: "):
        resolve("tiny", tmp_path / "mine.yaml", [])
