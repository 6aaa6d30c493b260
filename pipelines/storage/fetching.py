"""Folders that a command reads, brought to this machine where a URI names them."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from objgan.errors import InputError
from pipelines.storage.storage import Storage


def fetched(what: str, location: Path | str, scratch: Path) -> Path:
    """A folder on this machine: the path itself, or a copy of the URI's folder in `scratch`, under its own name.

    what: the option, for messages

    Raises:
        InputError: the URI cannot be opened, or names no folder.
    """
    if isinstance(location, Path) or "://" not in location:
        return Path(location)
    place, mark, query = location.partition("?")
    parent, _, name = place.rstrip("/").rpartition("/")
    storage = Storage(parent + mark + query)
    try:
        return storage.download(name, scratch / name)
    except FileNotFoundError:
        raise InputError(f"{what}: no folder {storage.child(name)}; check the location") from None


@contextlib.contextmanager
def at_hand(what: str, location: Path | str | None) -> Iterator[Path | None]:
    """`fetched` for the length of a block; None where no location is given.

    Raises:
        InputError: as `fetched`.
    """
    if location is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="objgan-") as scratch:
        yield fetched(what, location, Path(scratch))
