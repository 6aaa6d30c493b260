"""Captions with few known words: a warning with the cause, and `data.language` for other tokenizers."""

import importlib.util

import pytest

from objgan.config import build_config
from objgan.domain import Domain
from objgan.errors import InputError
from pipelines.__main__ import main
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.report.survey import survey
from pipelines.data.report.table import numbers
from pipelines.data.shards.concerns import concerns
from pipelines.data.shards.format import summary
from pipelines.data.shards.index import Index
from pipelines.data.shards.manifest import SPLITS

# Sentences of the same few words in Chinese, which sets no blanks; each is another sequence.
WORDS = ("红色", "风筝", "大", "船", "海", "飞", "草地", "人")


@pytest.fixture
def made(tmp_path, write_coco, scenes, data_config):
    """made(text, **settings of data): 30 scenes, the captions of scene n are text(n)."""

    def make(text, **settings):
        images, objects, captions = scenes(30)
        for number, one in enumerate(captions):
            one["caption"] = text(number)
        values = data_config.model_dump()
        values["data"] |= settings
        source = write_coco(tmp_path / "coco", images, objects, captions)
        return prepare(source, tmp_path / "data", build_config(values), run_here)

    return make


def _chinese(number: int) -> str:
    return "".join(WORDS[number * step % 8] for step in (1, 3, 5, 7)) + WORDS[number // 8 % 8]


def test_a_warning_for_captions_without_spaces_names_the_language_to_set(made, tmp_path) -> None:
    manifest = made(_chinese)
    (warning,) = concerns(manifest)
    assert warning.startswith("only ") and warning.endswith("set data.language=zh")
    assert f"warning:  {warning}" in summary(manifest)
    assert numbers(survey(tmp_path / "data", 0))["warnings"] == [warning]


def test_the_language_divides_them_and_nothing_is_mirrored(made, tmp_path) -> None:
    manifest = made(_chinese, language="zh")
    assert not list(concerns(manifest)) and manifest["settings"]["language"] == "zh"
    vocabulary = Domain.load(tmp_path / "data" / "domain").vocabulary
    assert vocabulary.language == "zh" and set(vocabulary.words[2:]) == set("".join(WORDS))
    for split in SPLITS:
        index = Index(tmp_path / "data" / f"_index-{split}.arrow")
        assert all(index.is_sided(row, number) for row in range(len(index)) for number in range(index.count(row)))


def test_rare_words_left_out_by_a_setting_are_named(made) -> None:
    (warning,) = concerns(made(lambda number: f"kite word{number % 7} thing{number % 5}", min_count=30))
    assert warning.endswith("data.min_count=30 excludes words that occur in the training captions; lower it")


def test_words_that_training_never_saw_are_named(made) -> None:
    (warning,) = concerns(made(lambda number: f"a{number} b{number} c{number} kite"))
    assert "never occur in the training captions" in warning and "data.language=en" in warning


def test_half_of_the_words_known_is_no_warning(made) -> None:
    manifest = made(lambda number: f"a{number} kite")
    coverage = manifest["coverage"]
    assert coverage["known"] * 2 == coverage["words"] and not coverage["reason"] and not list(concerns(manifest))


def test_captions_of_signs_alone_are_refused(made) -> None:
    with pytest.raises(InputError, match=r"no word occurs data\.min_count=1 times"):
        made(lambda number: "!?")


@pytest.mark.parametrize("command", [["prepare"], ["run"], ["train", "boxes"], ["demo"]])
def test_a_tokenizer_that_lacks_a_package_is_refused_before_anything_starts(tmp_path, capsys, command) -> None:
    if importlib.util.find_spec("pythainlp") is not None:
        pytest.skip("spaCy's Thai tokenizer works here")
    where = [] if command[0] == "train" else ["--out", str(tmp_path / "out")]
    assert main([*command, *where, "--set", "data.language=th", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "data.language: spaCy lacks a package for 'th'" in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()
