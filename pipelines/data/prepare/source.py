"""A COCO data set: its location, its digests, and the split of each image.

A split by hash depends only on the id, so that all parts of a data set agree.
"""

import contextlib
import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from objgan.errors import InputError, shown
from objgan.files import read_json, sha256
from objgan.sections import DataConfig
from pipelines.data.prepare.coco_records import Record, file_name_of, is_caption, is_object
from pipelines.data.prepare.json_stream import JsonFile, records
from pipelines.data.prepare.record_values import identity_or_none, text_id
from pipelines.data.shards.image_files import NO_FILES, FileSizes, sizes_of
from pipelines.data.shards.manifest import SPLITS
from pipelines.redaction import place_of
from pipelines.storage.retry import StorageAway, brief
from pipelines.storage.storage import Storage

FROM_CLASSES = "classes"
"""Captions that `prepare` writes (see `objgan.stated_captions`)."""
NAMED = ("hash", "coco")
"""Splits that need no file."""
# Karpathy's "restval" is the part of COCO's validation set that is used for training.
_NAMES = {"train": "train", "restval": "train", "val": "validation", "validation": "validation", "test": "test"}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Images:
    """Images in columns, sorted by id: all that the command holds of each; their rows are on disk.

    ids:     int64 [n]
    parts:   int16 [n], of the data set, from 0
    found:   bool [n]: whether the image's file exists
    origins: int16 [n], numbers of `names`: COCO's own parts, such as "val2014"; -1: unknown
    """

    ids: np.ndarray
    parts: np.ndarray
    found: np.ndarray
    origins: np.ndarray
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, places: np.ndarray) -> "Images":
        """Those at these places, int64 [n], or with these flags, bool [n]."""
        return Images(self.ids[places], self.parts[places], self.found[places], self.origins[places], self.names)

    def come_from(self, start: str) -> np.ndarray:
        """bool [n]: which are of COCO's parts whose names start like this."""
        return np.isin(self.origins, [number for number, name in enumerate(self.names) if name.startswith(start)])


Sizes = Sequence[FileSizes]
"""Of every part of a data set."""

_CHUNK = 1 << 16
_ORIGIN = re.compile(r"(?<![A-Za-z])(?:train|val|test)20\d\d(?!\d)")


@dataclass(frozen=True)
class Split:
    """A way to divide images, made by `load_split`.

    kind:   "hash", "coco" or "ids"
    digest: sha256 of the list of ids; empty without a list
    """

    kind: str = "hash"
    digest: str = ""
    ids: Mapping[int, str] = field(default_factory=dict)

    def accepts(self, images: Images) -> np.ndarray:
        """bool [n]: which images belong to any split."""
        if self.kind == "ids":
            return np.isin(images.ids, np.fromiter(self.ids, np.int64, len(self.ids)))
        return images.origins >= 0 if self.kind == "coco" else np.ones(len(images), bool)

    def divide(self, images: Images, config: DataConfig) -> dict[str, np.ndarray]:
        """Split -> its image ids, int64 [n], sorted.

        images: all of them accepted

        Raises:
            InputError: too few images, or an empty split.
        """
        ids = images.ids
        if self.kind == "hash":
            return split_images(ids, config)
        numbers = self._listed(ids) if self.kind == "ids" else _of_coco(images, config)
        splits = {split: ids[numbers == number] for number, split in enumerate(SPLITS)}
        for split, members in splits.items():
            if not len(members):
                raise InputError(
                    f"--split: no usable image belongs to {split}; training, validation and test need at least one each"
                )
        return splits

    def _listed(self, ids: np.ndarray) -> np.ndarray:
        """int8 [n]: number of the split that the list names."""
        return np.fromiter((SPLITS.index(self.ids[int(image_id)]) for image_id in ids), np.int8, len(ids))


def load_split(text: str) -> Split:
    """`hash`, `coco`, or a JSON file: {"train": [ids], "validation": [...], "test": [...]}, or Karpathy's list.

    Raises:
        InputError: there is no such file, or it has other content.
    """
    if text in NAMED:
        return Split(text)
    path = Path(text)
    content = read_json(path, "--split")
    try:
        pairs = _karpathy(content["images"]) if "images" in content else _listed(content)
        ids: dict[int, str] = {}
        for value, split in pairs:
            image_id = identity_or_none(value)
            if image_id is None or ids.get(image_id, split) != split:
                raise InputError(f"--split: {path} has {shown(value)} twice, or it is not an image id; fix the list")
            ids[image_id] = split
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f'--split: {path} is neither {{"train": [ids], "validation": [ids], "test": [ids]}} nor Karpathy\'s list '
            f"({type(error).__name__}: {error}); or say hash or coco"
        ) from None
    return Split("ids", sha256(path), ids)


