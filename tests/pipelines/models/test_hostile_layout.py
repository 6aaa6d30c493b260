"""Layouts that somebody else made: what is wrong is said in one short line, whatever the file holds."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.layout_file import read_layout

BOX = [0.1, 0.1, 0.5, 0.5]
LONG = "x" * 3_000_000


def _one(**entry: Any) -> dict[str, Any]:
    return {"objects": [{"label": "kite", "box": BOX} | entry]}


LAYOUTS: dict[str, Any] = {
    "a label of 3 MB": _one(label=LONG),
    "a label as a list": _one(label=[[[LONG]]]),
    "a label as an object": _one(label={LONG: LONG}),
    "an unknown key of 3 MB": _one(**{LONG: 1}),
    "a box of 3 MB": _one(box=LONG),
    "a box of 100,000 numbers": _one(box=[0.1] * 100_000),
    "a box in a box": _one(box=[[BOX]]),
    "a box as an object": _one(box={"x": 0}),
    "a box of true": _one(box=[True, 0, 1, 1]),
    "a mask size of 3 MB": _one(mask={"size": LONG, "counts": "1"}),
    "a mask size of 10^9": _one(mask={"size": [10**9, 10**9], "counts": [10**18]}),
    "runs of 3 MB": _one(mask={"size": [32, 32], "counts": LONG}),
    "a million runs": _one(mask={"size": [32, 32], "counts": [1] * 1_000_000}),
    "runs as objects": _one(mask={"size": [32, 32], "counts": {"a": 1}}),
    "a mask of text": _one(mask=LONG),
    "a mask's box of text": _one(mask={"size": [32, 32], "counts": [0, 1024], "box": LONG}),
    "a caption as a list": {"caption": [LONG], "objects": []},
    "a version of 3 MB": {"version": LONG, "objects": []},
    "objects as text": {"objects": LONG},
    "an object as text": {"objects": [LONG]},
    "100,000 objects": {"objects": [{"label": "kite", "box": BOX}] * 100_000},
    "half a character": {"caption": "\ud800", "objects": []},
    "a list": [LONG],
    "text": LONG,
}


@pytest.fixture(scope="module")
def model(model_folder: Path) -> ObjGAN:
    return ObjGAN.load(model_folder, "cpu")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_hostile_layout_is_refused_in_one_short_line(model: ObjGAN, tmp_path: Path, name: str) -> None:
    path = tmp_path / "layout.json"
    path.write_text(json.dumps(LAYOUTS[name]))
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        read_layout(path, model.rules)
    message = str(caught.value)
    assert message.startswith(f"layout{':' if 'surrogate' in message else ''} {path}") and "\n" not in message
    assert len(message) < 600 and message.isprintable(), message[:1000]
    assert time.monotonic() - began < 5


def test_the_command_says_so_with_exit_code_2(model_folder: Path, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "layout.json").write_text(json.dumps(LAYOUTS["a label of 3 MB"]))
    words = ["generate", "a red kite", "--model", str(model_folder), "--layout", str(tmp_path / "layout.json")]
    words = [sys.executable, "-m", "pipelines", *words, "--out", str(tmp_path / "out")]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2 and len(done.stderr) < 600 and "unknown label 'xxx" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("caption", [LONG, "\x1b[31m" * 1000, "." * 40_000, "\ufdfa" * 50_000, "\ufdfa" * 50_001])
def test_a_long_caption_without_known_words_is_repeated_in_part(model: ObjGAN, caption: str) -> None:
    with pytest.raises(InputError) as caught:
        model.generate([caption])
    assert len(str(caught.value)) < 600 and "\x1b" not in str(caught.value)
