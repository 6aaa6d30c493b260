"""Image files, by the names that a JSON gives them. A file is there if it can be opened, wherever links lead to.

No name leads out of the image folder by `..` or by a path from the root.
"""

import errno
import os
import stat
from collections.abc import Iterable
from functools import lru_cache

import pyarrow.fs

from pipelines.data.shards.rejected import Unusable
from pipelines.storage.retry import brief, retry
from pipelines.storage.storage import Storage

MOST_BYTES = 2 << 30
"""Of an image file: as large as the largest picture of 16-bit RGBA, uncompressed."""

# The name or the file is at fault; other errors are faults of the disk or the network.
_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_UNFIT = {
    *(errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO),
    *(errno.ENODEV, errno.EAGAIN, errno.EILSEQ, errno.EOVERFLOW, errno.EOPNOTSUPP),
}
_SHOWN = 120


class Unreadable(Unusable):
    """An image cannot be used."""


def inside(name: str) -> str:
    """A name relative to the image folder, without empty parts and `.`.

    Raises:
        Unreadable: no name, one that leads out of the folder, or one that no file can have.
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


def sizes_of(place: Storage, names: Iterable[str]) -> dict[str, int]:
    """Bytes of the files that are there, by the names that were asked for."""
    wanted = {}
    for name in names:
        try:
            wanted[name] = inside(name)
        except Unreadable:
            continue
    if place.local is None:
        listed = _listed(place)
        found = {name: listed.get(file) for name, file in wanted.items()}
    else:
        found = {name: _size(place, f"{place.local}/{file}") for name, file in wanted.items()}
    return {name: size for name, size in found.items() if size is not None}


def read_bytes(place: Storage, name: str) -> bytes:
    """An image file's bytes.

    Raises:
        Unreadable: there is no such file, it is a folder, a pipe or the like, or it cannot be read.
        StorageAway: storage did not answer; that is not the image's fault.
        InputError: as a remote storage raises it.
    """
    file = inside(name)

    def read() -> bytes:
        try:
            return _remote_bytes(place, file) if place.local is None else _local_bytes(f"{place.local}/{file}", file)
        except OSError as error:
            if error.errno in _ABSENT or isinstance(error, FileNotFoundError):
                raise Unreadable("no such file in the image folder", name[:_SHOWN]) from None
            # What pyarrow says, without an errno, of a name that is a folder of a bucket.
            if error.errno in _UNFIT or (error.errno is None and "Not a regular file" in str(error)):
                raise Unreadable("cannot read the file", f"{name[:_SHOWN]}: {brief(error)}") from None
            raise

    return retry(f"storage {place}: cannot read {name[:_SHOWN]}", read, place.patience, place.log)


@lru_cache(64)
def open_place(location: str) -> Storage:
    """The storage of the images, once a process."""
    return Storage(location)


def _local_bytes(path: str, name: str) -> bytes:
    with open(path, "rb", opener=_opener) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise Unreadable("not a regular file", name[:_SHOWN])
        _check_size(facts.st_size, name)
        return file.read(facts.st_size)


def _opener(path: str, flags: int) -> int:
    # Opening a pipe that nobody writes to would wait for ever.
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
    """Bytes of a regular file; None: there is none of that name."""

    def look() -> int | None:
        try:
            facts = os.stat(path)
        except OSError as error:
            if error.errno in _ABSENT | _UNFIT:
                return None
            raise
        return facts.st_size if stat.S_ISREG(facts.st_mode) else None

    return retry(f"storage {place}: cannot look for images", look, place.patience, place.log)


def _listed(place: Storage) -> dict[str, int]:
    selector = pyarrow.fs.FileSelector(place.path, recursive=True, allow_not_found=True)
    infos = retry(
        f"storage {place}: cannot list the images",
        lambda: place.filesystem.get_file_info(selector),
        place.patience,
        place.log,
    )
    return {info.path[len(place.path) + 1 :]: info.size for info in infos if info.type == pyarrow.fs.FileType.File}
