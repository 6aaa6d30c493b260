"""A store with MLflow's tables of places, in another folder than the one that it records."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.tracking.relocation import _COLUMNS

OLD = "file:///an%20old/mlartifacts"


def write_store(folder: Path, recorded: str = OLD) -> Path:
    """A store whose files are at `recorded`, and a row of another experiment whose files are elsewhere."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        for table, column in _COLUMNS.items():
            database.execute(f"CREATE TABLE {table} (name TEXT, {column} TEXT)")
            place = recorded if table == "experiments" else f"{recorded}/of {table}"
            database.executemany(f"INSERT INTO {table} VALUES (?, ?)", [("objgan", place), ("b", f"{recorded}-2/x")])
            database.execute(f"INSERT INTO {table} VALUES ('none', NULL)")
    return folder / "mlflow.db"


def places(store: Path) -> list[str]:
    with closing(sqlite3.connect(store)) as database:
        return [
            place
            for table, column in _COLUMNS.items()
            for (place,) in database.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
        ]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_store(tmp_path / "new place")
    (path.parent / "mlartifacts").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    return path


def test_only_the_places_of_moved_files_change(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, new = places(store), (store.parent / "mlartifacts").as_uri()
    assert main(["runs", "relocate", "--dry-run"]) == 0 and places(store) == before
    assert f"would change 4 places of files: {OLD} -> {new}" in capsys.readouterr().out
    for changed in (4, 0):
        assert main(["runs", "relocate"]) == 0 and f"changed {changed} places" in capsys.readouterr().out
        assert places(store) == [place.replace(f"{OLD}/", f"{new}/") if place != OLD else new for place in before]


def test_what_cannot_be_relocated_is_refused_and_left_alone(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = store.read_bytes()
    (store.parent / "mlartifacts").rmdir()
    bucket = write_store(tmp_path / "bucket", "s3://bucket/mlartifacts")
    (tmp_path / "text.db").write_text("no database" * 100)
    for uri, message in (
        (f"sqlite:///{store}", "no folder"),
        (f"sqlite:///{bucket}", "does not keep its files"),
        (f"sqlite:///{tmp_path}/none.db", "no store"),
        (f"sqlite:///{tmp_path}/text.db", "cannot change"),
        ("http://127.0.0.1:1", "no sqlite store"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert main(["runs", "relocate"]) == 2
        line = capsys.readouterr().err
        assert message in line and len(line.splitlines()) == 1
    assert store.read_bytes() == before and not (tmp_path / "none.db").exists()
