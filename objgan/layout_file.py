"""One picture's layout as a JSON file that people can read, edit and give back.

```
{"version": 1, "caption": "a kite over the sea", "seed": 0, "sample": 0, "unknown_words": [], "objects": [
  {"label": "kite", "place": 0, "box": [x, y, w, h],
   "mask": {"size": [64, 64], "counts": "...", "box": [x, y, w, h]}}]}
```
Boxes are fractions of the image side from the top-left corner. A mask is COCO's run-length encoding over the whole
picture, as a string or as a list of runs; without one the shape generator draws the shape. `mask.box` is the box that
the mask was drawn for: move or resize `box` alone and the mask is moved and resized with it. A mask without `mask.box`
belongs to its own outline: where that is more than one mask pixel off `box`, it is fitted into `box`.

Noise is drawn from `seed` and `sample`, the number of the caption's sample, and a generated shape's from the object's
`place`, too: an object keeps it while others are added, removed, moved or resized. All three may be left out; a new
object, or a copy of one, gets a free place. Other keys (`unknown_words`, `cut_words`, `facts`) are not read back.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from objgan import run_lengths
from objgan.errors import InputError, shown, unknown
from objgan.files import read_json
from objgan.json_input import JsonFault, parse_json
from objgan.layout import Layout

VERSION = 1
_SLACK = 1e-6  # what float32 sums of x + w may pass 1 by


@dataclass(frozen=True)
class GivenLayout:
    """What a layout file holds.

    caption: as written in the file; None without one
    layout:  batch of one, the largest object first; masks uint8 [1, R, M, M], zero where not given, None without any
    drawn:   bool [1, R], which objects came with a mask
    places:  int64 [1, R], a permutation of 0 to R - 1: of which place each object has the noise
    seed:    of the noise; None: not given
    sample:  number of the caption's sample
    """

    caption: str | None
    layout: Layout
    drawn: Tensor
    places: Tensor
    seed: int | None = None
    sample: int = 0


@dataclass(frozen=True)
class LayoutRules:
    """What a model accepts: its class names, the most objects (R) and the side of its masks (M)."""

    classes: tuple[str, ...]
    max_objects: int
    mask_size: int


def layout_to_json(
    layout: Layout,
    classes: Sequence[str],
    caption: str,
    notes: Mapping[str, Any] | None = None,
    places: Sequence[int] | None = None,
) -> str:
    """The text of a layout file. `layout` is a batch of one; a mask holds the pixels from one half up.

    notes:  further keys and their values
    places: of the objects; None: in the order of the layout
    """
    objects = []
    for index in range(int(layout.count[0])):
        box = [_shortest(value) for value in layout.boxes[0, index]]
        place = index if places is None else places[index]
        entry: dict[str, Any] = {"label": classes[int(layout.labels[0, index])], "place": place, "box": box}
        shape = None if layout.masks is None else layout.soft_masks[0, index] >= 0.5
        if shape is not None and shape.any():
            entry["mask"] = _encode(shape) | {"box": box}
        objects.append(entry)
    # One object a line: short enough to find one's way in, and to edit.
    lines = ",\n  ".join(json.dumps(entry, ensure_ascii=False) for entry in objects)
    body = f"[\n  {lines}\n]" if objects else "[]"
    head = json.dumps({"version": VERSION, "caption": caption, **(notes or {})}, ensure_ascii=False)
    return f'{head[:-1]}, "objects": {body}}}\n'


def read_layout(path: Path, rules: LayoutRules) -> GivenLayout:
    """Read a layout file.

    Raises:
        InputError: not such a file; an unknown label; a box without area or outside the image; a mask that is no
            run-length encoding or of another size; more objects than the model takes.
    """
    return _read(read_json(path, "layout"), rules, f"layout {path}")


def parse_layout(text: str, rules: LayoutRules) -> GivenLayout:
    """Read the text of a layout file.

    Raises:
        InputError: as `read_layout`.
    """
    try:
        content = parse_json(text.encode("utf-8", "surrogatepass"))
    except JsonFault as fault:
        raise InputError(f"layout {fault}") from None
    return _read(content, rules, "layout")


def _read(content: Any, rules: LayoutRules, where: str) -> GivenLayout:
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise InputError(f'{where}: no "objects" list; see a layout file that generate wrote for the form')
    if content.get("version", VERSION) != VERSION:
        raise InputError(f"{where}: version {shown(content['version'])} is not {VERSION}; write it for this objgan")
    caption = content.get("caption")
    if caption is not None and not isinstance(caption, str):
        raise InputError(f"{where}: caption must be a text, got {shown(caption)}")
    seed, sample = content.get("seed"), content.get("sample", 0)
    if seed is not None and type(seed) is not int:
        raise InputError(f"{where}: seed must be a whole number, got {shown(seed)}")
    if type(sample) is not int or sample < 0:
        raise InputError(f"{where}: sample must be a whole number from 0 up, got {shown(sample)}")
    objects = content["objects"]
    if len(objects) > rules.max_objects:
        raise InputError(
            f"{where}: {len(objects)} objects, but this model takes at most {rules.max_objects}: drop some"
        )
    parsed = [_parse(entry, rules, f"{where}: object {index + 1}") for index, entry in enumerate(objects)]
    return replace(_assemble(parsed, rules), caption=caption, seed=seed, sample=sample)


@dataclass(frozen=True)
class _Object:
    label: int
    box: list[float]
    mask: np.ndarray | None  # bool [M, M]
    place: int | None


def _parse(entry: Any, rules: LayoutRules, where: str) -> _Object:
    if not isinstance(entry, dict):
        raise InputError(f'{where} must be {{"label": ..., "box": [x, y, w, h]}}, got {shown(entry)}')
    others = [key for key in entry if key not in ("label", "box", "mask", "place")]
    if others:
        raise InputError(
            f"{where}: unknown key {shown(others[0])}; an object has label, box and, if known, mask, place"
        )
    label = entry.get("label")
    if label not in rules.classes:
        raise unknown("label", label, rules.classes, f"{where}: ")
    where = f"{where} ({shown(label)[1:-1]})"
    box = check_box(entry.get("box"), f"{where}: box")
    mask = _parse_mask(entry["mask"], box, rules.mask_size, where) if entry.get("mask") is not None else None
    place = entry.get("place")
    if place is not None and (type(place) is not int or not 0 <= place < rules.max_objects):
        most = rules.max_objects - 1
        raise InputError(f"{where}: place must be a whole number from 0 to {most}, or left out, got {shown(place)}")
    return _Object(rules.classes.index(label), box, mask, place)


def check_box(value: Any, where: str) -> list[float]:
    """The four numbers (x, y, w, h) of a box, fractions of the image side; `where` begins the error's sentence.

    Raises:
        InputError: not a list of four numbers, without area, or outside the image.
    """
    numbers = isinstance(value, list) and all(type(v) in (int, float) and abs(v) < 1e9 for v in value)
    if not numbers or len(value) != 4:
        raise InputError(f"{where} must be four numbers [x, y, w, h], fractions of the image side, got {shown(value)}")
    x, y, w, h = value
    if w <= 0 or h <= 0:
        raise InputError(f"{where} {value} has no area; w and h must be over 0")
    if min(x, y) < -_SLACK or max(x + w, y + h) > 1 + _SLACK:
        raise InputError(f"{where} {value} leaves the image; x, y, x + w and y + h must lie between 0 and 1")
    return [float(v) for v in value]


def _parse_mask(value: Any, box: list[float], size: int, where: str) -> np.ndarray:
    if not isinstance(value, dict) or not {"size", "counts"} <= set(value) <= {"size", "counts", "box"}:
        raise InputError(f'{where}: mask must be {{"size": [{size}, {size}], "counts": "..."}}, or left out')
    if value["size"] != [size, size]:
        raise InputError(
            f"{where}: mask size {shown(value['size'])} is not this model's [{size}, {size}]; or leave mask out"
        )
    try:
        mask = run_lengths.decode(value["counts"], size, size) == 1
    except run_lengths.BadMask as error:
        raise InputError(
            f"{where}: mask counts are no run-length encoding of {size} x {size} pixels ({error}); correct them or "
            f"leave mask out"
        ) from None
    if not mask.any():
        raise InputError(f"{where}: mask is empty; draw it, or leave it out to have the shape generated")
    if "box" in value:
        drawn_for = check_box(value["box"], f"{where}: mask.box")
        return mask if np.allclose(drawn_for, box, atol=_SLACK) else _move(mask, drawn_for, box)
    outline = _outline(mask)
    return mask if np.allclose(_corners(outline), _corners(box), atol=1 / size) else _move(mask, outline, box)


def _assemble(objects: Sequence[_Object], rules: LayoutRules) -> GivenLayout:
    slots, side = rules.max_objects, rules.mask_size
    boxes = torch.tensor([o.box for o in objects], dtype=torch.float32).reshape(-1, 4)
    order = boxes[:, 2:].prod(-1).argsort(descending=True, stable=True).tolist()
    labels, all_boxes = torch.zeros(1, slots, dtype=torch.int64), torch.zeros(1, slots, 4)
    masks, drawn = torch.zeros(1, slots, side, side, dtype=torch.uint8), torch.zeros(1, slots, dtype=torch.bool)
    for row, index in enumerate(order):
        labels[0, row], all_boxes[0, row] = objects[index].label, boxes[index]
        mask = objects[index].mask
        if mask is not None:
            masks[0, row], drawn[0, row] = torch.from_numpy(mask.astype(np.uint8) * 255), True
    layout = Layout(labels, all_boxes, torch.tensor([len(objects)]), masks if drawn.any() else None)
    places, free = _places(objects, slots)
    return GivenLayout(None, layout, drawn, torch.tensor([[places[index] for index in order] + free]))


def _places(objects: Sequence[_Object], slots: int) -> tuple[list[int], list[int]]:
    """The place of each object, and the others; of two objects with the same place the second gets another."""
    places: list[int | None] = []
    for entry in objects:
        places.append(None if entry.place in places else entry.place)
    free = [place for place in range(slots) if place not in places]
    return [free.pop(0) if place is None else place for place in places], free


def _move(mask: np.ndarray, source: Sequence[float], target: Sequence[float]) -> np.ndarray:
    """bool [M, M]: what lay in box `source` (xywh) now lies in box `target`, sampled bilinearly, cut at one half."""
    size = len(mask)
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    across = source[0] + (centres - target[0]) * (source[2] / target[2])
    down = source[1] + (centres - target[1]) * (source[3] / target[3])
    points = torch.stack(torch.meshgrid(2 * down - 1, 2 * across - 1, indexing="ij")[::-1], -1)[None]
    pixels = torch.from_numpy(mask.astype(np.float64))[None, None]
    moved: np.ndarray = functional.grid_sample(pixels, points, align_corners=False)[0, 0].numpy()
    # A target smaller than a mask pixel may fall between the samples: the pixel at its centre stands for it.
    moved[_cell(target[1] + target[3] / 2, size), _cell(target[0] + target[2] / 2, size)] += float(moved.max() < 0.5)
    result: np.ndarray = moved >= 0.5
    return result


def _outline(mask: np.ndarray) -> list[float]:
    """bool [M, M] with a true pixel -> xywh fractions around the true ones."""
    down, across = np.flatnonzero(mask.any(1)) / len(mask), np.flatnonzero(mask.any(0)) / len(mask)
    pixel = 1 / len(mask)
    return [across[0], down[0], across[-1] - across[0] + pixel, down[-1] - down[0] + pixel]


def _corners(box: Sequence[float]) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def _cell(position: float, size: int) -> int:
    return min(int(position * size), size - 1)


def _shortest(value: Tensor) -> float:
    """The shortest decimal that reads back as the same float32."""
    return float(str(np.float32(value.item())))


def _encode(mask: Tensor) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": run_lengths.encode(mask.cpu().numpy())}
