"""A bounded folder of fetched files, shared by all processes of a machine; every file is checked before use.

Files are named by the sha256 of their content, which is checked each time a file is opened. A process that fetches,
opens or removes a file holds its lock, so two processes never fetch the same file; the kernel releases a lock when its
holder dies. The least recently used files are removed first. A removed file stays readable where it is mapped.

Nothing outside the folder is opened, written or removed, for any manifest and any links in the folder; nor is a file
in it that the cache did not make.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from objgan.errors import InputError, shown
from objgan.files import SHA256, file_aside, sha256
from pipelines.data.shards.manifest import FORMATS, MOST_BYTES, is_sha256
from pipelines.storage.file_lock import locked

Result = TypeVar("Result")

_Bytes = bytes  # `Wanted` has a field `bytes`
_FETCHES = 3
"""Number of fetches after which a file in the storage counts as damaged."""
_OURS = re.compile(rf"\.?({SHA256.pattern})\.({'|'.join(FORMATS)})(\.[a-z0-9_]+)?")
"""A file of the cache, or one that is being fetched."""


@dataclass(frozen=True)
class Wanted:
    """A file: its name in the storage, its expected content, and a function that writes it into an open file.

    Raises:
        InputError: a file of prepared data cannot have this name, sha256 or size.
    """

    name: str
    sha256: str
    bytes: int
    fetch: Callable[[IO[_Bytes]], None]

    def __post_init__(self) -> None:
        if not is_sha256(self.sha256) or not 0 < self.bytes <= MOST_BYTES or Path(self.name).suffix[1:] not in FORMATS:
            raise InputError(
                f"data: {shown(self.name)} of {shown(self.bytes)} bytes with sha256 {shown(self.sha256)} is not a "
                "shard; prepare the data again"
            )

    @property
    def file(self) -> str:
        """Its name in the cache."""
        return self.sha256 + Path(self.name).suffix


class ShardCache:
    """At most `limit` bytes in `folder`, plus one file for every process that is fetching.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.limit = limit
        try:
            self.folder = folder.resolve()
            self.locks, self.domains = (_own_folder(self.folder / name) for name in ("locks", "domains"))
            with locked(self.locks / "room", wait=False):
                pass
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"compute.cache: cannot write to {folder} ({reason}): set another one") from None

    def open(self, wanted: Wanted, read: Callable[[Path], Result]) -> Result:
        """The result of `read` for the file, which is fetched first unless an intact copy exists.

        Raises:
            InputError: the file is larger than the cache, or damaged in the storage.
        """
        path = self.folder / wanted.file
        with locked(self.locks / wanted.sha256):
            if path.is_symlink() or not _is_whole(path, wanted):
                self._fetch(wanted, path)
            os.utime(path, follow_symlinks=False)
            return read(path)

    def _fetch(self, wanted: Wanted, path: Path) -> None:
        if wanted.bytes > self.limit:
            raise InputError(
                f"compute.cache_gb: {wanted.name} has {wanted.bytes / 1e9:.3g} GB, the cache {self.limit / 1e9:.3g}: "
                f"raise it"
            )
        path.unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            with locked(self.locks / "room"):
                self._make_room(wanted.bytes)
                file = stack.enter_context(file_aside(path))
                # From now on the space counts as used for other processes.
                file.truncate(wanted.bytes)
            for _ in range(_FETCHES):
                wanted.fetch(file)
                file.flush()
                if _is_whole(Path(f"/proc/self/fd/{file.fileno()}"), wanted):
                    return
            raise InputError(
                f"data: {wanted.name} is not what the manifest says, fetched {_FETCHES} times: prepare the data again"
            )

    def _make_room(self, size: int) -> None:
        """Remove the least recently used files until `size` more bytes fit; files in use stay."""
        files = sorted(self._files(), key=lambda file: file[1].st_mtime_ns)
        total = sum(status.st_size for _, status in files) + size
        for path, status in files:
            if total <= self.limit:
                return
            with locked(self.locks / path.name.lstrip(".").partition(".")[0], wait=False) as held:  # its sha256
                if held:
                    path.unlink(missing_ok=True)
                    total -= status.st_size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """The files of the cache, including those that a killed process left incomplete. Other files are ignored."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        yield Path(entry.path), entry.stat(follow_symlinks=False)


def _own_folder(path: Path) -> Path:
    """A folder of the cache, created if it is missing.

    Raises:
        OSError: it cannot be made, or a link or a file is in its place.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(parents=True)
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"{path.name} in it is a link or a file, not a folder")
    return path


def _is_whole(path: Path, wanted: Wanted) -> bool:
    try:
        return path.stat().st_size == wanted.bytes and sha256(path) == wanted.sha256
    except FileNotFoundError:
        return False
