"""Folders of runs as training leaves them."""

import json
from pathlib import Path

from pipelines.recipes import resolve
from pipelines.training.job import stage_settings


def write_settings(folder: Path, words: list[str]) -> None:
    """`settings.json` of a run of stage `boxes` with these `--set` words."""
    folder.mkdir(parents=True)
    config = resolve("tiny", None, words[1::2])
    (folder / "settings.json").write_text(json.dumps(stage_settings(config, "boxes")))
