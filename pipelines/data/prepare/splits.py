"""Which image belongs to which split: by its id's hash, by COCO's own parts, or by a list of ids.

By hash it is a function of the id alone, so that all parts of a data set agree.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from objgan.errors import InputError, shown
from objgan.files import read_json, sha256
from objgan.sections import DataConfig
from pipelines.data.prepare.record_values import whole_or_none
from pipelines.data.shards.format import SPLITS

NAMED = ("hash", "coco")
"""Ways to divide that need no file."""
# Karpathy's list says restval for what COCO calls validation and everybody trains on.
_NAMES = {"train": "train", "restval": "train", "val": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Split:
    """A way to divide images; get one from `load_split`.

    kind:   "hash", "coco" or "ids"
    digest: sha256 of the list of ids; empty without one
    """

    kind: str = "hash"
    digest: str = ""
    ids: Mapping[int, str] = field(default_factory=dict)

    def accepts(self, image_id: int, origin: str | None) -> bool:
        """Whether the image belongs to any split."""
        if self.kind == "ids":
            return image_id in self.ids
        return self.kind == "hash" or origin is not None

    def divide(self, images: Mapping[int, str | None], config: DataConfig) -> dict[str, list[int]]:
        """Split -> its image ids, sorted; `images`: id -> COCO's part, all of them accepted.

        Raises:
            InputError: too few images, or a split that nothing belongs to.
        """
        if self.kind == "hash":
            return split_images(list(images), config)
        splits: dict[str, list[int]] = {split: [] for split in SPLITS}
        tested = any(origin is not None and origin.startswith("test") for origin in images.values())
        for image_id, origin in sorted(images.items()):
            split = self.ids[image_id] if self.kind == "ids" else _of_coco(image_id, origin or "", tested, config)
            splits[split].append(image_id)
        for split, members in splits.items():
            if not members:
                raise InputError(
                    f"--split: no usable image belongs to {split}; training, validation and test need at least one each"
                )
        return splits


def load_split(text: str) -> Split:
    """`hash`, `coco`, or a JSON file: {"train": [ids], "validation": [...], "test": [...]}, or Karpathy's list.

    Raises:
        InputError: no such file, or another content.
    """
    if text in NAMED:
        return Split(text)
    path = Path(text)
    content = read_json(path, "--split")
    try:
        pairs = _karpathy(content["images"]) if "images" in content else _listed(content)
        ids: dict[int, str] = {}
        for value, split in pairs:
            image_id = whole_or_none(value)
            if image_id is None or ids.get(image_id, split) != split:
                raise InputError(f"--split: {path} has {shown(value)} twice, or it is no image id; mend the list")
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
        InputError: no such file, or another content.
    """
    content = read_json(path, "--val2014")
    images = content.get("images") if isinstance(content, dict) else content
    values = [one.get("id") if isinstance(one, dict) else one for one in images] if isinstance(images, list) else []
    ids = [whole_or_none(value) for value in values]
    known = frozenset(one for one in ids if one is not None)
    if not ids or None in ids:
        raise InputError(f"--val2014: {path} is neither a list of image ids nor COCO JSON; give one of them")
    return known


def _listed(content: Any) -> Iterable[tuple[int, str]]:
    return [(image_id, _NAMES[name]) for name, ids in content.items() for image_id in ids]


def _karpathy(images: Any) -> Iterable[tuple[int, str]]:
    return [(image["cocoid"], _NAMES[image["split"]]) for image in images]


def _of_coco(image_id: int, origin: str, tested: bool, config: DataConfig) -> str:
    """COCO has no captions of its test images: where there are none, its validation images are shared by hash."""
    if not origin.startswith("val"):
        return "train" if origin.startswith("train") else "test"
    share = config.validation_percent / (config.validation_percent + config.test_percent)
    return "validation" if tested or rank(image_id) / 2**64 < share else "test"


def rank(image_id: int) -> int:
    """A stable pseudo-random number of 64 bits."""
    return int.from_bytes(hashlib.blake2b(str(image_id).encode(), digest_size=8).digest(), "big")


def split_of(image_id: int, config: DataConfig) -> str:
    """train, validation or test, by the percentages of the settings."""
    percent = rank(image_id) / 2**64 * 100
    if percent < config.validation_percent:
        return "validation"
    return "test" if percent < config.validation_percent + config.test_percent else "train"


def split_images(image_ids: Sequence[int], config: DataConfig) -> dict[str, list[int]]:
    """Split by hash -> its image ids, sorted. A split that chance left empty gets one image of the largest split.

    Raises:
        InputError: fewer than three images.
    """
    if len(image_ids) < len(SPLITS):
        raise InputError(
            f"data: {len(image_ids)} usable image(s); training, validation and test need at least one each"
        )
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for image_id in sorted(image_ids):
        splits[split_of(image_id, config)].append(image_id)
    for split in SPLITS:
        if not splits[split]:
            largest = max(SPLITS, key=lambda name: len(splits[name]))
            moved = min(splits[largest], key=rank)
            splits[largest].remove(moved)
            splits[split].append(moved)
    return splits
