"""What the judge sees in images, and whether it is what should be there: objects, their colours, the scene."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from objgan.batch import resize_images
from objgan.geometry import raster_boxes
from objgan.layout import Layout
from objgan.networks.judge import Judge, JudgeLogits

SMALLEST = 10 / 256
"""Default of `smallest`: what the image generator leaves out by default (`images.min_object_pixels`)."""
_HIDDEN = 0.5
_PATCH = 2
"""Side in cells (4 pixels of 64) of the patch whose mean decides whether a class is found."""


@dataclass(frozen=True)
class Verdicts:
    """What the judge sees.

    objects: int64 [B, R], the class by vote within each object's shape, C for nothing, -1 where it does not count:
             padding, objects too small, and those mostly hidden
    colours: int64 [B, R], index into `COLOURS` by the same vote, -1 where it does not count
    scenes:  int64 [B], index into `SCENES`
    found:   bool [B, C], the classes that are seen anywhere as clearly as the judge's `found_threshold` asks
    """

    objects: Tensor
    colours: Tensor
    scenes: Tensor
    found: Tensor


@dataclass(frozen=True)
class JudgedImages:
    """Whether what should be there is there: float32 of 0 and 1, NaN where nothing is asked.

    objects: [B, R];  colours: [B, R], of objects whose colour is known;  scenes: [B]
    """

    objects: Tensor
    colours: Tensor
    scenes: Tensor


@torch.no_grad()
def judge_images(judge: Judge, images: Tensor, layout: Layout, smallest: float = SMALLEST) -> Verdicts:
    """Look at images float [B, 3, S, S] in [-1, 1] that were made from (or belong to) `layout`.

    Shapes are the layout's masks, or its boxes where it has none. Where they overlap, the pixels are the smaller
    object's, which lies on top. Objects whose sides are both under `smallest` (a fraction of the picture's side) do not
    count, nor do those of which less than half can be seen.
    """
    return read_judgement(judge(images), layout, judge.found_threshold, smallest)


@torch.no_grad()
def read_judgement(seen: JudgeLogits, layout: Layout, found_threshold: float, smallest: float = SMALLEST) -> Verdicts:
    """The same from the judge's logits."""
    classes = seen.classes.softmax(1)
    shapes, counted = visible_shapes(layout, seen.classes.shape[-1], smallest)

    def vote(shares: Tensor) -> Tensor:
        winners = torch.einsum("brhw,bkhw->brk", shapes, shares).argmax(2)
        return torch.where(counted, winners, -1)

    patches = functional.avg_pool2d(classes[:, :-1], _PATCH, stride=1)
    return Verdicts(
        objects=vote(classes),
        colours=vote(seen.colours.softmax(1)),
        scenes=seen.scenes.argmax(1),
        found=patches.amax((2, 3)) >= found_threshold,
    )


def score_verdicts(
    verdicts: Verdicts, layout: Layout, colours: Tensor | None = None, scenes: Tensor | None = None
) -> JudgedImages:
    """Compare with the layout's labels, and with colours [B, R] and scenes [B] (indices, -1 or None for unknown)."""
    unknown = torch.full_like(verdicts.objects, -1)
    counted = verdicts.objects >= 0
    wanted = unknown if colours is None else colours
    place = torch.full_like(verdicts.scenes, -1) if scenes is None else scenes
    return JudgedImages(
        objects=_right(verdicts.objects, layout.labels, counted),
        colours=_right(verdicts.colours, wanted, counted & (wanted >= 0)),
        scenes=_right(verdicts.scenes, place, place >= 0),
    )


def visible_shapes(layout: Layout, size: int, smallest: float = SMALLEST) -> tuple[Tensor, Tensor]:
    """float32 [B, R, size, size], each object's share of the cells that no later (smaller) object covers, and
    bool [B, R], the objects that count: not too small, and at least half of it visible.
    """
    whole = _shapes(layout, size)
    # What all later objects leave free of a cell: the product of what each one leaves.
    free = (1 - whole).flip(1).cumprod(1).flip(1)
    behind = torch.cat([free[:, 1:], torch.ones_like(free[:, :1])], 1)
    visible = whole * behind
    area, left = whole.sum((2, 3)), visible.sum((2, 3))
    large = layout.boxes[..., 2:].amax(-1) >= smallest
    return visible, layout.valid & large & (area > 0) & (left >= _HIDDEN * area)


def silhouettes(images: Tensor, layout: Layout, which: Tensor, colours: Tensor | None = None) -> Tensor:
    """Paint the objects that `which` (bool [B, R]) names over with one flat colour each: only their outline is left.

    images: float [B, 3, S, S];  colours: [B, R, 3] in the images' range, None for each object's own mean colour
    Returns a new tensor [B, 3, S, S].
    """
    shapes = _shapes(layout, images.shape[-1])
    colours = mean_colours(images, layout) if colours is None else colours
    painted = images
    for index in range(shapes.shape[1]):
        shape = (shapes[:, index] * which[:, index, None, None])[:, None]
        painted = painted + shape * (colours[:, index, :, None, None] - painted)
    return painted


def mean_colours(images: Tensor, layout: Layout) -> Tensor:
    """float32 [B, R, 3]: the mean of an image's pixels [B, 3, S, S] within each object's shape; 0 where padded."""
    shapes = _shapes(layout, images.shape[-1])
    total = torch.einsum("brhw,bchw->brc", shapes, images.float())
    return total / shapes.sum((2, 3)).clamp_min(1e-6)[..., None]


def _shapes(layout: Layout, size: int) -> Tensor:
    """float32 [B, R, size, size]: masks, or boxes where there are none; 0 where padded."""
    if layout.masks is None:
        return raster_boxes(layout.boxes, size) * layout.valid[:, :, None, None]
    return resize_images(layout.soft_masks, size)


def _right(ours: Tensor, true: Tensor, asked: Tensor) -> Tensor:
    return torch.where(asked, (ours == true).float(), torch.nan)
