"""Which image belongs to which split: a function of its id alone, so that all parts of a data set agree."""

import hashlib
from collections.abc import Sequence

from objgan.errors import InputError
from objgan.sections import DataConfig
from pipelines.shards import SPLITS


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
    """Split -> its image ids, sorted. A split that chance left empty gets one image of the largest split.

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
