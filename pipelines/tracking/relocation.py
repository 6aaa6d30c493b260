"""The places of files in a sqlite store of MLflow, which are absolute: after a move of its folder, all are wrong.

Relative places are no way out: MLflow resolves them against the working folder of the process that reads.
"""

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

from objgan.errors import InputError
from pipelines.redaction import in_a_line
from pipelines.tracking.mlflow_client import EXPERIMENT

_ARTIFACTS = "mlartifacts"
_COLUMNS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
"""Tables of MLflow's store, and their columns of places."""


def artifacts_beside(store: Path) -> str:
    """URI of the folder of the files of a store: beside its database."""
    return (store.parent / _ARTIFACTS).resolve().as_uri()


def refuse_moved(store: Path, recorded: str) -> None:
    """Refuse a store that was moved: MLflow would write new files to the old place, and find none of the earlier ones.

    recorded: place of the files of our experiment

    Raises:
        InputError: the files are beside the store, and no longer at the recorded place.
    """
    old = _own_folder(recorded)
    if old is not None and not old.exists() and (store.parent / _ARTIFACTS).exists():
        raise InputError(
            f"MLflow: {store} was moved, and records its files in {old}: run `python -m pipelines runs relocate`, "
            f"or link the old place to the new one (ln -s NEW OLD)"
        )


def relocate(store: Path, dry: bool) -> tuple[str, str, int]:
    """Record all files of a store that was moved at their new place, beside the store. dry: change nothing.

    Returns the old place, the new one, and how many records change.

    Raises:
        InputError: no store of these commands, no files beside it, or another process writes to it.
    """
    if not store.is_file():
        raise InputError(f"MLflow: no store {store}: run this in the folder above runs/, or set MLFLOW_TRACKING_URI")
    try:
        with contextlib.closing(sqlite3.connect(store)) as database, database:
            old, new = _recorded(database, store), artifacts_beside(store)
            if old == new:
                return old, new, 0
            if not (store.parent / _ARTIFACTS).is_dir():
                raise InputError(f"MLflow: no folder {store.parent / _ARTIFACTS}: move it there, beside {store.name}")
            changed = sum(_replace(database, table, old, new) for table in _COLUMNS)
            if dry:
                database.rollback()
            return old, new, changed
    except sqlite3.Error as error:
        raise InputError(f"MLflow: cannot change {store} ({in_a_line(error)})") from None


def _recorded(database: sqlite3.Connection, store: Path) -> str:
    found = database.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
    if found is None or _own_folder(found[0]) is None:
        raise InputError(f"MLflow: {store} does not keep its files in a folder {_ARTIFACTS} of this machine")
    return str(found[0])


def _replace(database: sqlite3.Connection, table: str, old: str, new: str) -> int:
    column = _COLUMNS[table]
    change = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?"
    return database.execute(change, (new, len(old) + 1, old, len(old) + 1, f"{old}/")).rowcount


def _own_folder(recorded: str) -> Path | None:
    """The folder of files that a store of these commands records; None: they are elsewhere."""
    parts = urlsplit(recorded)
    folder = Path(unquote(parts.path))
    return folder if parts.scheme == "file" and folder.name == _ARTIFACTS else None
