"""Prepared data at any location: a local folder is read in place, a URI through the node's cache.

Readers ask for files by name and do not see the difference.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from objgan.config import Config
from objgan.errors import InputError
from objgan.files import folder_aside, sha256
from objgan.sections import ComputeConfig
from pipelines.data.loading.shard_cache import ShardCache, Wanted
from pipelines.data.shards.format import Shard, index_name, load_manifest, shards_of
from pipelines.data.shards.manifest import MANIFEST
from pipelines.data.shards.remote import read_manifest
from pipelines.storage.file_lock import waiting
from pipelines.storage.storage import Storage

Result = TypeVar("Result")

REMOTE_WINDOW = 64
"""Shards whose samples are shuffled together if the data are remote and `training.window` is not set."""
_MOST_DOMAIN = 4 << 30
"""Bytes of one domain file: the vectors of a million words have about one GiB."""

_ADVICE = {
    "image": "prepare with --images",
    "masks": "prepare instances that have segmentations",
    "attributes": "prepare instances that say colours or scenes, such as the sample's, into another folder",
}
_NEEDS = {"image": "pixels", "masks": "masks", "attributes": "attributes"}


def is_remote(location: Path | str) -> bool:
    """Whether it is a URI of remote files."""
    return isinstance(location, str) and "://" in location and not location.startswith("file:")


class DataFolder:
    """A prepared folder on this machine."""

    location: Path | str
    """What `open_data` opens it from."""
    manifest: dict[str, Any]

    def __init__(self, folder: Path) -> None:
        """Open it.

        Raises:
            InputError: it is not a prepared folder, or a file is missing or cut short.
        """
        self.location = self._folder = folder
        self.manifest = load_manifest(folder)

    def __str__(self) -> str:
        return str(self._folder)

    def name(self, shard: Shard) -> str:
        """The shard's location, for messages."""
        return f"{self}/{shard.name}"

    def read(self, shard: Shard, read: Callable[[Path], Result]) -> Result:
        """The result of `read` for the local path of a shard or an index."""
        return read(self._folder / shard.name)

    def most_open(self, asked: int) -> int:
        """The number of shards, at most `asked`, that a reader may keep open."""
        return asked

    def domain(self) -> Path:
        """A local folder to load the domain from."""
        return self._folder / "domain"

    def check_room(self, window: int | None) -> None:
        """Check that the shards of a window can be local at the same time.

        Raises:
            InputError: they cannot.
        """

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split, in order."""
        return shards_of(self.manifest, split)

    def index(self, split: str) -> Shard:
        """The file of a split's index."""
        return next(Shard(**file) for file in self.manifest["indices"] if file["name"] == index_name(split))

    def check_columns(self, columns: frozenset[str], config: Config) -> None:
        """Check that a stage can be trained on the data.

        Raises:
            InputError: a column is missing, or they were not prepared for training.
        """
        manifest = self.manifest
        if manifest["format"] != "arrow":
            raise InputError(f"data: training reads Arrow, {self} is {manifest['format']}: prepare with --format arrow")
        for name in sorted(columns):
            if not manifest["columns"].get(name, False):
                needed, advice = _NEEDS.get(name, name), _ADVICE.get(name, "prepare again")
                raise InputError(f"data: this stage needs {needed}, {self} has none: {advice}")
        stored, wanted = manifest["settings"]["image_size"], config.data.image_size
        if "image" in columns and stored < wanted:
            raise InputError(f"data: {self} has images of {stored} pixels, data.image_size is {wanted}")


class RemoteFolder(DataFolder):
    """A remote prepared folder: manifest and domain are fetched first, shards when they are needed."""

    def __init__(self, storage: Storage, cache: ShardCache) -> None:
        """Open it.

        Raises:
            InputError: it is not a prepared folder.
        """
        self.location, self._storage, self._cache = storage.uri, storage, cache
        self.manifest = read_manifest(storage)

    def __str__(self) -> str:
        return str(self._storage)

    def read(self, shard: Shard, read: Callable[[Path], Result]) -> Result:
        """The result of `read` for the copy of a shard or an index in the cache."""
        fetch = partial(self._storage.fetch, shard.name, most=shard.bytes)
        try:
            return self._cache.open(Wanted(shard.name, shard.sha256, shard.bytes, fetch), read)
        except FileNotFoundError:
            raise InputError(f"data: {self.name(shard)} is missing; upload the output of prepare again") from None

    def most_open(self, asked: int) -> int:
        """As many as fit into the cache: a mapped file keeps its space even after it is removed."""
        return max(1, min(asked, self._cache.limit // self._largest()))

    def check_room(self, window: int | None) -> None:
        """Check that the shards of a window fit into the cache: otherwise each would be fetched repeatedly.

        Raises:
            InputError: they do not.
        """
        count = len(self.manifest["shards"]) if window is None else min(window, len(self.manifest["shards"]))
        if count * self._largest() > self._cache.limit:
            raise InputError(
                f"compute.cache_gb: {count} shards of up to {self._largest() / 1e9:.3g} GB are shuffled together, the "
                f"cache holds {self._cache.limit / 1e9:.3g} GB: raise it, or lower training.window"
            )

    def domain(self) -> Path:
        """A copy next to the cache, checked against the manifest."""
        digest = self.manifest["digest"]
        place = self._cache.domains / digest
        with waiting(self._cache.locks / f"domain-{digest}"):
            if place.is_symlink():
                place.unlink()
            if not self._is_whole(place):
                with folder_aside(place) as aside:
                    for name in self.manifest["domain"]:
                        self._fetch_domain(name, aside / name)
                    if not self._is_whole(aside):
                        raise InputError(f"data: {self}/domain is not what {MANIFEST} says; upload it again")
        return place

    def _fetch_domain(self, name: str, path: Path) -> None:
        try:
            with path.open("wb") as file:
                self._storage.fetch(f"domain/{name}", file, _MOST_DOMAIN)
        except FileNotFoundError:
            raise InputError(f"data: {self}/domain/{name} is missing; upload the output of prepare again") from None
        if path.stat().st_size > _MOST_DOMAIN:
            raise InputError(f"data: {self}/domain/{name} has more than {_MOST_DOMAIN >> 30} GiB; upload it again")

    def _is_whole(self, folder: Path) -> bool:
        return all(
            (folder / name).is_file() and not (folder / name).is_symlink() and sha256(folder / name) == digest
            for name, digest in self.manifest["domain"].items()
        )

    def _largest(self) -> int:
        return max(int(shard["bytes"]) for shard in self.manifest["shards"])


def open_data(location: Path | str, compute: ComputeConfig) -> DataFolder:
    """Prepared data in a folder or at a URI.

    Raises:
        InputError: there are no prepared data.
    """
    if not is_remote(location):
        place = Storage(location).local if isinstance(location, str) else location
        assert place is not None
        return DataFolder(place)
    try:
        folder = compute.cache.expanduser()
    except RuntimeError:
        raise InputError(
            f"compute.cache: {compute.cache} needs a home folder, there is none: set another one"
        ) from None
    return RemoteFolder(Storage(location), ShardCache(folder, int(compute.cache_gb * 1e9)))
