"""Bi-directional convolutional LSTM over the objects of a layout (Shi et al. 2015)."""

import torch
from torch import Tensor, nn


class BidirectionalConvLSTM(nn.Module):
    """[N, inputs, H, W] of all objects of a batch -> [N, 2 hidden, H, W], each object sees those before and after it.

    Both directions read their sequences from the first step on: the backward one starts at the last object of its own
    picture. So padding comes last for both, and no output of an object has seen any.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.input_gates = nn.Conv2d(inputs, 8 * hidden, 3, padding=1)
        # One grouped convolution steps both directions at once.
        self.hidden_gates = nn.Conv2d(2 * hidden, 8 * hidden, 3, padding=1, groups=2, bias=False)

    def forward(self, objects: Tensor, count: Tensor, places: tuple[Tensor, Tensor], longest: int) -> Tensor:
        """Objects [N, inputs, H, W] in the order of `places`; count int64 [B]; see `Layout`."""
        gates: Tensor = self.input_gates(objects)
        if not len(objects):
            return gates[:, : 2 * self.hidden]
        dense = gates.new_zeros(len(count), longest, *gates.shape[1:])
        dense[places] = gates
        onward, backward = dense.chunk(2, 2)
        order = reversed_order(count, longest)
        both = self._run(torch.stack([onward, _reorder(backward, order)], 2))
        onward, backward = both.unbind(2)
        return torch.cat([onward, _reorder(backward, order)], 2)[places]

    def _run(self, gates: Tensor) -> Tensor:
        """Input gates [B, R, 2, 4 hidden, H, W] -> outputs [B, R, 2, hidden, H, W]."""
        outputs: list[Tensor] = []
        cell: Tensor | None = None
        for step in gates.unbind(1):
            if outputs:
                step = step + self.hidden_gates(outputs[-1].flatten(1, 2)).view_as(step)
            # The cell adds up over the objects, so it does so in float32.
            keep, write, show, value = step.float().chunk(4, 2)
            new = write.sigmoid() * value.tanh()
            # The bias of 1 keeps what is remembered at the start of training (Jozefowicz et al. 2015).
            cell = new if cell is None else (keep + 1).sigmoid() * cell + new
            outputs.append((show.sigmoid() * cell.tanh()).to(gates.dtype))
        return torch.stack(outputs, 1)


def reversed_order(count: Tensor, length: int) -> Tensor:
    """int64 [B] -> int64 [B, length]: count-1, ..., 0, then the padding in its place; its own inverse."""
    steps = torch.arange(length, device=count.device)
    back = count[:, None] - 1 - steps
    return torch.where(back >= 0, back, steps)


def _reorder(values: Tensor, order: Tensor) -> Tensor:
    """[B, R, ...] by int64 [B, R] -> [B, R, ...]."""
    rows = torch.arange(len(values), device=values.device)[:, None]
    return values[rows, order]
