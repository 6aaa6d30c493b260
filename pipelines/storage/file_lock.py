"""One command at a time in a folder. The kernel lets go of the lock when its holder dies, however it dies."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from objgan.errors import InputError


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` for the length of the block, by the file `.lock` in it, which is removed at the end.

    Raises:
        InputError: another process on this machine holds it, or it cannot be written.
    """
    path = folder / ".lock"
    with _held(path) as file:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _held(path: Path) -> IO[str]:
    """The lock file, open and locked; a new one if its last holder removed it meanwhile.

    Raises:
        InputError: as `exclusive`.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        except OSError as error:
            raise InputError(f"cannot write to {path.parent} ({error.strerror}): choose another folder") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                holder = file.read().strip() or "?"
            raise InputError(
                f"{path.parent} is in use by process {holder}: wait for it or choose another folder"
            ) from None
        if is_at(path, file):
            return file
        file.close()


def is_at(path: Path, file: IO[str]) -> bool:
    """Whether `file` is still the file at `path`; a lock file that its last holder removed locks nothing."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path` during the block. Yields whether it was acquired, which may fail only without `wait`.

    Raises:
        InputError: `path` is a link.
        OSError: it cannot be opened.
    """
    with _open_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _open_lock(path: Path) -> IO[bytes]:
    """The lock file, created if it is missing. A link in its place is not followed.

    Raises:
        InputError: it is a link.
        OSError: it cannot be opened.
    """
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "wb")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"the lock file {path} is a link, which may lead anywhere: remove it") from None
        raise