def load_ids(path: Path) -> frozenset[int]:
    """Image ids of a JSON file: a list of them, or COCO JSON with "images".

    Raises:
        InputError: there is no such file, or it has other content.
    """
    content = read_json(path, "--val2014")
    images = content.get("images") if isinstance(content, dict) else content
    values = (
        [image.get("id") if isinstance(image, dict) else image for image in images] if isinstance(images, list) else []
    )
    ids = [identity_or_none(value) if text_id(value) is None else None for value in values]
    known = frozenset(image_id for image_id in ids if image_id is not None)
    if not ids or None in ids:
        raise InputError(f"--val2014: {path} is neither a list of image ids nor COCO JSON; give one of them")
    return known


def _listed(content: Any) -> Iterable[tuple[int, str]]:
    return [(image_id, _NAMES[name]) for name, ids in content.items() for image_id in ids]


def _karpathy(images: Any) -> Iterable[tuple[int, str]]:
    return [(image["cocoid"], _NAMES[image["split"]]) for image in images]


def _of_coco(images: Images, config: DataConfig) -> np.ndarray:
    """int8 [n]: number of the split of each image.

    COCO publishes no captions of its test images: without them, its validation images are divided by hash.
    """
    train, validation, test = (images.come_from(name) for name in ("train", "val", "test"))
    numbers = np.full(len(images), SPLITS.index("test"), np.int8)
    numbers[train] = SPLITS.index("train")
    if not test.any():
        share = config.validation_percent / (config.validation_percent + config.test_percent)
        validation[validation] = _ranks(images.ids[validation]) / 2**64 < share
    numbers[validation] = SPLITS.index("validation")
    return numbers


def rank(image_id: int) -> int:
    """A stable pseudo-random number of 64 bits."""
    return int.from_bytes(hashlib.blake2b(str(image_id).encode(), digest_size=8).digest(), "big")


def _ranks(image_ids: np.ndarray) -> np.ndarray:
    """uint64 [n]: `rank` of each id."""
    return np.fromiter((rank(int(image_id)) for image_id in image_ids), np.uint64, len(image_ids))


def split_of(image_id: int, config: DataConfig) -> str:
    """train, validation or test, by the percentages of the settings."""
    percent = rank(image_id) / 2**64 * 100
    if percent < config.validation_percent:
        return "validation"
    return "test" if percent < config.validation_percent + config.test_percent else "train"


def split_images(image_ids: Sequence[int] | np.ndarray, config: DataConfig) -> dict[str, np.ndarray]:
    """Split by hash (see `split_of`) -> its image ids, int64 [n], sorted.

    A split that is empty by chance gets one image of the largest split.

    Raises:
        InputError: fewer than three images.
    """
    if len(image_ids) < len(SPLITS):
        raise InputError(
            f"data: {len(image_ids)} usable image(s); training, validation and test need at least one each"
        )
    ids = np.sort(np.asarray(image_ids, np.int64))
    held_out = np.array([config.validation_percent, config.validation_percent + config.test_percent])
    numbers = np.empty(len(ids), np.int8)
    for start in range(0, len(ids), _CHUNK):
        percents = _ranks(ids[start : start + _CHUNK]) / 2**64 * 100
        numbers[start : start + _CHUNK] = np.searchsorted(held_out, percents, "right")
    members = {split: numbers == number for number, split in enumerate(("validation", "test", "train"))}
    for split in SPLITS:
        if not members[split].any():
            largest = max(SPLITS, key=lambda name: np.count_nonzero(members[name]))
            moved = np.flatnonzero(members[largest])[_ranks(ids[members[largest]]).argmin()]
            members[largest][moved], members[split][moved] = False, True
    return {split: ids[members[split]] for split in SPLITS}


