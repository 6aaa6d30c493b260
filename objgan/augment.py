"""DiffAugment for layouts (Zhao et al. 2020): the discriminators see image, masks and boxes moved and cut alike.

One draw serves a whole discriminator or generator phase: real and generated images, every scale, and the layout that
goes with them. Everything is differentiable in the images, so the generator learns through it.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from objgan.geometry import clip_xywh, xywh_to_xyxy
from objgan.layout import Layout

SHIFT = 1 / 8
"""Largest translation, a fraction of the side."""
HOLE = 1 / 2
"""Side of the cut-out square, a fraction of the side."""


@dataclass(frozen=True)
class Augmentation:
    """One draw for B samples. Lengths are in cells of a coarse `grid`, so that they are whole pixels at every size.

    shift:      int64 [B, 2], (x, y), contents move right and down by it; what enters is 0
    hole:       int64 [B, 2], (x, y), top-left corner of the cut-out square; it may reach over the border
    brightness: float [B], added;  saturation, contrast: float [B], factors
    grid:       cells a side; divides the side of every image and mask
    """

    shift: Tensor
    hole: Tensor
    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    grid: int

    @classmethod
    def draw(cls, size: int, grid: int, device: torch.device | str = "cpu") -> Self:
        """A draw per sample for `size` samples, from torch's global RNG."""
        reach, side = round(grid * SHIFT), round(grid * HOLE)
        colour = torch.rand(3, size, device=device)
        return cls(
            shift=torch.randint(-reach, reach + 1, (size, 2), device=device),
            hole=torch.randint(-(side // 2), grid - side // 2, (size, 2), device=device),
            brightness=colour[0] - 0.5,
            saturation=colour[1] * 2,
            contrast=colour[2] + 0.5,
            grid=grid,
        )

    def images(self, images: Tensor) -> Tensor:
        """float [B, 3, S, S] in [-1, 1] -> the same shape: colour, translation, cut-out."""
        return self._move(self._recolour(images.float()))

    def layout(self, layout: Layout) -> Layout:
        """Masks [B, R, M, M] (float from now on) and boxes moved and cut like the images.

        Boxes are cut at the picture's border; one that lies wholly outside, or wholly in the hole, has no area left.
        """
        masks = None if layout.masks is None else self._move(layout.soft_masks)
        return replace(layout, boxes=self.boxes(layout.boxes), masks=masks)

    def boxes(self, boxes: Tensor) -> Tensor:
        """xywh fractions [B, R, 4] -> the same, a new tensor."""
        shift = (self.shift / self.grid).to(boxes.dtype)[:, None]
        moved = clip_xywh(torch.cat([boxes[..., :2] + shift, boxes[..., 2:]], -1))
        corners = xywh_to_xyxy(moved)
        low = (self.hole / self.grid).to(boxes.dtype)[:, None]
        hidden = (corners[..., :2] >= low).all(-1) & (corners[..., 2:] <= low + HOLE).all(-1)
        shown = ~hidden & (moved[..., 2:] > 0).all(-1)
        return torch.cat([moved[..., :2], moved[..., 2:] * shown[..., None]], -1)

    def _recolour(self, images: Tensor) -> Tensor:
        images = images + self.brightness[:, None, None, None]
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * self.saturation[:, None, None, None]
        level = images.mean((1, 2, 3), keepdim=True)
        return level + (images - level) * self.contrast[:, None, None, None]

    def _move(self, maps: Tensor) -> Tensor:
        """[B, C, S, S] -> the same, translated with zeros coming in, the hole zeroed.

        The translation is a product with shifted identities, not a gather: its gradient is deterministic on GPUs.
        """
        size = maps.shape[-1]
        if size % self.grid:
            raise ValueError(f"a side of {size} is no multiple of the augmentation's grid of {self.grid}")
        scale = size // self.grid
        places = torch.arange(size, device=maps.device)
        step = places[:, None] - places  # to [S] minus from [S]
        across, down = ((step == scale * self.shift[:, axis, None, None]).to(maps.dtype) for axis in (0, 1))
        with torch.autocast(maps.device.type, enabled=False):
            moved = down[:, None] @ maps @ across.mT[:, None]
        begin = scale * self.hole
        inside = (places >= begin[..., None]) & (places < begin[..., None] + round(HOLE * size))  # [B, 2, S]
        hole = inside[:, 1, :, None] & inside[:, 0, None, :]
        return moved * ~hole[:, None]
