"""Where a COCO data set lies, and what it is: digests that do not depend on the place."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pyarrow.fs

from objgan.errors import InputError
from objgan.files import sha256
from pipelines.faults import brief, persist
from pipelines.locations import without_secrets
from pipelines.splits import Split
from pipelines.storage import Storage

Result = TypeVar("Result")


@dataclass(frozen=True)
class CocoSource:
    """The files of a COCO data set; `images` None: boxes and captions without pixels.

    images:    a folder or a URI (see `pipelines.storage`)
    instances, captions: JSON, gzip'd or not
    split:     how the images are divided
    synonyms:  class -> words by which captions name it, beside its name and `named_classes.SYNONYMS`
    val2014:   ids of COCO 2014's validation images, to warn of them in the training split
    """

    images: Path | str | None
    instances: Path
    captions: Path
    split: Split = field(default_factory=Split)
    val2014: frozenset[int] = frozenset()
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def check(self) -> None:
        """See that the files and the folder are there, without reading them.

        Raises:
            InputError: one is not.
        """
        for what, path in (("instances", self.instances), ("captions", self.captions)):
            _readable(what, path, lambda found: found.open("rb").close())
        if self.images is not None and _is_no_folder(storage := Storage(self.images)):
            raise _no_folder(storage)

    def sizes(self) -> Mapping[str, int]:
        """Bytes of the image files by name (hidden ones apart); empty without images.

        Raises:
            InputError: there is no such folder.
        """
        if self.images is None:
            return {}
        storage = Storage(self.images)
        sizes = _local_sizes(storage.local) if storage.local else _remote_sizes(storage)
        if not sizes and (storage.local is None or _is_no_folder(storage)):
            raise _no_folder(storage)
        return sizes

    def digests(self, sizes: Mapping[str, int] | None = None) -> dict[str, str]:
        """What the inputs are, wherever they lie: sha256 of each JSON file, and of the image files' names and sizes.

        sizes: what `sizes` gave, where that is known

        Raises:
            InputError: a file or the image folder is missing or unreadable.
        """
        digests = {
            "instances": _readable("instances", self.instances, sha256),
            "captions": _readable("captions", self.captions, sha256),
        }
        if self.images is not None:
            listing = sorted((self.sizes() if sizes is None else sizes).items())
            digests["images"] = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
        if self.synonyms:
            text = json.dumps({name: list(words) for name, words in self.synonyms.items()}, sort_keys=True)
            digests["synonyms"] = hashlib.sha256(text.encode()).hexdigest()
        return digests if self.split.kind == "hash" else digests | {"split": self.split.digest or self.split.kind}

    def where(self) -> str:
        """The place of the images, fit to be shown."""
        return without_secrets(str(self.images))


def _is_no_folder(storage: Storage) -> bool:
    """Whether it is known without asking a server."""
    return storage.local is not None and not storage.local.is_dir()


def _no_folder(storage: Storage) -> InputError:
    return InputError(f"images: no folder {storage}; check the path")


def _readable(what: str, path: Path, read: Callable[[Path], Result]) -> Result:
    try:
        return read(path)
    except FileNotFoundError:
        raise InputError(f"{what}: no file {path}; check the path") from None
    except OSError as error:
        raise InputError(f"{what}: cannot read {path} ({brief(error)})") from None


def _local_sizes(folder: Path) -> dict[str, int]:
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            # A dangling link is a file that is not there; the rows say so later.
            if not name.startswith(".") and os.path.exists(path):
                found[os.path.relpath(path, folder).replace(os.sep, "/")] = os.path.getsize(path)
    return found


def _remote_sizes(storage: Storage) -> dict[str, int]:
    selector = pyarrow.fs.FileSelector(storage.path, recursive=True, allow_not_found=True)
    infos = persist(
        f"storage {storage}: cannot list the images",
        lambda: storage.filesystem.get_file_info(selector),
        storage.patience,
        storage.log,
    )
    files = (info for info in infos if info.type == pyarrow.fs.FileType.File and not info.base_name.startswith("."))
    return {info.path[len(storage.path) + 1 :]: info.size for info in files}
