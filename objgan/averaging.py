"""Sums over the workers of a run: gradients in buckets while the backward pass goes on, small numbers behind them."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES = 32 * 2**20
"""Under this size gradients travel in one all-reduce; a network of the recipe `tiny` is a fraction of it."""


def world_size() -> int:
    """Workers that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


class GradientSum:
    """Gradients of one phase, to be summed over the workers in place (no wrapper around modules, as in StyleGAN3).

    Parameters are dealt to buckets in reverse order, the order in which a backward pass finishes them. Every worker
    starts the buckets' all-reduces in the same order, whatever it finishes first: so none waits for another's.
    A parameter without a gradient counts as zero.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._buckets = _deal(self.parameters, BUCKET_BYTES)
        self._bucket_of = {id(p): number for number, bucket in enumerate(self._buckets) for p in bucket}
        self._missing = [len(bucket) for bucket in self._buckets]
        self._sent: list[tuple[Tensor, dist.Work | None]] = []

    @contextlib.contextmanager
    def overlapped(self) -> Iterator[None]:
        """A backward pass inside sends each bucket as soon as it is complete: the last pass before `finish`."""
        if world_size() == 1 or len(self._buckets) < 2:
            yield
            return
        hooks = [p.register_post_accumulate_grad_hook(self._arrived) for p in self.parameters]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def finish(self, extras: Tensor) -> Tensor:
        """Send what was not sent, wait, and put the sums into the gradients.

        `extras`, float32 [n] on the gradients' device, are summed, too, and returned.
        """
        for parameter in self.parameters:
            # Whether a group had nothing for it must not depend on who computed which group.
            _gradient(parameter)
        if world_size() == 1:
            return extras
        while len(self._sent) < len(self._buckets):
            self._send(extras if len(self._sent) == len(self._buckets) - 1 else None)
        if not self._buckets:
            dist.all_reduce(extras)
            return extras
        for bucket, (flat, work) in zip(self._buckets, self._sent, strict=True):
            if work is not None:
                work.wait()
            _spread(flat, bucket)
        last, size = self._sent[-1][0], extras.numel()
        return last[last.numel() - size :].to(extras.dtype) if size else extras

    def _arrived(self, parameter: Tensor) -> None:
        self._missing[self._bucket_of[id(parameter)]] -= 1
        # The last bucket takes the extras along, which are not known before the end.
        while len(self._sent) < len(self._buckets) - 1 and self._missing[len(self._sent)] <= 0:
            self._send(None)

    def _send(self, extras: Tensor | None) -> None:
        bucket = self._buckets[len(self._sent)]
        parts = [_gradient(p).reshape(-1) for p in bucket]
        flat = torch.cat(parts if extras is None else [*parts, extras.to(parts[0].dtype)])
        self._sent.append((flat, dist.all_reduce(flat, async_op=True)))


def _deal(parameters: Sequence[nn.Parameter], most: int) -> list[list[nn.Parameter]]:
    buckets: list[list[nn.Parameter]] = []
    filled = most
    for parameter in reversed(parameters):
        size = parameter.numel() * parameter.element_size()
        if filled + size > most and (not buckets or filled):
            buckets.append([])
            filled = 0
        buckets[-1].append(parameter)
        filled += size
    return buckets


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _spread(flat: Tensor, bucket: Sequence[nn.Parameter]) -> None:
    start = 0
    for parameter in bucket:
        gradient = _gradient(parameter)
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
