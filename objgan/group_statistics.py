"""Buffers that forward passes move, when a step's batch is several groups: every group starts from the same values."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _SpectralNorm


class GroupStatistics:
    """The buffers of some networks over one step of the training.

    Each group goes through the step with buffers of its own, which begin at the same values. At the end running
    statistics of batch norms are the mean over the groups of all workers; the vectors of spectral norms' power
    iterations, and counters, are what the first group left. (They depend on no sample, but on how often a layer was
    asked: a group without small objects does not ask their discriminator.) So neither the order of the groups nor the
    number of workers matters, and every worker ends with the same buffers.
    """

    def __init__(self, networks: nn.Module, here: Sequence[int], groups: int) -> None:
        """`here`: numbers of this worker's groups; `groups`: of the whole batch."""
        self._buffers = list(networks.buffers())
        self._running, self._first_says = list(_running(networks)), list(_moving(networks))
        self._here, self._groups = list(here), groups
        self._before = [buffer.clone() for buffer in self._buffers]
        self._of_group = [self._before] * len(self._here)

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
        """This worker's part of what the buffers become, float32 [n], to be summed over workers."""
        if self._groups == 1 or not self._buffers:
            return torch.empty(0, device=self._buffers[0].device if self._buffers else None)
        total, device = None, self._buffers[0].device
        for place, group in enumerate(self._here):
            self.begin(place)
            flat = torch.cat(
                [_flat(self._running, device) / self._groups, _flat(self._first_says, device) * (group == 0)]
            )
            total = flat if total is None else total + flat
        assert total is not None
        return total

    @torch.no_grad()
    def settle(self, total: Tensor) -> None:
        """End the step: `total` are the workers' shares, summed."""
        start = 0
        for buffer in [*self._running, *self._first_says] if total.numel() else ():
            buffer.copy_(total[start : start + buffer.numel()].view_as(buffer))
            start += buffer.numel()

    @torch.no_grad()
    def undo_if(self, bad: Tensor) -> None:
        """Back to the step's first values where `bad` (a bool scalar) says so; no synchronisation with a GPU."""
        if bad.device.type == "cpu":
            if bad.item():
                self._put(self._before)
            return
        for buffer, old in zip(self._buffers, self._before, strict=True):
            buffer.copy_(torch.where(bad, old, buffer))

    def _put(self, values: list[Tensor]) -> None:
        for buffer, value in zip(self._buffers, values, strict=True):
            # Past autograd: graphs of other groups wait for their backward pass, and none of them reads a buffer
            # (batch norm in training uses the batch's statistics, spectral norm a copy of its vectors).
            buffer.data.copy_(value)


def _running(networks: nn.Module) -> Iterator[Tensor]:
    for module in networks.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            yield module.running_mean
            yield module.running_var


def _moving(networks: nn.Module) -> Iterator[Tensor]:
    """Counters, and vectors of power iterations; other buffers are constants."""
    for module in networks.modules():
        for buffer in module.buffers(recurse=False):
            if isinstance(module, _SpectralNorm) or (buffer.ndim == 0 and not buffer.is_floating_point()):
                yield buffer


def _flat(buffers: list[Tensor], device: torch.device) -> Tensor:
    """float32 [n]; counters stay exact up to 2^24."""
    return torch.cat([torch.empty(0, device=device), *(buffer.reshape(-1).float() for buffer in buffers)])
