"""Batch: the named tensors of some samples, as the loader makes them and the stages take them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from objgan.attributes import UNKNOWN
from objgan.layout import Layout


@dataclass(frozen=True)
class Sample:
    """One image with one chosen caption. A column that the stage did not ask for is None.

    image:  uint8 [3, S, S]
    words:  int64 [n], ids of the caption's words, n >= 1
    labels: int64 [r], boxes: float32 [r, 4] (x, y, w, h fractions), masks: uint8 [r, M, M] 0..255; largest first
    colours: int64 [r], index into `attributes.COLOURS`, -1 where unknown; scene: index into `SCENES`, -1 where unknown
    """

    image_id: int
    words: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray | None = None
    image: np.ndarray | None = None
    colours: np.ndarray | None = None
    scene: int | None = None


@dataclass(frozen=True)
class Batch:
    """B samples.

    image_ids:  int64 [B]
    words:      int64 [B, T], 0 where padded
    word_count: int64 [B], >= 1; stays in main memory, where the text encoder needs it
    layout:     Layout of R objects
    images:     uint8 [B, 3, S, S] or None
    colours:    int64 [B, R], index into `attributes.COLOURS`, -1 where unknown or padded, or None
    scenes:     int64 [B], index into `attributes.SCENES`, -1 where unknown, or None
    """

    image_ids: Tensor
    words: Tensor
    word_count: Tensor
    layout: Layout
    images: Tensor | None = None
    colours: Tensor | None = None
    scenes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def pixels(self, size: int) -> Tensor:
        """float32 [B, 3, size, size] in [-1, 1], averaged down from the stored size.

        Raises:
            ValueError: the batch was read without images.
        """
        if self.images is None:
            raise ValueError("this batch has no images: the stage must ask for the image column")
        return resize_images(self.images.float() / 127.5 - 1.0, size)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy on `device`, but for the numbers of words."""
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        return replace(moved, layout=self.layout.to(device, non_blocking))

    def pin_memory(self) -> Self:
        """A copy in page-locked memory (torch's DataLoader calls this)."""
        pinned = self._map(Tensor.pin_memory)
        return replace(pinned, word_count=self.word_count.pin_memory(), layout=self.layout.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """All tensors but the numbers of words and the layout."""
        return replace(
            self,
            image_ids=function(self.image_ids),
            words=function(self.words),
            images=None if self.images is None else function(self.images),
            colours=None if self.colours is None else function(self.colours),
            scenes=None if self.scenes is None else function(self.scenes),
        )


class Part(NamedTuple):
    """One group of a step's global batch: its number, from 0, and its samples. A group is never divided."""

    group: int
    batch: Batch


def resize_images(images: Tensor, size: int) -> Tensor:
    """[B, 3, S, S] -> [B, 3, size, size]: area average downwards, bilinear upwards."""
    side = images.shape[-1]
    if side == size:
        return images
    if side > size:
        return functional.interpolate(images, size=(size, size), mode="area")
    return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def collate(samples: Sequence[Sample], max_words: int, max_objects: int) -> Batch:
    """Samples padded to fixed shapes: [B, max_words], [B, max_objects, ...]; anything longer is cut at the end."""
    size = len(samples)
    words = np.zeros((size, max_words), np.int64)
    word_count = np.zeros(size, np.int64)
    for row, sample in enumerate(samples):
        kept = sample.words[:max_words]
        words[row, : len(kept)], word_count[row] = kept, len(kept)
    return Batch(
        image_ids=torch.tensor([sample.image_id for sample in samples]),
        words=torch.from_numpy(words),
        word_count=torch.from_numpy(word_count),
        layout=_collate_layout(samples, max_objects),
        images=_collate_images(samples),
        colours=_collate_colours(samples, max_objects),
        scenes=_collate_scenes(samples),
    )


def _collate_images(samples: Sequence[Sample]) -> Tensor | None:
    """uint8 [B, 3, S, S], or None where the samples were read without images."""
    first = samples[0].image
    if first is None:
        return None
    # Images may be views of any order of axes, mirrored ones too: this is the one copy, and its order is fixed.
    images = np.empty((len(samples), *first.shape), np.uint8)
    for row, sample in enumerate(samples):
        images[row] = sample.image
    return torch.from_numpy(images)


def _collate_colours(samples: Sequence[Sample], max_objects: int) -> Tensor | None:
    """int64 [B, max_objects], or None where a sample was read without colours."""
    colours = torch.full((len(samples), max_objects), UNKNOWN)
    for row, sample in enumerate(samples):
        if sample.colours is None:
            return None
        kept = torch.from_numpy(sample.colours[:max_objects])
        colours[row, : len(kept)] = kept
    return colours


def _collate_scenes(samples: Sequence[Sample]) -> Tensor | None:
    """int64 [B], or None where a sample was read without its scene."""
    scenes = [sample.scene for sample in samples if sample.scene is not None]
    return torch.tensor(scenes) if len(scenes) == len(samples) else None


def _collate_layout(samples: Sequence[Sample], max_objects: int) -> Layout:
    size = len(samples)
    labels = np.zeros((size, max_objects), np.int64)
    boxes = np.zeros((size, max_objects, 4), np.float32)
    count = np.zeros(size, np.int64)
    first = samples[0].masks
    masks = None if first is None else np.zeros((size, max_objects, *first.shape[1:]), np.uint8)
    for row, sample in enumerate(samples):
        n = min(len(sample.labels), max_objects)
        labels[row, :n], boxes[row, :n], count[row] = sample.labels[:n], sample.boxes[:n], n
        if masks is not None and sample.masks is not None:
            masks[row, :n] = sample.masks[:n]
    return Layout(
        labels=torch.from_numpy(labels),
        boxes=torch.from_numpy(boxes),
        count=torch.from_numpy(count),
        masks=None if masks is None else torch.from_numpy(masks),
    )
