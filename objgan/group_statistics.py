"""Buffers that forward passes move, when a step's batch is several groups: every group starts from the same values."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class GroupStatistics:
    """The buffers of some networks over one step of the training.

    Each group goes through the step with buffers of its own, which begin at the same values. At the end running
    statistics of batch norms are the mean over the groups of all workers; every other buffer (power iterations of
    spectral norms, counters) depends on no sample and is what any group left. So neither the order of the groups nor
    the number of workers matters.
    """

    def __init__(self, networks: nn.Module, here: int, groups: int) -> None:
        """`here`: groups of this worker; `groups`: of the whole batch."""
        self._buffers = list(networks.buffers())
        self._running = [
            buffer
            for module in networks.modules()
            if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None
            for buffer in (module.running_mean, module.running_var)
        ]
        self._groups = groups
        self._first = [buffer.clone() for buffer in self._buffers]
        self._of_group = [self._first] * here

    @torch.no_grad()
    def begin(self, place: int) -> None:
        """Before a pass of this worker's group `place`: what the group's last pass left."""
        if len(self._of_group) > 1:
            self._put(self._of_group[place])

    @torch.no_grad()
    def end(self, place: int) -> None:
        """After a pass of this worker's group `place`."""
        if len(self._of_group) > 1:
            self._of_group[place] = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def share(self) -> Tensor:
        """This worker's part of the mean running statistics, float32 [n], to be summed over workers."""
        if not self._running or self._groups == 1:
            return torch.empty(0, device=self._buffers[0].device if self._buffers else None)
        if len(self._of_group) == 1:
            return self._flat() / self._groups
        total = None
        for values in self._of_group:
            self._put(values)
            total = self._flat() if total is None else total + self._flat()
        assert total is not None
        return total / self._groups

    @torch.no_grad()
    def settle(self, total: Tensor) -> None:
        """End the step: `total` are the workers' shares, summed."""
        start = 0
        for buffer in self._running if total.numel() else ():
            buffer.copy_(total[start : start + buffer.numel()].view_as(buffer))
            start += buffer.numel()

    @torch.no_grad()
    def undo_if(self, bad: Tensor) -> None:
        """Back to the step's first values where `bad` (a bool scalar) says so; no synchronisation with a GPU."""
        if bad.device.type == "cpu":
            if bad.item():
                self._put(self._first)
            return
        for buffer, old in zip(self._buffers, self._first, strict=True):
            buffer.copy_(torch.where(bad, old, buffer))

    def _flat(self) -> Tensor:
        return torch.cat([buffer.reshape(-1) for buffer in self._running])

    def _put(self, values: list[Tensor]) -> None:
        for buffer, value in zip(self._buffers, values, strict=True):
            # Past autograd: graphs of other groups wait for their backward pass, and none of them reads a buffer
            # (batch norm in training uses the batch's statistics, spectral norm a copy of its vectors).
            buffer.data.copy_(value)
