"""Files and folders that appear whole or not at all: written aside, then renamed."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from objgan.errors import InputError, shown
from objgan.json_input import LIMITS, JsonFault, JsonLimits, parse_json

SHA256 = re.compile(r"[0-9a-f]{64}")
"""A sum as `sha256` writes it."""


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part of it."""
    with file_aside(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def file_aside(path: Path) -> Iterator[IO[bytes]]:
    """A new file to fill, renamed to ``path`` when the block ends well and removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for their owner alone; these are readable for everybody who may read the folder.
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        raise


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """A new folder to fill, renamed to ``path`` when the block ends well and removed when it does not.

    An older folder at ``path`` is replaced at the very end. The new name is on the disk when the block has ended; the
    files are if their writer synchronised them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    aside.chmod(0o777 & ~_umask())
    try:
        yield aside
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            os.replace(path, old)
            os.replace(aside, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(aside, path)
        _sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def copy_file(source: Path, target: Path) -> None:
    """A copy that appears whole, in place of what was at ``target``."""
    with source.open("rb") as opened, file_aside(target) as aside:
        shutil.copyfileobj(opened, aside, 8 << 20)


def copy_folder(source: Path, target: Path) -> None:
    """A copy that appears whole, in place of what was at ``target``."""
    with folder_aside(target) as aside:
        shutil.copytree(source, aside, dirs_exist_ok=True)


def remove(place: Path) -> None:
    """Remove a file or a folder; quiet where there is none.

    A folder goes out of sight first, so that a removal that is cut short leaves no half of it under its name.
    """
    with contextlib.suppress(FileNotFoundError):
        if place.is_dir() and not place.is_symlink():
            aside = place.with_name(f".{place.name}.removed.{secrets.token_hex(4)}")
            os.replace(place, aside)
            shutil.rmtree(aside)
        else:
            place.unlink()


def read_json(path: Path, what: str, limits: JsonLimits = LIMITS) -> Any:
    """The JSON in ``path``; ``what`` names it in the error.

    Raises:
        InputError: missing, unreadable, no file, not JSON, or over ``limits`` (see `objgan.json_input`).
    """
    try:
        return parse_json(_read_bounded(path, limits.bytes), limits)
    except FileNotFoundError:
        raise InputError(f"{what}: no file {path}; check the path") from None
    except OSError as error:
        raise InputError(f"{what}: cannot read {path} ({error.strerror})") from None
    except JsonFault as fault:
        raise InputError(f"{what}: {path} {fault}") from None
    except ValueError as error:  # a NUL in the path
        raise InputError(f"{what}: {path} is no path ({error})") from None


def _read_bounded(path: Path, most: int) -> bytes:
    """A file's bytes; one byte more than ``most`` where there are more. Never waits, as opening a named pipe would."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        kind = os.fstat(handle).st_mode
        if stat.S_ISFIFO(kind) and str(path).startswith(("/dev/fd/", "/dev/stdin", "/proc/self/fd/")):
            os.set_blocking(handle, True)  # the shell's <(command)
        elif not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return file.read(most + 1)


def check_sums(folder: Path, sums: Any, known: re.Pattern[str], what: str) -> None:
    """See that a folder is what its list of sums says: every file that may be read has a sum, and is what it was.

    sums:  name below the folder -> sha256, from a file that somebody else may have written
    known: the names that such a folder may hold; files of other names are never read, and may lie there
    what:  "model" or "checkpoint", for messages

    Raises:
        InputError: no such list; a name or a sum that is none; a file without a sum, missing or changed.
    """
    again = f"take another copy of the {what}"
    if not isinstance(sums, dict) or not sums:
        raise InputError(f"{what}: {folder} lists no sums of its files: {again}")
    for name, digest in sums.items():
        if not known.fullmatch(name):
            raise InputError(f"{what}: {folder} lists {shown(name)}, which is no file of a {what}: {again}")
        if not isinstance(digest, str) or not SHA256.fullmatch(digest):
            raise InputError(f"{what}: {folder} lists {shown(digest)} as the sum of {name}: {again}")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if unlisted := sorted(name for name in there - sums.keys() if known.fullmatch(name)):
        raise InputError(f"{what}: {folder / unlisted[0]} has no sum in the list of files: {again}")
    for name, digest in sums.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{what}: {path} is missing: {again}")
        if sha256(path) != digest:
            raise InputError(f"{what}: {path} was changed after it was written: {again}")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Names reach the disk with the folder that holds them. Some file systems refuse; those need no telling."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
