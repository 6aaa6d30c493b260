"""Storage of a run: a folder, a mount or a bucket, with the same few operations.

Single files appear whole: locally they are written aside and renamed, an object store's put is atomic. Every operation
waits out the faults that pass (`pipelines.storage.retry`).
"""

import errno
import io
import os
import secrets
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import pyarrow.fs
from pyarrow.lib import ArrowException

from objgan.errors import InputError, shown
from objgan.files import copy_file, copy_folder, folder_aside, remove, write_atomically
from objgan.json_input import OWN, JsonFault, JsonLimits, parse_json
from pipelines.redaction import place_of, typed_again
from pipelines.storage.retry import PATIENCE, StorageAway, brief, refused, retry

Result = TypeVar("Result")

# A put in these is atomic, and folders are nothing but parts of names.
_OBJECT_STORES = ("s3", "gcs", "abfs")
_CHUNK = 8 << 20
RUNS = Path("runs")
"""Default place of runs and of their MLflow store."""


class Storage:
    """A place for files by name: `a/b.json` is the file `b.json` in its folder `a`.

    Picklable: the copy opens the file system anew from the URI.

    Args:
        location: a path, or a URI that pyarrow knows: `s3://bucket/folder?endpoint_override=...`, `gs://bucket/folder`
        filesystem: a pyarrow file system that is open already; `location` is then a path within it
        patience: seconds that an operation waits for storage to come back
        log: receives a line when an operation waits; it stays behind when the storage is pickled

    Raises:
        InputError: not a location that can be opened.
    """

    filesystem: pyarrow.fs.FileSystem
    path: str
    """Within the file system."""
    uri: str

    def __init__(
        self, location: str | Path, *, filesystem: pyarrow.fs.FileSystem | None = None, patience: float = PATIENCE
    ) -> None:
        self.patience, self._given = patience, filesystem
        if filesystem is not None:
            self.filesystem, self.path, self.uri = filesystem, str(location).rstrip("/"), str(location)
        elif isinstance(location, Path) or "://" not in location:
            self.path = self.uri = os.path.abspath(_expanded(Path(location)))
            self.filesystem = pyarrow.fs.LocalFileSystem()
        else:
            self.uri = location
            self.filesystem, path = open_location(location, patience)
            self.path = path.rstrip("/")
        self.local: Path | None = Path(self.path) if self.filesystem.type_name == "local" else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.uri if self._given is None else self.path, self._given, self.patience)

    def __str__(self) -> str:
        return place_of(self.uri)

    def __repr__(self) -> str:
        return f"Storage({str(self)!r})"

    @property
    def address(self) -> str:
        """What to type to name this place: its path, or its URI without passwords."""
        return typed_again(self.uri)

    def above(self, levels: int = 1) -> "Storage":
        """The storage of the folder that this one is in; levels: how many folders up."""
        place, mark, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        for _ in range(levels):
            place = place.rstrip("/").rpartition("/")[0]
        return Storage(place + mark + query, filesystem=self._given, patience=self.patience)

    def child(self, name: str) -> "Storage":
        """The storage of the folder `name` of this one."""
        name = _checked(name.rstrip("/"))
        if self._given is not None:
            return Storage(f"{self.path}/{name}", filesystem=self._given, patience=self.patience)
        place, mark, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        return Storage(f"{place.rstrip('/')}/{name}{mark}{query}", patience=self.patience)

    def patient(self, seconds: float) -> "Storage":
        """The same place, with another patience."""
        location = self.path if self._given is not None else self.uri
        return Storage(location, filesystem=self._given, patience=seconds)

    def read(self, name: str, most: int | None = None) -> bytes:
        """A file's bytes; `most`: where it has more of them, one more than that.

        Raises:
            FileNotFoundError: it is not there.
        """
        return self._try(f"read {name}", lambda: self._read(name, most))

    def json(self, name: str, limits: JsonLimits = OWN) -> Any:
        """The JSON in a file; None where there is no file.

        Raises:
            InputError: it is not JSON, or over `limits` (see `objgan.json_input`).
        """
        try:
            return parse_json(self.read(name, limits.bytes), limits)
        except FileNotFoundError:
            return None
        except JsonFault as fault:
            raise InputError(f"{self}/{name} {fault}: delete it or restore it") from None

    def write(self, name: str, data: bytes | str) -> None:
        """Write a file; a reader sees the old one or the new one, never a part."""
        raw = data.encode() if isinstance(data, str) else data
        try:
            self._try(f"write {name}", lambda: self._write(name, raw))
        except FileNotFoundError as error:
            raise refused(f"storage {self}: cannot write {name}", error) from None

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of that name."""
        if self.local is not None:
            place = self.local / _checked(name)
            return self._try(f"look for {name}", place.exists)
        return self._try(f"look for {name}", lambda: self._type(name) != pyarrow.fs.FileType.NotFound)

    def names(self, prefix: str = "", hidden: bool = False) -> list[str]:
        """Names of the files and folders directly in the folder `prefix`, sorted; none where it is not there.

        hidden: those that begin with a dot, too: what is being written, or was left by a killed writer
        """
        found = self._try(f"list {prefix or 'the folder'}", lambda: self._names(prefix))
        return sorted(name for name in found if hidden or not name.startswith("."))

    def delete(self, name: str) -> None:
        """Remove a file or a folder with all that is in it; quiet where there is none."""
        if not name:
            raise ValueError("a storage does not delete itself")
        self._try(f"delete {name}", lambda: self._delete(name))

    def rename(self, old: str, new: str) -> None:
        """Give a file or folder another name in the same storage (in an object store: copied, then deleted)."""
        _checked(old), _checked(new)
        self._try(f"rename {old}", lambda: self.filesystem.move(f"{self.path}/{old}", f"{self.path}/{new}"))

    def upload(self, folder: Path, name: str, last: str | None = None, ready: Callable[[], None] | None = None) -> None:
        """Copy a local folder to `name`, in place of what was there.

        last: a file of the folder that is written last (and, where one is there already, removed first), so that it
            marks the folder as whole. Local folders appear whole anyhow.
        ready: called before each file is written, locally once before the copying; it may raise to stop the upload
        """
        ready = ready or (lambda: None)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        if last is not None and last not in files:
            raise ValueError(f"{folder} has no file {last}")
        ready()
        if self.local is not None:
            place = self.local / _checked(name)
            self._try(f"write {name}", lambda: copy_folder(folder, place))
            return
        if last is not None:
            self.delete(f"{name}/{last}")
        for file in sorted(files, key=lambda file: file == last):
            ready()
            self._try(f"write {name}/{file}", partial(self._send, folder / file, f"{name}/{file}"))

    def fetch(self, name: str, file: IO[bytes], most: int | None = None) -> None:
        """Fill an open file, from its beginning, with what the file `name` holds.

        most: bytes that are expected; where there are more, one more of them is copied and the rest is not

        Raises:
            FileNotFoundError: it is not there.
        """

        def copy() -> None:
            file.seek(0)
            with self.filesystem.open_input_stream(self._full(name)) as opened:
                left = most + 1 if most is not None else -1
                while chunk := opened.read(_CHUNK if left < 0 else min(left, _CHUNK)):
                    file.write(chunk)
                    left -= len(chunk) if left >= 0 else 0
            file.truncate()

        self._try(f"read {name}", copy)

    def send(self, source: Path, name: str) -> None:
        """Copy a local file to `name`, where it appears whole."""
        if self.local is not None:
            place = self.local / _checked(name)
            self._try(f"write {name}", lambda: copy_file(source, place))
        else:
            self._try(f"write {name}", lambda: self._send(source, name))

    def open(self, name: str) -> "SteadyFile":
        """A file to read from any position; every read waits out the faults that pass.

        Raises:
            FileNotFoundError: it is not there.
        """
        return SteadyFile(self, name)

    def download(self, name: str, folder: Path) -> Path:
        """The folder `name` as a local folder: fetched into `folder`, or, of a local storage, where it is.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        if self.local is not None:
            place = self.local / _checked(name)
            if not self._try(f"read {name}", place.is_dir):
                raise FileNotFoundError(2, "no such folder", str(place))
            return place
        files = self._try(f"list {name}", lambda: self._files(name))
        with folder_aside(folder) as aside:
            for file in files:
                target = aside / file
                target.parent.mkdir(parents=True, exist_ok=True)
                self._try(f"read {name}/{file}", partial(self._fetch, f"{name}/{file}", target))
        return folder

    def check(self) -> None:
        """See that files can be written here.

        Raises:
            InputError: no such bucket or folder, or no right to write.
        """
        probe = f".probe.{secrets.token_hex(4)}"
        self.write(probe, b"x")
        self.delete(probe)

    def check_unchanged(self) -> None:
        """As `check`, without leaving anything: no folder is made, in an object store the probe is deleted again.

        Raises:
            InputError: no such bucket, or no right to write.
        """
        if self.local is None:
            self.check()
            return
        place = next(place for place in (self.local, *self.local.parents) if place.exists() or place.is_symlink())
        number = None
        if not place.is_dir():
            number = errno.ENOTDIR
        elif not os.access(place, os.W_OK | os.X_OK):
            number = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
        if number is not None:
            raise refused(f"storage {self}: cannot write to {place}", OSError(number, os.strerror(number)))

    def _try(self, what: str, operation: Callable[[], Result]) -> Result:
        return retry(f"storage {self}: cannot {what}", operation, self.patience)

    def _full(self, name: str) -> str:
        return f"{self.path}/{_checked(name)}" if name else self.path

    def _type(self, name: str) -> Any:
        return self.filesystem.get_file_info(self._full(name)).type

    def _read(self, name: str, most: int | None) -> bytes:
        size = None if most is None else most + 1
        if self.local is not None:
            with (self.local / _checked(name)).open("rb") as local:
                return local.read(size)
        with self.filesystem.open_input_stream(self._full(name)) as file:
            data: bytes = file.read(size)
            return data

    def _write(self, name: str, data: bytes) -> None:
        if self.local is not None:
            write_atomically(self.local / _checked(name), data)
            return
        self._put(name, lambda file: file.write(data))

    def _send(self, source: Path, name: str) -> None:
        with source.open("rb") as opened:
            self._put(name, lambda file: shutil.copyfileobj(opened, file, _CHUNK))

    def _put(self, name: str, fill: Callable[[Any], Any]) -> None:
        full = self._full(name)
        if self.filesystem.type_name in _OBJECT_STORES:
            with self.filesystem.open_output_stream(full) as file:
                fill(file)
            return
        place = PurePosixPath(full)
        self.filesystem.create_dir(str(place.parent), recursive=True)
        aside = str(place.with_name(f".{place.name}.{secrets.token_hex(4)}"))
        with self.filesystem.open_output_stream(aside) as file:
            fill(file)
        self.filesystem.move(aside, full)

    def _fetch(self, name: str, target: Path) -> None:
        with self.filesystem.open_input_stream(self._full(name)) as file, target.open("wb") as opened:
            shutil.copyfileobj(file, opened, _CHUNK)

    def _names(self, prefix: str) -> list[str]:
        if self.local is not None:
            folder = self.local / _checked(prefix)
            return [path.name for path in folder.iterdir()] if folder.is_dir() else []
        selector = pyarrow.fs.FileSelector(self._full(prefix), allow_not_found=True)
        return [info.base_name for info in self.filesystem.get_file_info(selector)]

    def _files(self, name: str) -> list[str]:
        """Paths of the files below, relative to `name`."""
        full = self._full(name)
        infos = self.filesystem.get_file_info(pyarrow.fs.FileSelector(full, recursive=True))
        # Keys of an object store may hold "..", which would lead out of the folder that they are copied to.
        return sorted(_checked(info.path[len(full) + 1 :]) for info in infos if info.type == pyarrow.fs.FileType.File)

    def _delete(self, name: str) -> None:
        if self.local is not None:
            remove(self.local / _checked(name))
            return
        kind, full = self._type(name), self._full(name)
        try:
            if kind == pyarrow.fs.FileType.Directory:
                self.filesystem.delete_dir(full)
            elif kind != pyarrow.fs.FileType.NotFound:
                self.filesystem.delete_file(full)
        except FileNotFoundError:
            pass


