"""Intact rows, and rows with one fault each."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pycocotools.mask as coco_mask
import pytest
from PIL import Image

from pipelines.data.shards.format import SCHEMA
from pipelines.data.shards.pixels import squash
from pipelines.data.verify.shard_checks import RowRules, row_faults

SIZE = 16
RULES = RowRules("train", SIZE, classes=2, pixels=True)


def _mask(covered: np.ndarray) -> str:
    return coco_mask.encode(np.asfortranarray(covered.astype(np.uint8)))["counts"].decode()


def _row(**changes) -> dict:
    half = np.zeros((SIZE, SIZE))
    half[:, 8:] = 1
    row = {
        "image_id": 5,
        "file_name": "5.jpg",
        "width": 10,
        "height": 20,
        "split": "train",
        "image": squash(Image.new("RGB", (20, 10), "red"), SIZE),
        "captions": ["A kite.", "two"],
        "tokens": ["a kite", "two"],
        "annotation_ids": [1, 2],
        "labels": [0, 1],
        "boxes": [0.0, 0.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25],
        "areas": [1.0, 0.0625],
        "crowds": [False, True],
        "masks": [_mask(half), None],
        "colours": ["red", None],
        "scene": None,
    }
    return row | changes


def _faults(rules: RowRules = RULES, **changes) -> list[tuple[int, str]]:
    return list(row_faults(pa.Table.from_pylist([_row(), _row(**changes)], schema=SCHEMA), rules))


def test_intact_rows_have_no_faults() -> None:
    assert _faults() == []
    bare = pa.Table.from_pylist([_row(image=None)], schema=SCHEMA)
    assert list(row_faults(bare, replace(RULES, pixels=False))) == []
    edge = [0.0, 0.0, 1.0, 1.0, 1 / 3, 0.5, 2 / 3 + 1e-7, 0.5]
    assert _faults(boxes=edge) == [], "float32 rounds the far side of a box at the border"
    assert _faults(labels=[], boxes=[], areas=[], crowds=[], masks=[], colours=[], annotation_ids=[]) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"image": None}, "no image"),
        ({"image": b"no jpeg"}, "does not decode"),
        ({"image": _row()["image"][:200]}, "does not decode"),
        ({"image": squash(Image.new("RGB", (9, 9)), 8)}, "8 x 8 pixels instead of 16 x 16"),
        ({"masks": ["04", None]}, "mask 0 of 16 x 16 pixels does not decode: run lengths that do not fill"),
        ({"masks": [None, "zzz"]}, "mask 1 of 16 x 16 pixels does not decode: run lengths that are cut short"),
        ({"masks": ["", None]}, "mask 0 of 16 x 16 pixels does not decode"),
        ({"labels": [0, 2]}, "object 1: label 2, but there are 2 classes"),
        ({"labels": [0, None]}, "object 1: label None"),
        ({"labels": [0]}, "1 labels, but 8 boxes, 2 annotation_ids"),
        ({"boxes": [0.0, 0.0, 1.0]}, "2 labels, but 3 boxes"),
        ({"boxes": [0.0, 0.0, 1.0, 1.0, 0.5, float("nan"), 0.25, 0.25]}, "object 1: box (0.5, nan, 0.25, 0.25) is not"),
        ({"boxes": [0.0, 0.0, 1.0, 1.5, 0.5, 0.5, 0.25, 0.25]}, "object 0: box (0, 0, 1, 1.5) reaches outside"),
        ({"boxes": [0.0, 0.0, 1.0, 1.0, 0.5, 0.5, 0.0, 0.25]}, "object 1: box (0.5, 0.5, 0, 0.25) is empty"),
        ({"areas": [1.0, -1.0]}, "object 1: its area is -1.0"),
        ({"areas": [float("nan"), 0.5]}, "object 0: its area is nan"),
        ({"crowds": [None, True]}, "object 0: its crowd flag is null"),
        ({"captions": ["A kite.", None]}, "a caption is null"),
        ({"width": 0}, "the original has 0 x 20"),
        ({"tokens": ["a kite"]}, "2 captions, 1 lists of words"),
        ({"split": "test"}, "split 'test' in a shard of split train"),
        ({"crowds": None}, "null in crowds"),
        ({"colours": []}, "2 labels, but 0 colours"),
    ],
)
def test_a_fault_is_reported_with_its_row(changes: dict, fault: str) -> None:
    faults = _faults(**changes)
    assert {row for row, _ in faults} == {1}
    assert any(fault in text for _, text in faults), faults


def test_pixels_where_there_are_none() -> None:
    assert [row for row, text in _faults(replace(RULES, pixels=False)) if "there are none" in text] == [0, 1]


def test_all_faults_of_a_row_are_reported() -> None:
    assert len(_faults(image=b"", masks=["04", "04"], labels=[0, 9])) == 4
