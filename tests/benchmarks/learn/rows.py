"""Cells of the learning benchmark and their rows: a row is a JSON file, written when its cell is done."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from objgan.files import read_json, write_atomically

Log = Callable[[str], None]
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the command line asked for.

    out:         folder of rows, runs and cached data
    seeds:       repetitions of what is repeated
    run_minutes: training minutes of one run, where a section's runs are limited by time; None: the section's own
    parallel:    runs side by side, one thread each, where a section can
    coco:        folder of the real COCO files
    """

    out: Path = Path("runs/learn")
    seeds: int = 3
    run_minutes: float | None = None
    parallel: int = 1
    coco: Path = Path("../shared/coco")


@dataclass(frozen=True)
class Cell:
    """One measurement: `run(folder, log)` gives a JSON-able row; it may keep what it needs to go on in `folder`."""

    key: str
    run: Callable[[Path, Log], Row] = field(repr=False)


class Section(Protocol):
    """What a section's module offers."""

    NAME: str
    TITLE: str

    def cells(self, options: Options) -> list[Cell]:
        """All measurements, in the order in which they are to be done."""

    def table(self, rows: dict[str, Row]) -> str:
        """Markdown of the rows that there are, by key; says what is missing."""


def row_path(out: Path, section: str, key: str) -> Path:
    """Where a cell's row lies."""
    return out / section / f"{key}.json"


def load_rows(out: Path, section: str) -> dict[str, Row]:
    """All finished rows of a section, by key."""
    folder = out / section
    return {path.stem: read_json(path, "row") for path in sorted(folder.glob("*.json"))} if folder.is_dir() else {}


def save_row(out: Path, section: str, key: str, row: Row) -> None:
    """Keep a finished row."""
    write_atomically(row_path(out, section, key), json.dumps(row, indent=1) + "\n")