def is_damage(error: Exception) -> bool:
    """Whether a library that reads a `SteadyFile` found the file damaged; False: storage or the code is at fault."""
    if isinstance(error, OSError):
        return error.errno is None and not isinstance(error, StorageAway)
    return isinstance(error, ArrowException)


class SteadyFile(io.RawIOBase):
    """A file of a storage, for reading. Its errors are a missing file, and those that `retry` raises."""

    def __init__(self, storage: Storage, name: str) -> None:
        """Raises FileNotFoundError if it is not there."""
        self._storage, self._name, self._position = storage, name, 0
        self._file: Any = None
        self._size: int = self._ask(lambda file: file.size())

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; returns it."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; returns the number of bytes, fewer only at the end of the file."""
        with memoryview(buffer).cast("B") as view:
            size = min(len(view), max(0, self._size - self._position))
            data = self._ask(lambda file: file.read_at(size, self._position))
            view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _ask(self, what: Callable[[Any], Result]) -> Result:
        return self._storage._try(f"read {self._name}", lambda: self._once(what))

    def _once(self, what: Callable[[Any], Result]) -> Result:
        try:
            if self._file is None:
                self._file = self._storage.filesystem.open_input_file(self._storage._full(self._name))
            return what(self._file)
        except OSError:
            self._file = None
            raise


