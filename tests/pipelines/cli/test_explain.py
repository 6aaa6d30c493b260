from pathlib import Path

import pytest

from objgan.config import Config, flatten
from pipelines.__main__ import main
from pipelines.cli.explain import all_settings, markdown


def test_every_setting_is_listed_with_a_description() -> None:
    listed = all_settings()
    assert sorted(item.name for item in listed) == sorted(flatten(Config()))
    assert not [item.name for item in listed if not item.description]


def test_the_page_in_docs_is_the_one_that_the_command_writes(repository: Path) -> None:
    assert (repository / "docs" / "settings.md").read_text() == markdown(all_settings())


def test_a_section_is_listed_with_types_bounds_and_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "images.sizes"]) == 0
    printed = capsys.readouterr().out
    assert "images.sizes = [64, 128, 256]  (list of integers)" in printed
    assert "[tiny: [32, 64], small: [64, 128]]" in printed
    assert main(["explain", "boxes.training"]) == 0
    names = [line.split(" = ")[0] for line in capsys.readouterr().out.splitlines() if " = " in line]
    assert "boxes.training.lr" in names
    assert all(name.startswith("boxes.training.") for name in names)


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "boxes.train"]) == 2
    assert "no setting is named boxes.train: did you mean boxes.training?" in capsys.readouterr().err
