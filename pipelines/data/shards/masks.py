"""COCO segmentations -> run-length masks at the stored size, and from there to soft masks."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import torch
from PIL import Image

from objgan import run_lengths
from objgan.errors import shown
from objgan.geometry import stand_in_masks
from objgan.run_lengths import BadMask

Box = Sequence[float]
_WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def squash_segmentation(segmentation: Any, width: int, height: int, box: Box, size: int) -> str:
    """COCO polygons or RLE of a width x height image -> compressed RLE counts of the size x size square.

    Polygons are scaled, then rasterised, so nothing is sampled twice; RLE is averaged and cut at one half. A mask too
    thin to cover any pixel becomes a line one pixel wide along its `box` (xywh, fractions).

    Raises:
        BadMask: the segmentation cannot be used (no polygon of three points, run lengths that do not fill the picture).
    """
    if isinstance(segmentation, list):
        runs = _polygons(segmentation, width, height, size)
        counts, empty = runs["counts"].decode("ascii"), not coco_mask.area(runs)
    elif isinstance(segmentation, dict):
        mask = _resize(_run_length(segmentation, width, height), size)
        counts, empty = run_lengths.encode(mask), not mask.any()
    else:
        raise BadMask("neither polygons nor run lengths", type(segmentation).__name__)
    return run_lengths.encode(_thin(box, size)) if empty else counts


def stand_in(shapes: str, box: Box, size: int) -> str:
    """Compressed RLE counts, at size x size, of what stands in for an object's mask.

    shapes: "ellipse" or "box" (see `objgan.geometry.stand_in_masks`); too thin to cover any pixel, it becomes a line
    box: xywh, fractions
    """
    mask = (stand_in_masks(shapes, torch.tensor(box, dtype=torch.float64), size) >= 0.5).numpy().astype(np.uint8)
    return run_lengths.encode(mask if mask.any() else _thin(box, size))


def share_outside(counts: str, box: Box, size: int) -> float:
    """Share of a mask (compressed counts at size x size, not empty) that is over a pixel outside its box.

    box: xywh, fractions
    """
    mask = run_lengths.decode(counts, size, size)
    left, top = (max(math.floor(start * size) - 1, 0) for start in box[:2])
    right, bottom = (math.ceil((start + length) * size) + 1 for start, length in zip(box[:2], box[2:], strict=True))
    return 1.0 - float(mask[top:bottom, left:right].sum() / mask.sum())


def decode_masks(counts: Sequence[str], size: int, mask_size: int) -> np.ndarray:
    """Compressed RLE counts at size x size -> uint8 [r, mask_size, mask_size], 0..255: the share of each cell covered.

    The array may be a view with its axes in another order.

    Raises:
        BadMask: counts that do not fill the square.
    """
    if not counts:
        return np.zeros((0, mask_size, mask_size), np.uint8)
    masks = np.stack([run_lengths.decode(text, size, size).T for text in counts])  # [r, columns, rows], contiguous
    step, rest = divmod(size, mask_size)
    if rest == 0:
        means = _mean_words(masks, step) if step in _WORDS else _mean_cells(masks, step)
        return means.transpose(0, 2, 1)
    scaled = [Image.fromarray(mask.T * 255).resize((mask_size, mask_size), Image.Resampling.BOX) for mask in masks]
    return np.stack([np.asarray(image) for image in scaled])


def _mean_words(masks: np.ndarray, step: int) -> np.ndarray:
    """As `_mean_cells`, for steps whose number of bytes is a machine's word: `step` pixels are added at a time."""
    word, area = _WORDS[step], step * step
    columns = masks.view(word)  # [r, S, S / step]
    sums = columns[:, ::step] + columns[:, 1::step]
    for offset in range(2, step):
        sums += columns[:, offset::step]
    # Each byte holds at most `step`. Times 1 + 256 + 65536 ..., the highest byte becomes the sum of all, at most 64.
    sums *= word(int.from_bytes(b"\1" * step))
    sums >>= word(8 * (step - 1))
    return ((sums.astype(np.uint16) * np.uint16(255) + np.uint16(area // 2)) // np.uint16(area)).astype(np.uint8)


def _mean_cells(masks: np.ndarray, step: int) -> np.ndarray:
    """0 or 1, uint8 [r, S, S] -> uint8 [r, S / step, S / step]: means of cells, times 255."""
    # Sums of slices: several times as quick as numpy's mean over two short axes.
    across, total = masks[:, ::step].astype(np.uint32), np.zeros(1, np.uint32)
    for offset in range(1, step):
        across += masks[:, offset::step]
    for offset in range(step):
        total = total + across[:, :, offset::step]
    return ((total * 255 + step * step // 2) // (step * step)).astype(np.uint8)


def _polygons(polygons: list[Any], width: int, height: int, size: int) -> dict[str, Any]:
    """Run lengths of the union of the polygons (flat lists of x, y in pixels of the original), at size x size."""
    scale = np.array([size / width, size / height])
    scaled = [part * scale for part in map(_points, polygons) if part is not None]
    # pycocotools would visit every pixel up to distant points, and would not return for NaN.
    within = [np.clip(part, -size, 2.0 * size).ravel() for part in scaled if np.isfinite(part).all()]
    if not within:
        values = [part.tolist() if isinstance(part, np.ndarray) else part for part in polygons]
        raise BadMask("no polygon of at least three points", shown(values))
    runs: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(within, size, size))
    return runs


def _points(part: Any) -> np.ndarray | None:
    """float64 [n, 2], at least three points; None: it is not such a polygon."""
    try:
        return np.asarray(part, np.float64).reshape(-1, 2) if len(part) >= 6 and len(part) % 2 == 0 else None
    except (ValueError, TypeError, OverflowError):
        return None


def _thin(box: Box, size: int) -> np.ndarray:
    """uint8 [size, size]: the pixels of a box that is narrower than one; of any other box, the one at its middle."""
    line = min(box[2], box[3]) * size < 1

    def span(start: float, length: float) -> slice:
        if not line or length * size < 1:
            middle = min(int((start + length / 2) * size), size - 1)
            return slice(middle, middle + 1)
        return slice(round(start * size), round((start + length) * size))

    mask = np.zeros((size, size), np.uint8)
    mask[span(box[1], box[3]), span(box[0], box[2])] = 1
    return mask


def _run_length(segmentation: dict[str, Any], width: int, height: int) -> np.ndarray:
    """uint8 [height, width] from COCO RLE, compressed (text) or not (list)."""
    sides = segmentation.get("size")
    if sides != [height, width]:
        raise BadMask("run lengths of an image of another size", f"of {sides!r:.40} instead of {[height, width]}")
    return run_lengths.decode(segmentation.get("counts"), height, width)


def _resize(mask: np.ndarray, size: int) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(mask) * 255).resize((size, size), Image.Resampling.BOX)
    return (np.asarray(image) >= 128).astype(np.uint8)
