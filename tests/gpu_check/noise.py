"""The CPU's noise on a GPU: the same seed draws other numbers there, and nothing could be compared."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_FACTORIES = {torch.rand, torch.randn, torch.randint}
_LIKE = {torch.rand_like, torch.randn_like}


class HostNoise(TorchFunctionMode):
    """Inside, what the stages draw with torch's global generator is drawn in main memory, and sent to the device."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `torch.overrides`; the mode is off in here."""
        kwargs = kwargs or {}
        if func in _FACTORIES:
            return func(*args, **kwargs | {"device": "cpu"}).to(kwargs.get("device") or "cpu")
        if func in _LIKE:
            like, *rest = args
            return func(torch.empty_like(like, device="cpu"), *rest, **kwargs).to(like.device)
        if func is Tensor.exponential_:
            return args[0].copy_(torch.empty(args[0].shape, dtype=args[0].dtype).exponential_(*args[1:], **kwargs))
        if func is functional.dropout:
            return _dropout(*args, **kwargs)
        if func is functional.gumbel_softmax:
            return _gumbel_softmax(*args, **kwargs)
        return func(*args, **kwargs)


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training:
        return x
    return x * functional.dropout(torch.ones(x.shape, dtype=x.dtype), p).to(x.device)


def _gumbel_softmax(logits: Tensor, tau: float = 1.0, hard: bool = False, eps: float = 0.0, dim: int = -1) -> Tensor:
    noise = -torch.empty(logits.shape, dtype=logits.dtype).exponential_().log()
    soft = ((logits + noise.to(logits.device)) / tau).softmax(dim)
    if not hard:
        return soft
    chosen = torch.zeros_like(logits).scatter_(dim, soft.argmax(dim, keepdim=True), 1.0)
    return chosen - soft.detach() + soft
