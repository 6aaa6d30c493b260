import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
import torch

from objgan.errors import InputError
from objgan.geometry import ellipses
from objgan.layout import Layout
from objgan.layout_file import GivenLayout, LayoutRules, layout_to_json, parse_layout, read_layout

CLASSES = ("kite", "boat", "person", "stop sign", "sheep")
SIDE = 16
RULES = LayoutRules(CLASSES, max_objects=3, mask_size=SIDE)


def some_layout(masks: bool = True) -> Layout:
    boxes = torch.tensor([[[0.1, 0.5, 0.8, 0.5], [0.3, 0.1, 1 / 3, 0.2], [0.0, 0.0, 0.0, 0.0]]])
    shapes = ellipses(boxes, SIDE).float() * torch.tensor([0.9, 0.6, 0.0])[:, None, None]
    return Layout(torch.tensor([[1, 0, 0]]), boxes, torch.tensor([2]), shapes if masks else None)


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def rectangle(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def read(folder: Path, *objects: Any, **more: Any) -> GivenLayout:
    path = folder / "layout.json"
    path.write_text(json.dumps({"version": 1, "caption": "a kite", "objects": list(objects)} | more))
    return read_layout(path, RULES)


def test_what_was_written_reads_back_to_the_last_bit(tmp_path: Path) -> None:
    layout = some_layout()
    (tmp_path / "a.json").write_text(layout_to_json(layout, CLASSES, "a kite über the “sea”"))
    given = read_layout(tmp_path / "a.json", RULES)
    assert given.caption == "a kite über the “sea”"
    assert given.drawn.tolist() == [[True, True, False]]
    for ours, theirs in ((layout.labels, given.layout.labels), (layout.boxes, given.layout.boxes)):
        assert torch.equal(ours, theirs)
    assert given.layout.masks is not None and layout.masks is not None
    assert torch.equal(given.layout.masks == 255, layout.masks >= 0.5)
    (tmp_path / "b.json").write_text(layout_to_json(given.layout, CLASSES, given.caption))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_masks_are_what_pycocotools_reads(tmp_path: Path) -> None:
    layout = some_layout()
    (tmp_path / "a.json").write_text(layout_to_json(layout, CLASSES, "a kite"))
    entry = json.loads((tmp_path / "a.json").read_text())["objects"][0]["mask"]
    assert layout.masks is not None
    decoded = pycocotools.mask.decode({"size": entry["size"], "counts": entry["counts"]})
    assert np.array_equal(decoded, layout.masks[0, 0].numpy() >= 0.5)


def test_a_noisy_mask_survives_the_string_of_runs(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).random((SIDE, SIDE)) < 0.5
    given = read(tmp_path, {"label": "kite", "box": [0, 0, 1, 1], "mask": rle(noise) | {"box": [0, 0, 1, 1]}})
    assert given.layout.masks is not None
    assert np.array_equal(given.layout.masks[0, 0].numpy() == 255, noise)


def test_boxes_alone_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(layout_to_json(some_layout(masks=False), CLASSES, "a kite"))
    given = read_layout(tmp_path / "a.json", RULES)
    assert given.layout.masks is None and not given.drawn.any() and given.layout.count.tolist() == [2]
    empty = read(tmp_path)
    assert empty.layout.count.tolist() == [0] and empty.layout.masks is None
    assert empty.layout.boxes.shape == (1, 3, 4)


def test_objects_are_sorted_by_area_and_keep_their_masks(tmp_path: Path) -> None:
    given = read(
        tmp_path,
        {"label": "kite", "box": [0, 0, 0.25, 0.25], "mask": rle(rectangle(0, 0, 4, 4))},
        {"label": "boat", "box": [0, 0.5, 1, 0.5]},
    )
    assert given.layout.labels.tolist() == [[1, 0, 0]]
    assert given.drawn.tolist() == [[False, True, False]]
    assert given.layout.masks is not None
    assert given.layout.masks[0, 0].sum() == 0 and (given.layout.masks[0, 1] == 255).sum() == 16


def test_a_mask_follows_its_box(tmp_path: Path) -> None:
    mask = rle(rectangle(0, 0, 4, 4)) | {"box": [0, 0, 0.5, 0.5]}  # the mask fills a quarter of its box
    given = read(tmp_path, {"label": "kite", "box": [0.5, 0.5, 0.5, 0.5], "mask": mask})
    assert given.layout.masks is not None
    assert np.array_equal(given.layout.masks[0, 0].numpy() == 255, rectangle(8, 8, 4, 4))
    doubled = read(tmp_path, {"label": "kite", "box": [0, 0, 1, 0.5], "mask": mask})
    assert doubled.layout.masks is not None
    assert np.array_equal(doubled.layout.masks[0, 0].numpy() == 255, rectangle(0, 0, 8, 4))


def test_a_mask_of_ones_own_is_fitted_into_the_box_where_they_disagree(tmp_path: Path) -> None:
    mask = rle(rectangle(0, 0, 4, 4))
    fits = read(tmp_path, {"label": "kite", "box": [0.02, 0.0, 0.25, 0.26], "mask": mask})
    assert fits.layout.masks is not None
    assert np.array_equal(fits.layout.masks[0, 0].numpy() == 255, rectangle(0, 0, 4, 4))
    moved = read(tmp_path, {"label": "kite", "box": [0.25, 0.5, 0.5, 0.25], "mask": mask})
    assert moved.layout.masks is not None
    assert np.array_equal(moved.layout.masks[0, 0].numpy() == 255, rectangle(4, 8, 8, 4))


def test_a_mask_never_vanishes_in_a_small_box(tmp_path: Path) -> None:
    mask = rle(rectangle(0, 0, 4, 4))
    given = read(tmp_path, {"label": "kite", "box": [0.51, 0.51, 0.001, 0.001], "mask": mask})
    assert given.layout.masks is not None
    assert np.array_equal(given.layout.masks[0, 0].numpy() == 255, rectangle(8, 8, 1, 1))


def test_runs_may_be_a_list(tmp_path: Path) -> None:
    mask = {"size": [SIDE, SIDE], "counts": [0, SIDE * 4, SIDE * 12]}
    given = read(tmp_path, {"label": "kite", "box": [0, 0, 0.25, 1], "mask": mask})
    assert given.layout.masks is not None
    assert np.array_equal(given.layout.masks[0, 0].numpy() == 255, rectangle(0, 0, 4, SIDE))


def test_objects_keep_their_places_and_new_ones_get_free_ones(tmp_path: Path) -> None:
    small, large = {"label": "kite", "box": [0, 0, 0.25, 0.25]}, {"label": "boat", "box": [0, 0, 1, 1]}
    assert read(tmp_path, small, large).places.tolist() == [[1, 0, 2]], "in the order of the file"
    assert read(tmp_path, small | {"place": 2}, large).places.tolist() == [[0, 2, 1]]
    assert read(tmp_path, small | {"place": 1}, small | {"place": 1}, large).places.tolist() == [[2, 1, 0]]
    assert read(tmp_path).places.tolist() == [[0, 1, 2]]


def test_seed_and_sample_are_read_back(tmp_path: Path) -> None:
    given = read(tmp_path, seed=-7, sample=3)
    assert (given.seed, given.sample) == (-7, 3)
    given = read(tmp_path)
    assert (given.seed, given.sample) == (None, 0)
    for wrong in ({"seed": "7"}, {"seed": 7.0}, {"seed": True}, {"sample": -1}, {"sample": None}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} must be a whole number"):
            read(tmp_path, **wrong)


def test_a_text_is_read_as_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(layout_to_json(some_layout(), CLASSES, "a kite"))
    ours, theirs = parse_layout((tmp_path / "a.json").read_text(), RULES), read_layout(tmp_path / "a.json", RULES)
    assert torch.equal(ours.layout.boxes, theirs.layout.boxes) and ours.layout.masks is not None
    assert theirs.layout.masks is not None and torch.equal(ours.layout.masks, theirs.layout.masks)
    for text, message in (("a kite", "layout is not JSON"), ("[]", 'layout: no "objects"'), ("\ud800", "no UTF-8")):
        with pytest.raises(InputError, match=message):
            parse_layout(text, RULES)


GOOD = {"label": "kite", "box": [0, 0, 0.5, 0.5]}
WRONG_OBJECTS = {
    "kites": (
        {"label": "kiite", "box": [0, 0, 1, 1]},
        "unknown label 'kiite': did you mean kite?",
    ),
    "no label": ({"box": [0, 0, 1, 1]}, "unknown label None"),
    "no box": ({"label": "kite"}, "object 1 (kite): box must be four numbers"),
    "three": (GOOD | {"box": [0, 0, 1]}, "four numbers"),
    "text": (GOOD | {"box": "0 0 1 1"}, "four numbers"),
    "nan": (GOOD | {"box": [float("nan"), 0, 1, 1]}, "holds NaN"),
    "huge": (GOOD | {"box": [10**400, 0, 1, 1]}, "401 digits"),
    "pixels": (GOOD | {"box": [10, 20, 64, 64]}, "leaves the image"),
    "right": (GOOD | {"box": [0.6, 0, 0.5, 0.5]}, "leaves the image"),
    "left": (GOOD | {"box": [-0.1, 0, 0.5, 0.5]}, "leaves the image"),
    "flat": (GOOD | {"box": [0.1, 0.1, 0.5, 0]}, "has no area"),
    "not an object": ([1, 2], "must be"),
    "typing error": (GOOD | {"maks": {}}, "unknown key 'maks'"),
    "place": (GOOD | {"place": 3}, "place must be a whole number from 0 to 2, or left out, got 3"),
    "place true": (GOOD | {"place": True}, "place must be"),
    "mask not a mask": (GOOD | {"mask": "oval"}, "mask must be"),
    "mask size": (GOOD | {"mask": {"size": [8, 8], "counts": [64]}}, "mask size [8, 8] is not this model's [16, 16]"),
    "mask letters": (GOOD | {"mask": {"size": [16, 16], "counts": "garbage!"}}, "no run-length encoding"),
    "mask too short": (GOOD | {"mask": {"size": [16, 16], "counts": "0"}}, "no run-length encoding"),
    "mask too long": (GOOD | {"mask": {"size": [16, 16], "counts": [1000]}}, "no run-length encoding"),
    "mask half a number": (GOOD | {"mask": {"size": [16, 16], "counts": "o"}}, "no run-length encoding"),
    "mask negative": (GOOD | {"mask": {"size": [16, 16], "counts": [-1, 257]}}, "no run-length encoding"),
    "mask empty": (GOOD | {"mask": {"size": [16, 16], "counts": [256]}}, "mask is empty"),
}


@pytest.mark.parametrize("name", WRONG_OBJECTS)
def test_wrong_objects_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    entry, message = WRONG_OBJECTS[name]
    with pytest.raises(InputError) as caught:
        read(tmp_path, entry)
    assert message in str(caught.value)
    assert str(tmp_path / "layout.json") in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("a kite")
    (tmp_path / "list.json").write_text("[]")
    for path, message in (("text.json", "is not JSON"), ("list.json", '"objects"'), ("none.json", "no file")):
        with pytest.raises(InputError, match=message):
            read_layout(tmp_path / path, RULES)
    with pytest.raises(InputError, match="version 2 is not 1"):
        read(tmp_path, version=2)
    with pytest.raises(InputError, match="4 objects, but this model takes at most 3"):
        read(tmp_path, *[GOOD] * 4)
    with pytest.raises(InputError, match="caption must be a text"):
        read(tmp_path, caption=3)
