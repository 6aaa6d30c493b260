"""`sweep.json`: it contains no passwords, and a file with other content is refused in one short line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from objgan.config import Config
from objgan.errors import InputError
from pipelines.storage.storage import Storage
from tests.tools.sweeps import small_sweep
from tune.cli.arguments import SweepOptions
from tune.cli.options import sweep_of
from tune.sweep.spec_file import load_sweep, save_sweep

SECRET = "hunter2-and-more"
LONG = "x" * 3_000_000

# Where, and what stands there instead.
HOSTILE: dict[str, tuple[tuple[str, ...], Any]] = {
    "a list": ((), []),
    "text": ((), "x"),
    "nothing": ((), {}),
    "a run as a number": (("run",), 1),
    "stages as text": (("stages",), "boxes"),
    "an unknown stage": (("stages",), [LONG]),
    "a stage as a list": (("stages",), [["boxes"]]),
    "storage as a list": (("storage",), []),
    "an unknown search": (("search",), LONG),
    "an unknown scheduler": (("scheduler",), None),
    "a seed as text": (("seed",), "x"),
    "data as a list": (("data",), [1]),
    "encoders as a number": (("encoders",), 1),
    "a goal as text": (("goal",), "label_nll"),
    "an unknown mode": (("goal", "mode"), "most"),
    "trials as text": (("budget", "trials"), "many"),
    "an unknown part of the budget": (("budget", LONG), 1),
    "a space as a list": (("space",), []),
    "a knob as text": (("space", "boxes.training.lr"), LONG),
    "an unknown kind": (("space", "boxes.training.lr", "kind"), "dict"),
    "an end as text": (("space", "boxes.training.lr", "low"), "x"),
    "settings out of bounds": (("config", "boxes", "hidden"), 10**9),
    "unknown settings": (("config", LONG), 1),
}


@pytest.fixture
def sweep_file(data_config: Config, tmp_path: Path) -> Path:
    save_sweep(small_sweep(data_config, tmp_path / "data", tmp_path))
    return tmp_path / "small" / "sweep.json"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_short_line(sweep_file: Path, name: str) -> None:
    place, value = HOSTILE[name]
    content = json.loads(sweep_file.read_text())
    inner = content
    for part in place[:-1]:
        inner = inner[part]
    if place:
        inner[place[-1]] = value
    sweep_file.write_text(json.dumps(content if place else value))
    with pytest.raises(InputError, match=r"sweep\.json is not a sweep's description") as caught:
        load_sweep(Storage(sweep_file.parent))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_a_sweep_is_read_as_it_was_written(data_config: Config, tmp_path: Path) -> None:
    sweep = small_sweep(data_config, tmp_path / "data", tmp_path)
    save_sweep(sweep)
    assert load_sweep(sweep.store()) == sweep


def test_a_password_of_the_data_is_not_stored_and_asked_for_again(data_config: Config, tmp_path: Path) -> None:
    uri = f"s3://id:{SECRET}@bucket/data?region=eu"
    sweep = small_sweep(data_config, tmp_path, tmp_path)
    save_sweep(replace(sweep, data=uri))
    assert SECRET not in (tmp_path / "small" / "sweep.json").read_text()
    given = SweepOptions(resume="small", storage=str(tmp_path))
    for other in (Path("data/prepared"), "s3://id:x@other/data"):
        with pytest.raises(InputError, match=r"add --data with the whole address") as caught:
            sweep_of(replace(given, data=other))
        assert SECRET not in str(caught.value)
    found, begun = sweep_of(replace(given, data=uri))
    assert begun and found.data == uri
