"""A bounded folder of fetched files, shared by all processes of a machine; no file in it is believed unseen.

Files are named by the sha256 of what they hold, which is checked whenever one is opened. Whoever fetches, opens or
removes a file holds its lock, so two processes never fetch the same one; the kernel lets go of a lock when its holder
dies. Those used longest ago make room for others. A file that is still mapped when it is removed stays readable there.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from objgan.errors import InputError
from objgan.files import file_aside, sha256

Result = TypeVar("Result")

_Bytes = bytes  # `Wanted` has a field of that name
_FETCHES = 3
"""Times that a file is fetched before what the storage holds counts as damaged."""


@dataclass(frozen=True)
class Wanted:
    """A file: its name in the storage, what it should be, and what writes it, from the beginning, into an open file."""

    name: str
    sha256: str
    bytes: int
    fetch: Callable[[IO[_Bytes]], None]


class ShardCache:
    """At most `limit` bytes in `folder`, but for a file more for every process that is just fetching one.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        try:
            (folder / "locks").mkdir(parents=True, exist_ok=True)
            (folder / "locks" / "room").touch()
        except OSError as error:
            raise InputError(f"compute.cache: cannot write to {folder} ({error.strerror}): set another one") from None

    def open(self, wanted: Wanted, read: Callable[[Path], Result]) -> Result:
        """What `read` makes of the file, fetched first unless it is there and whole.

        Raises:
            InputError: larger than the cache, or not in the storage as it should be.
        """
        path = self.folder / f"{wanted.sha256}{Path(wanted.name).suffix}"
        with self._locked(wanted.sha256):
            if not _is_whole(path, wanted):
                self._fetch(wanted, path)
            os.utime(path)
            return read(path)

    def _fetch(self, wanted: Wanted, path: Path) -> None:
        if wanted.bytes > self.limit:
            raise InputError(
                f"compute.cache_gb: {wanted.name} has {wanted.bytes / 1e9:.3g} GB, the cache {self.limit / 1e9:.3g}: "
                f"raise it"
            )
        path.unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            with self._locked("room"):
                self._make_room(wanted.bytes)
                file = stack.enter_context(file_aside(path))
                # The space counts as taken from now on, for whoever looks for room.
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
        """Remove what was used longest ago until so many bytes fit in; what others are just using stays."""
        files = sorted(self._files(), key=lambda found: found[1].st_mtime_ns)
        total = sum(status.st_size for _, status in files) + size
        for path, status in files:
            if total <= self.limit:
                return
            with self._locked(path.name.lstrip(".").partition(".")[0], wait=False) as held:
                if held:
                    path.unlink(missing_ok=True)
                    total -= status.st_size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """All files, those that a killed process left half-fetched, too."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file():
                        yield Path(entry.path), entry.stat()

    @contextlib.contextmanager
    def _locked(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Hold the lock of a name; without `wait`, say whether it could be had."""
        with (self.folder / "locks" / name).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True


def _is_whole(path: Path, wanted: Wanted) -> bool:
    try:
        return path.stat().st_size == wanted.bytes and sha256(path) == wanted.sha256
    except FileNotFoundError:
        return False
