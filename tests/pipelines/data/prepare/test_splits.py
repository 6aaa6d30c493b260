"""Splits are a function of the image id."""

import pytest

from objgan.errors import InputError
from objgan.sections import DataConfig
from pipelines.data.prepare.splits import split_images, split_of

CONFIG = DataConfig(validation_percent=10, test_percent=20)


def test_shares_are_those_of_the_settings() -> None:
    splits = split_images(range(20000), CONFIG)
    assert {name: round(len(ids) / 200) for name, ids in splits.items()} == {"train": 70, "validation": 10, "test": 20}


def test_an_image_keeps_its_split_whatever_the_others() -> None:
    everyone, some = split_images(range(2000), CONFIG), split_images(range(0, 2000, 7), CONFIG)
    assert all(set(some[name]) <= set(everyone[name]) for name in everyone)
    # Pinned: another hash would mix the splits of data that were prepared before.
    assert [split_of(image_id, CONFIG) for image_id in range(8)] == PINNED


PINNED = ["train", "train", "test", "train", "train", "train", "test", "train"]


def test_every_split_of_a_tiny_data_set_has_an_image() -> None:
    for number in range(3, 12):
        splits = split_images(range(number), CONFIG)
        assert all(splits.values()) and sorted(one for ids in splits.values() for one in ids) == list(range(number))
        assert splits == split_images(list(range(number))[::-1], CONFIG)
    with pytest.raises(InputError, match=r"2 usable image\(s\)"):
        split_images([1, 2], CONFIG)