def _reopen(location: str, filesystem: pyarrow.fs.FileSystem | None, patience: float) -> Storage:
    return Storage(location, filesystem=filesystem, patience=patience)


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise InputError(f"storage {path}: there is no such home folder; write the whole path, or set HOME") from None


def _checked(name: str) -> str:
    """A name that leads to no place outside of the storage.

    Raises:
        InputError: it may lead elsewhere.
    """
    if name and (name.startswith("/") or {"", ".", ".."} & set(name.split("/")) or "\0" in name):
        raise InputError(f"{shown(name)} is not a name within the storage: use names without .., // and the like")
    return name


def open_location(uri: str, patience: float) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of a URI and the path within it.

    Raises:
        InputError: not a URI that pyarrow can open.
    """
    shown = place_of(uri)
    # Left alone, the client of gs:// tries for a quarter of an hour by itself, whatever our patience.
    if uri.startswith(("gs://", "gcs://")) and "retry_limit_seconds" not in uri:
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={max(1, min(20, int(patience)))}"
    try:
        opened: tuple[pyarrow.fs.FileSystem, str] = retry(
            f"storage {shown}: cannot open it", lambda: pyarrow.fs.FileSystem.from_uri(uri), patience
        )
    except (ArrowException, ImportError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        text = brief(error).replace(uri, shown)
        raise InputError(f"storage {shown}: not a location that can be opened ({text}): check it") from None
    if not opened[1].strip("/"):
        raise InputError(f"storage {shown}: names no bucket or folder: write it like s3://bucket/folder")
    return opened
