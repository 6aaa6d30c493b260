"""Locations of storage: opened, and shown without what nobody should see."""

import re

import pyarrow.fs
from pyarrow.lib import ArrowException

from objgan.errors import InputError
from pipelines.faults import Log, brief, persist

# Parameters of a URI that no log, message or file may repeat.
_SECRET = re.compile(r"key|secret|token|passw|signature|credential|^sig$", re.IGNORECASE)


def without_secrets(uri: str) -> str:
    """A URI fit to be shown: no key, no query."""
    return re.sub(r"://[^/@]*@", "://", uri).partition("?")[0] if "://" in uri else uri


def typed_again(location: str) -> str:
    """A location as it can be typed again: without passwords, but with the query, which names endpoint and region."""
    if "://" not in location:
        return location
    place, _, query = re.sub(r"://[^/@]*@", "://", location).partition("?")
    kept = "&".join(part for part in query.split("&") if part and not _SECRET.search(part.partition("=")[0]))
    return f"{place}?{kept}" if kept else place


def open_location(uri: str, patience: float, log: Log | None) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of a URI and the path within it.

    Raises:
        InputError: not a URI that pyarrow can open.
    """
    shown = without_secrets(uri)
    # Left alone, the client of gs:// tries for a quarter of an hour by itself, whatever our patience.
    if uri.startswith(("gs://", "gcs://")) and "retry_limit_seconds" not in uri:
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={max(1, min(20, int(patience)))}"
    try:
        opened: tuple[pyarrow.fs.FileSystem, str] = persist(
            f"storage {shown}: cannot open it", lambda: pyarrow.fs.FileSystem.from_uri(uri), patience, log
        )
    except (ArrowException, ImportError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        text = brief(error).replace(uri, shown)
        raise InputError(f"storage {shown}: not a location that can be opened ({text}): check it") from None
    if not opened[1].strip("/"):
        raise InputError(f"storage {shown}: names no bucket or folder: write it like s3://bucket/folder")
    return opened
