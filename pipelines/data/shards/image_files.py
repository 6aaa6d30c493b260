"""Image files, by their names in the JSON. A file exists if it can be opened, also through links.

Names with `..` and absolute paths are refused: they would leave the image folder.
"""

import contextlib
import errno
import hashlib
import json
import os
import sqlite3
import stat
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Self

import numpy as np
import pyarrow.fs

from pipelines.data.shards.rejected import Unusable
from pipelines.storage.retry import brief, retry
from pipelines.storage.storage import Storage

MOST_BYTES = 2 << 30
"""Largest image file: the largest image as uncompressed 16-bit RGBA."""

# Faults of the name or the file; other errors are faults of the disk or the network.
_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_UNFIT = {
    *(errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO),
    *(errno.ENODEV, errno.EAGAIN, errno.EILSEQ, errno.EOVERFLOW, errno.EOPNOTSUPP),
}
_SHOWN = 120
_LOOKERS, _NAMES = 16, 1024
"""Threads that look for files, because a network disk answers slowly; the names that a thread gets at once."""


class Unreadable(Unusable):
    """An image cannot be used."""


def inside(name: str) -> str:
    """A name relative to the image folder, without empty parts and `.`.

    Raises:
        Unreadable: there is no name, it points outside the folder, or no file can have it.
    """
    if not name:
        raise Unreadable("the record has no file name")
    if "\0" in name:
        raise Unreadable("the file name contains a NUL character", repr(name)[:_SHOWN])
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise Unreadable("the file name points outside the image folder", name[:_SHOWN])
    if not parts:
        raise Unreadable("cannot read the file", f"{name[:_SHOWN]}: the image folder itself")
    return "/".join(parts)


@dataclass(frozen=True)
class FileSizes:
    """Bytes of the image files that the records of a list name.

    sizes:  int64 [n], in the order of the records; -1: there is no such file
    digest: sha256 of the sorted list of (file, bytes) as JSON; each file that exists once, by `inside`
    """

    sizes: np.ndarray
    digest: str

    @property
    def exist(self) -> bool:
        """Whether any file exists."""
        return bool((self.sizes >= 0).any())


NO_FILES = FileSizes(np.zeros(0, np.int64), hashlib.sha256(b"[]").hexdigest())
_CHUNK = 1 << 14


def sizes_of(place: Storage, names: Iterable[str]) -> FileSizes:
    """Bytes of the files with these names, some thousands at a time."""
    look: Callable[[str], int | None]
    if place.local is None:
        look = _listed(place).get
    else:

        def look(file: str) -> int | None:
            return _size(place, f"{place.local}/{file}")

    def look_for(some: list[str]) -> list[tuple[str, int]]:
        return [_file_and_size(look, name) for name in some]

    sizes, left = array("q"), iter(names)
    with ThreadPoolExecutor(_LOOKERS) as pool, _Listing() as listing:
        while wanted := list(islice(left, _LOOKERS * _NAMES)):
            parts = [wanted[start : start + _NAMES] for start in range(0, len(wanted), _NAMES)]
            for found in pool.map(look_for, parts):
                sizes.extend(size for _, size in found)
                listing.add([one for one in found if one[1] >= 0])
        return FileSizes(np.frombuffer(sizes, np.int64), listing.digest())


class _Listing:
    """Sorts files by name, on disk if they are many: the database has no name and is deleted when it is closed."""

    def __enter__(self) -> Self:
        self._database = sqlite3.connect("")
        self._database.execute("CREATE TABLE files (file TEXT, bytes INTEGER)")
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def add(self, files: list[tuple[str, int]]) -> None:
        """Add (file, bytes), perhaps again.

        Raises:
            OSError: no space for temporary files.
        """
        with _no_space():
            self._database.executemany("INSERT INTO files VALUES (?, ?)", files)

    def digest(self) -> str:
        """See `FileSizes.digest`.

        Raises:
            OSError: no space for temporary files.
        """
        digest, between = hashlib.sha256(b"["), ""
        with _no_space():
            rows = self._database.execute("SELECT file, MAX(bytes) FROM files GROUP BY file ORDER BY file")
            while some := rows.fetchmany(_CHUNK):
                digest.update((between + json.dumps(some)[1:-1]).encode())
                between = ", "
        digest.update(b"]")
        return digest.hexdigest()


@contextlib.contextmanager
def _no_space() -> Iterator[None]:
    """sqlite's error of a full disk as the system's, which commands report in one line."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise OSError(errno.ENOSPC, "no space for temporary files", tempfile.gettempdir()) from None


def _file_and_size(look: Callable[[str], int | None], name: str) -> tuple[str, int]:
    """The file by `inside`, and its bytes; -1: there is none with this name."""
    try:
        file = inside(name)
    except Unreadable:
        return "", -1
    size = look(file)
    return file, -1 if size is None else size


def read_bytes(place: Storage, name: str) -> bytes:
    """An image file's bytes.

    Raises:
        Unreadable: there is no such file, it is not a regular file, or it cannot be read.
        StorageAway: storage did not answer, which is not a fault of the image.
        InputError: as a remote storage raises it.
    """
    file = inside(name)

    def read() -> bytes:
        try:
            return _remote_bytes(place, file) if place.local is None else _local_bytes(f"{place.local}/{file}", file)
        except OSError as error:
            if error.errno in _ABSENT or isinstance(error, FileNotFoundError):
                raise Unreadable("no such file in the image folder", name[:_SHOWN]) from None
            # pyarrow's message, without an errno, for a name that is a folder of a bucket.
            if error.errno in _UNFIT or (error.errno is None and "Not a regular file" in str(error)):
                raise Unreadable("cannot read the file", f"{name[:_SHOWN]}: {brief(error)}") from None
            raise

    return retry(f"storage {place}: cannot read {name[:_SHOWN]}", read, place.patience)


@lru_cache(64)
def open_place(location: str) -> Storage:
    """The storage of the images, opened once per process."""
    return Storage(location)


def _local_bytes(path: str, name: str) -> bytes:
    with open(path, "rb", opener=_opener) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise Unreadable("not a regular file", name[:_SHOWN])
        _check_size(facts.st_size, name)
        return file.read(facts.st_size)


def _opener(path: str, flags: int) -> int:
    # Opening a pipe without a writer would block.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _remote_bytes(place: Storage, name: str) -> bytes:
    with place.filesystem.open_input_file(f"{place.path}/{name}") as file:
        _check_size(file.size(), name)
        data: bytes = file.read()
        return data


def _check_size(size: int, name: str) -> None:
    if size > MOST_BYTES:
        raise Unreadable("the file is too large", f"{name[:_SHOWN]}: {size:,} bytes, over {MOST_BYTES:,}")


def _size(place: Storage, path: str) -> int | None:
    """Bytes of a regular file; None: there is none with this name."""

    def look() -> int | None:
        try:
            facts = os.stat(path)
        except OSError as error:
            if error.errno in _ABSENT | _UNFIT:
                return None
            raise
        return facts.st_size if stat.S_ISREG(facts.st_mode) else None

    return retry(f"storage {place}: cannot look for images", look, place.patience)


def _listed(place: Storage) -> dict[str, int]:
    selector = pyarrow.fs.FileSelector(place.path, recursive=True, allow_not_found=True)
    what = f"storage {place}: cannot list the images"
    infos = retry(what, lambda: place.filesystem.get_file_info(selector), place.patience)
    return {info.path[len(place.path) + 1 :]: info.size for info in infos if info.type == pyarrow.fs.FileType.File}
