"""Mask IoU, and the two masks that need no network: the ellipse that fills the box and the class's mean shape."""

import torch
from torch import Tensor
from torch.nn import functional

from objgan.geometry import align_rois, raster_boxes, to_rois
from objgan.layout import Layout

THRESHOLD = 0.5


def object_ious(masks: Tensor, layout: Layout) -> Tensor:
    """Intersection over union with the layout's own masks, both cut at 0.5: masks [B, R, M, M] -> float32 [B, R].

    NaN where padded, and where the true mask has no pixel at that threshold (an object thinner than half a pixel).
    """
    ours, true = masks >= THRESHOLD, layout.soft_masks >= THRESHOLD
    both, either = (ours & true).sum((2, 3)).float(), (ours | true).sum((2, 3)).float()
    applies = layout.valid & true.any(3).any(2)
    return torch.where(applies, both / either.clamp_min(1), torch.nan)


def mask_iou(masks: Tensor, layout: Layout) -> Tensor:
    """Mean of `object_ious` over a picture's objects: [B, R, M, M] -> float32 [B], NaN without any."""
    return object_ious(masks, layout).nanmean(1)


class ClassMeanMasks:
    """The mean shape of each class in box coordinates, [C, side, side], from the masks it was shown."""

    def __init__(self, classes: int, side: int = 16) -> None:
        self.side = side
        self.sums = torch.zeros(classes, side, side)
        self.counts = torch.zeros(classes)

    @torch.no_grad()
    def add(self, layout: Layout) -> None:
        """Count the objects of a layout with masks."""
        valid = layout.valid
        masks, boxes, labels = layout.soft_masks[valid], layout.boxes[valid], layout.labels[valid]
        rois = to_rois(boxes, torch.arange(len(boxes), device=boxes.device), masks.shape[-1])
        shapes = align_rois(masks[:, None], rois, self.side)[:, 0]
        self.sums = self.sums.to(shapes.device).index_add(0, labels, shapes)
        self.counts = self.counts.to(shapes.device).index_add(0, labels, torch.ones_like(labels, dtype=torch.float32))

    @property
    def table(self) -> Tensor:
        """float32 [C, side, side]: the mean; of all classes for one that never came, 1 before any object came."""
        total = self.counts.sum()
        fallback = self.sums.sum(0) / total.clamp_min(1) if total > 0 else torch.ones_like(self.sums[0])
        known = (self.counts > 0)[:, None, None]
        return torch.where(known, self.sums / self.counts.clamp_min(1)[:, None, None], fallback)

    def paste(self, boxes: Tensor, labels: Tensor, size: int) -> Tensor:
        """Each class's mean shape stretched over its box: xywh [..., 4], int64 [...] -> float32 [..., size, size]."""
        flat = boxes.reshape(-1, 4)
        centres = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size
        # -1 and 1 are the box's edges, as grid_sample has it.
        within = (centres - flat[:, :2, None]) / flat[:, 2:, None].clamp_min(1e-6) * 2 - 1
        across, down = within[:, 0, None, :].expand(-1, size, -1), within[:, 1, :, None].expand(-1, -1, size)
        shapes = self.table.to(boxes.device)[labels.reshape(-1)][:, None]
        grid = torch.stack([across, down], -1)
        pasted = functional.grid_sample(shapes, grid, padding_mode="border", align_corners=False)[:, 0]
        return (pasted * raster_boxes(flat, size)).view(*boxes.shape[:-1], size, size)
