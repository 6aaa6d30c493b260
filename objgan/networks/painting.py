"""Painting vectors into masks: each object's vector where the object is."""

from typing import Any

import torch
from torch import Tensor


def paint(values: Tensor, masks: Tensor) -> Tensor:
    """max(0, max over objects of value x mask): values [B, R, C], masks [B, R, h, w] -> [B, C, h, w].

    Objects with a mask of 0 change nothing, nor does their number. Only the result and one small integer a
    cell are kept for the backward pass, never [B, R, C, h, w]. Gradients go to the object that won a cell
    (ties: the first one, and 0 before any object).
    """
    painted: Tensor = _Paint.apply(values, masks.to(values.dtype))
    return painted


def owner_shares(masks: Tensor) -> Tensor:
    """How much of each cell belongs to the background and to each object on top: [B, R, h, w] -> [B, R + 1, h, w].

    A later (smaller) object covers those before it, by its mask. A cell's shares sum to 1.
    """
    masks = torch.cat([torch.ones_like(masks[:, :1]), masks], 1)
    uncovered = (1 - masks).flip(1).cumprod(1).flip(1)
    return masks * torch.cat([uncovered[:, 1:], torch.ones_like(masks[:, :1])], 1)


def paint_owners(values: Tensor, shares: Tensor) -> Tensor:
    """Mean of the values by the owners' shares: values [B, N, C], shares [B, N, h, w] -> [B, C, h, w]."""
    return torch.einsum("bnc,bnhw->bchw", values, shares.to(values.dtype))


class _Paint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, masks: Tensor) -> Tensor:
        batch, objects, channels = values.shape
        painted = values.new_zeros(batch, channels, *masks.shape[2:])
        winner = torch.zeros_like(painted, dtype=torch.uint8 if objects < 255 else torch.int16)
        for r in range(objects):
            candidate = values[:, r, :, None, None] * masks[:, r, None]
            winner.masked_fill_(candidate > painted, r + 1)
            # maximum, not where: a NaN must come out.
            painted = torch.maximum(painted, candidate)
        ctx.save_for_backward(values, masks, winner)
        return painted

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        values, masks, winner = ctx.saved_tensors
        for_values = torch.zeros_like(values) if ctx.needs_input_grad[0] else None
        for_masks = torch.zeros_like(masks) if ctx.needs_input_grad[1] else None
        for r in range(values.shape[1]):
            won = gradient * (winner == r + 1)
            if for_values is not None:
                for_values[:, r] = (won * masks[:, r, None]).sum((2, 3))
            if for_masks is not None:
                for_masks[:, r] = (won * values[:, r, :, None, None]).sum(1)
        return for_values, for_masks
