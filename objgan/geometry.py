"""Boxes and masks: formats, units, rasters, RoI scale.

Formats: `xywh` is (x, y, w, h) with the top-left corner, fractions of the side, the format everywhere unless a name
says otherwise; `xyxy` is two corners; `cxywr` is (centre x, centre y, width, height / width), the box
generator's coordinates.
"""

import torch
from torch import Tensor

SMALLEST_SIDE = 1.0 / 256.0


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """[..., 4] -> [..., 4], same unit; a new tensor."""
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)


def xywh_to_cxywr(boxes: Tensor) -> Tensor:
    """[..., 4] -> [..., 4]. Sides are taken as at least 1/256 so that the ratio stays finite."""
    width = boxes[..., 2].clamp_min(SMALLEST_SIDE)
    height = boxes[..., 3].clamp_min(SMALLEST_SIDE)
    centre = boxes[..., :2] + boxes[..., 2:] / 2
    return torch.cat([centre, width[..., None], (height / width)[..., None]], -1)


def cxywr_to_xywh(coordinates: Tensor) -> Tensor:
    """[..., 4] -> [..., 4], clipped to the picture; a box wholly outside it comes out with no area."""
    centre, width, ratio = coordinates[..., :2], coordinates[..., 2:3].clamp_min(0), coordinates[..., 3:].clamp_min(0)
    half = torch.cat([width, width * ratio], -1) / 2
    return clip_xywh(torch.cat([centre - half, 2 * half], -1))


def clip_xywh(boxes: Tensor) -> Tensor:
    """[..., 4] -> [..., 4] cut at the picture's border."""
    low = boxes[..., :2].clamp(0, 1)
    high = (boxes[..., :2] + boxes[..., 2:]).clamp(0, 1)
    return torch.cat([low, (high - low).clamp_min(0)], -1)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of xywh boxes, [..., 4] x [..., 4] -> [...] (broadcast); 0 where both are empty."""
    both = _intersection(a, b)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - both
    return both / union.clamp_min(1e-12)


def raster_boxes(boxes: Tensor, size: int) -> Tensor:
    """xywh [..., 4] -> [..., size, size]: the share of each pixel that the box covers (so gradients reach the box)."""
    columns, rows = cover_axes(boxes, size)
    return rows[..., :, None] * columns[..., None, :]


def cover_axes(boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """xywh [..., 4] -> shares of each pixel column and row that the box covers, [..., size] each: the raster is their
    product.
    """
    edges = torch.arange(size, device=boxes.device, dtype=boxes.dtype)

    def cover(start: Tensor, length: Tensor) -> Tensor:
        low, high = start[..., None] * size, (start + length)[..., None] * size
        return (torch.minimum(high, edges + 1) - torch.maximum(low, edges)).clamp(0, 1)

    return cover(boxes[..., 0], boxes[..., 2]), cover(boxes[..., 1], boxes[..., 3])


def ellipses(boxes: Tensor, size: int) -> Tensor:
    """xywh [..., 4] -> bool [..., size, size]: pixels whose centre lies in the ellipse that fills the box."""
    centres = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size

    def offset(start: Tensor, length: Tensor) -> Tensor:
        return (centres - (start + length / 2)[..., None]) / (length[..., None] / 2).clamp_min(1e-6)

    across, down = offset(boxes[..., 0], boxes[..., 2]), offset(boxes[..., 1], boxes[..., 3])
    return down[..., :, None] ** 2 + across[..., None, :] ** 2 <= 1


def stand_in_masks(shapes: str, boxes: Tensor, size: int) -> Tensor:
    """xywh [..., 4] -> [..., size, size]: the share of each pixel that a shape in the box covers.

    shapes: "box", or "ellipse", which is sampled at 4 x 4 points a pixel
    """
    if shapes == "box":
        return raster_boxes(boxes, size)
    fine = ellipses(boxes, 4 * size).to(boxes.dtype)
    return fine.reshape(*boxes.shape[:-1], size, 4, size, 4).mean((-3, -1))


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over the smaller area of xywh [..., 4] and [..., 4], broadcast: 0 to 1; 0 without an area."""
    smaller = torch.minimum(boxes[..., 2:].prod(-1), others[..., 2:].prod(-1))
    return (_intersection(boxes, others) / smaller.clamp_min(1e-12)).clamp_max(1)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    """Common area of xywh boxes."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    return (high - low).clamp_min(0).prod(-1)


def to_rois(boxes: Tensor, pictures: Tensor, feature_size: int) -> Tensor:
    """xywh fractions [N, 4], int64 [N] -> float [N, 5]: (picture, x1, y1, x2, y2) in cells of the feature map.

    RoIAlign then takes `spatial_scale=1`: the only scaling is here, once (the published code scales twice and so looks
    at the top-left corner alone).
    """
    return torch.cat([pictures[:, None].to(boxes.dtype), xywh_to_xyxy(boxes) * feature_size], -1)


def align_rois(features: Tensor, rois: Tensor, side: int, samples: int = -1) -> Tensor:
    """RoIAlign (He et al. 2017, section 3), half-pixel aligned: [B, C, H, W], RoIs [N, 5] -> [N, C, side, side].

    samples: points averaged along each side of a bin; -1: as many as the bin has cells
    """
    from torchvision.ops import roi_align  # a second of import, which most of what loads a model never needs

    aligned: Tensor = roi_align(features, rois, side, sampling_ratio=samples, aligned=True)
    return aligned


def merge_by_class(masks: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Soft masks [B, R, M, M] -> [B, R, M, M]: the maximum over a class's objects, at the first of them; 0 elsewhere.

    So at most R channels hold what a dense class map would hold in C.
    """
    same = (labels[:, :, None] == labels[:, None, :]) & valid[:, :, None] & valid[:, None, :]
    earlier = torch.ones_like(same).tril(-1)
    first = valid & ~(same & earlier).any(-1)
    merged = torch.stack([(masks * same[:, r, :, None, None]).amax(1) for r in range(labels.shape[1])], 1)
    return merged * first[:, :, None, None]
