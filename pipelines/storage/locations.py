"""Locations of storage, opened."""

import pyarrow.fs
from pyarrow.lib import ArrowException

from objgan.errors import InputError
from pipelines.redaction import place_of
from pipelines.storage.retry import Log, brief, persist


def open_location(uri: str, patience: float, log: Log | None) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of a URI and the path within it.

    Raises:
        InputError: not a URI that pyarrow can open.
    """
    shown = place_of(uri)
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
