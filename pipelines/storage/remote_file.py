"""A single file in remote storage, by its URI."""

import io
from dataclasses import dataclass
from typing import Literal

import pyarrow.fs

from pipelines.redaction import place_of
from pipelines.storage.retry import PATIENCE, retry
from pipelines.storage.storage import open_location

_BUFFER = 8 << 20
"""Bytes of one request."""


@dataclass(frozen=True)
class RemoteFile:
    """Has `name`, `open` and the text of a `Path`; the text is without secrets."""

    uri: str

    def __str__(self) -> str:
        return place_of(self.uri)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return str(self).rstrip("/").rpartition("/")[2]

    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedReader:
        """Open it for reading.

        Raises:
            FileNotFoundError: there is no such file.
            InputError, StorageAway, OSError: as a remote storage raises it.
        """
        filesystem, path = open_location(self.uri, PATIENCE)
        file = retry(f"storage {self}: cannot open it", lambda: filesystem.open_input_file(path), PATIENCE)
        return io.BufferedReader(file, _BUFFER)

    def identity(self) -> tuple[object, ...]:
        """Equal only for the same content.

        Raises:
            As `open`.
        """
        filesystem, path = open_location(self.uri, PATIENCE)
        info = retry(f"storage {self}: cannot look for it", lambda: filesystem.get_file_info(path), PATIENCE)
        if info.type == pyarrow.fs.FileType.NotFound:
            raise FileNotFoundError(path)
        return self.uri, info.size, info.mtime_ns