@dataclass(frozen=True)
class CocoPart:
    """A folder of images with its two JSON files, as `CocoSource` describes them; both may be one file."""

    images: Path | str | None
    instances: JsonFile
    captions: JsonFile | None

    @property
    def in_one_file(self) -> bool:
        """Whether objects and captions are in one file."""
        if self.captions is None:
            return False
        if isinstance(self.instances, Path) and isinstance(self.captions, Path):
            with contextlib.suppress(OSError):
                return self.instances.samefile(self.captions)
        return self.instances == self.captions

    def annotations(self, role: str) -> Iterator[Record]:
        """The objects (`role` "instances") or the captions (`role` "captions"), in order.

        In one file for both, records with a caption are captions; all others, and those that also have a box, are
        objects; its list "captions", if it has one, has further captions. Without a captions file, captions among the
        objects are ignored.

        Raises:
            InputError: as `json_stream.records`.
        """
        path = getattr(self, role)
        if path is None:
            return
        annotations = records(path, role, "annotations")
        if self.captions is not None and not self.in_one_file:
            yield from annotations
        elif role == "instances":
            yield from (record for record in annotations if is_object(record) or not is_caption(record))
        else:
            yield from filter(is_caption, annotations)
            yield from records(path, role, "captions", optional=True)

    def check(self) -> None:
        """Check that the files and the folder exist, without reading them.

        Raises:
            InputError: one does not.
        """
        for role, path in (("instances", self.instances), ("captions", self.captions)):
            if path is not None:
                _readable(role, path, lambda file: file.open("rb").close())
        if self.images is not None:
            _image_folder(self.images)

    def sizes(self) -> FileSizes:
        """Bytes of the image files, by record of the instances JSON; empty without images.

        Raises:
            InputError: there is no such folder, or the JSON cannot be read.
        """
        if self.images is None:
            return NO_FILES
        storage = _image_folder(self.images)
        _readable("instances", self.instances, lambda file: None)
        names = (file_name_of(image) for image in records(self.instances, "instances", "images"))
        sizes = sizes_of(storage, names)
        if not sizes.exist and storage.local is None and not storage.exists():
            raise _no_folder(storage)
        return sizes

    def origin(self) -> str | None:
        """COCO's own part, such as "val2017", from the name of the instances JSON or of the folder."""
        folder = "" if self.images is None else place_of(str(self.images)).rstrip("/").rpartition("/")[2]
        for text in (self.instances.name, folder):
            if match := _ORIGIN.search(text):
                return match[0]
        return None

    def where(self) -> str:
        """The location of the images, without secrets."""
        return place_of(str(self.images))


@dataclass(frozen=True)
class CocoSource:
    """The files of a COCO data set; `images` None: boxes and captions without pixels.

    images:    a folder or a URI (see `pipelines.storage.storage`)
    instances, captions: JSON, also gzip-compressed or remote; captions None, of all parts: `prepare` writes them from
               the objects
    split:     how the images are divided
    synonyms:  class -> words by which captions name it, beside its name and `named_classes.SYNONYMS`
    val2014:   ids of COCO 2014's validation images, to warn of them in the training split
    more:      further parts of the same data set, such as those of val2017 beside train2017; ids are of all parts
    """

    images: Path | str | None
    instances: JsonFile
    captions: JsonFile | None
    split: Split = field(default_factory=Split)
    val2014: frozenset[int] = frozenset()
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    more: tuple[CocoPart, ...] = ()

    @property
    def parts(self) -> tuple[CocoPart, ...]:
        """All parts, in order."""
        return CocoPart(self.images, self.instances, self.captions), *self.more

    def named(self, role: str) -> str:
        """The JSON files `instances` or `captions` of all parts, for messages."""
        return ", ".join(str(getattr(part, role)) for part in self.parts)

    def check(self) -> None:
        """Check that the files and the folders exist, without reading them.

        Raises:
            InputError: one does not.
        """
        for part in self.parts:
            part.check()

    def sizes(self) -> Sizes:
        """Bytes of the image files, by part.

        Raises:
            InputError: a folder is not there, or a JSON cannot be read.
        """
        return [part.sizes() for part in self.parts]

    def digests(self, sizes: Sizes | None = None) -> dict[str, str]:
        """Identity of the inputs at any location: sha256 of each JSON file, and of the image files' names and sizes.

        sizes: result of `sizes`, if known

        Raises:
            InputError: a file or the image folder is missing or unreadable.
        """
        roles = ("instances",) if self.captions is None else ("instances", "captions")
        digests = {
            role: _joined([_readable(role, getattr(part, role), _digest) for part in self.parts]) for role in roles
        }
        if self.captions is None:
            digests["captions_from"] = FROM_CLASSES
        if self.images is not None:
            digests["images"] = _joined([part.digest for part in (self.sizes() if sizes is None else sizes)])
        if self.synonyms:
            text = json.dumps({name: list(words) for name, words in self.synonyms.items()}, sort_keys=True)
            digests["synonyms"] = _sha256(text)
        return digests if self.split.kind == "hash" else digests | {"split": self.split.digest or self.split.kind}


def _digest(path: JsonFile) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _joined(digests: list[str]) -> str:
    return digests[0] if len(digests) == 1 else _sha256(json.dumps(digests))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _image_folder(location: Path | str) -> Storage:
    """The storage of the images; whether a remote folder exists is not checked."""
    storage = Storage(location)
    if storage.local is not None and not storage.local.is_dir():
        raise _no_folder(storage)
    return storage


def _no_folder(storage: Storage) -> InputError:
    return InputError(f"images: no folder {storage}; check the path")


def _readable(role: str, path: JsonFile, read: Callable[[JsonFile], Result]) -> Result:
    try:
        if isinstance(path, Path) and not stat.S_ISREG(mode := path.stat().st_mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
            raise InputError(f"{role}: {path} is {kind}: give a regular file, because it is read several times")
        return read(path)
    except FileNotFoundError:
        raise InputError(f"{role}: no file {path}; check the path") from None
    except StorageAway:
        raise
    except OSError as error:
        raise InputError(f"{role}: cannot read {path} ({brief(error)})") from None
