"""Layout: the labelled boxes and masks of a batch of pictures."""

import functools
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from objgan.transfers import send


@dataclass(frozen=True)
class Layout:
    """At most R objects a picture, the largest first; entries from `count` on are padding and never matter.

    labels: int64 [B, R], class index; 0 where padded
    boxes:  float32 [B, R, 4], (x, y, w, h), top-left corner, fractions of the side; 0 where padded
    count:  int64 [B]
    masks:  [B, R, M, M] over the whole picture (not the box), uint8 0..255 at rest or float 0..1 in networks;
            None while no shapes are known
    """

    labels: Tensor
    boxes: Tensor
    count: Tensor
    masks: Tensor | None = None

    @property
    def valid(self) -> Tensor:
        """bool [B, R]: which entries are objects."""
        return torch.arange(self.labels.shape[1], device=self.labels.device) < self.count[:, None]

    @property
    def soft_masks(self) -> Tensor:
        """float32 [B, R, M, M] in [0, 1], zero where padded.

        Raises:
            ValueError: the layout has no masks.
        """
        if self.masks is None:
            raise ValueError("this layout has boxes only: run the shape generator, or read the masks column")
        masks = self.masks / 255.0 if self.masks.dtype == torch.uint8 else self.masks
        return masks.float() * self.valid[:, :, None, None]

    @functools.cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """Picture and entry of each object, int64 [N] twice. On a GPU the host waits for their number; not where the
        layout came there by `to`.
        """
        picture, entry = self.valid.nonzero(as_tuple=True)
        return picture, entry

    @functools.cached_property
    def longest(self) -> int:
        """Objects of the picture that has most; a GPU waits as for `places`."""
        return int(self.count.max()) if len(self.count) else 0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy on `device`."""
        moved = self._map(lambda t: t.to(device, non_blocking=non_blocking))
        if self.count.device.type == "cpu":
            # Known here; on a GPU, a wait.
            places = tuple(send(indices, moved.count.device) for indices in self.places)
            vars(moved).update(places=places, longest=self.longest)
        return moved

    def pin_memory(self) -> Self:
        """A copy in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def with_masks(self, masks: Tensor) -> Self:
        """The same boxes with these masks."""
        return replace(self, masks=masks)

    def __getitem__(self, index: Tensor | slice) -> Self:
        """Some of the pictures."""
        return self._map(lambda t: t[index])

    def with_mirrored(self) -> Self:
        """These boxes, and behind them the same with left and right exchanged; for layouts without masks."""
        x, y, width, height = self.boxes.unbind(-1)
        mirrored = torch.stack([1 - x - width, y, width, height], -1) * self.valid[..., None]
        both = self._map(lambda t: torch.cat([t, t]))
        return replace(both, boxes=torch.cat([self.boxes, mirrored]))

    def put(self, rows: Tensor, others: Self) -> Self:
        """A copy with the boxes of `others` in these rows, int64 [b]; for layouts without masks."""
        return replace(
            self,
            labels=self.labels.index_copy(0, rows, others.labels),
            boxes=self.boxes.index_copy(0, rows, others.boxes),
            count=self.count.index_copy(0, rows, others.count),
        )

    def _map(self, function) -> Self:  # type: ignore[no-untyped-def]
        return replace(
            self,
            labels=function(self.labels),
            boxes=function(self.boxes),
            count=function(self.count),
            masks=None if self.masks is None else function(self.masks),
        )


def drop_small(layout: Layout, fraction: float) -> Layout:
    """Without the objects whose width and height are both under `fraction` of the side.

    What stays keeps its order and moves to the front; the entries behind it are 0. Shapes stay as they were.
    """
    keep = layout.valid & (layout.boxes[..., 2:].amax(-1) >= fraction)
    order = torch.argsort((~keep).int(), dim=1, stable=True)
    count = keep.sum(1)
    valid = torch.arange(keep.shape[1], device=keep.device) < count[:, None]

    def moved(values: Tensor) -> Tensor:
        tail = (1,) * (values.ndim - 2)
        index = order.view(*order.shape, *tail).expand(values.shape)
        return values.gather(1, index).masked_fill(~valid.view(*valid.shape, *tail), 0)

    return Layout(
        labels=moved(layout.labels),
        boxes=moved(layout.boxes),
        count=count,
        masks=None if layout.masks is None else moved(layout.masks),
    )
