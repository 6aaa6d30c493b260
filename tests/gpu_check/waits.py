"""Where a step makes the host wait for a GPU: by the calls that are known to, on any device, and as CUDA sees it."""

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import objgan

_ROOT = Path(objgan.__file__).resolve().parent
_WAIT = {
    *(Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.nonzero, Tensor.unique, Tensor.masked_select),
    *(Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__),
    *(torch.nonzero, torch.masked_select, torch.unique, torch.multinomial, torch.equal, torch.allclose),
}

NUMBER_OF_OBJECTS = "how many small and large objects are left after augmentation decides shapes"
ALLOWED = {
    "stages/image_judges.py _object_terms": NUMBER_OF_OBJECTS,
    "stages/image_judges.py _please_objects": NUMBER_OF_OBJECTS,
    "stages/box_judges.py draw": "with boxes.training.adversarial_from: a checkpoint carries when judging starts",
}
"""File of objgan and function -> why it waits in each step."""
IN_MAIN_MEMORY = {
    "networks/encoders.py forward": "a batch keeps numbers of words in main memory",
    "group_statistics.py undo_if": "on a CPU alone",
}
"""Calls that would wait if their tensors were on a GPU, which they are not in training."""


class Watch(TorchFunctionMode):
    """Counts the calls inside that would wait for a GPU, by the place in objgan.

    With `device` a GPU, those that do: of tensors that are there.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self.places: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `torch.overrides`."""
        here = self._device.type == "cpu" or any(isinstance(one, Tensor) and one.is_cuda for one in args)
        if here and waits(func, args, kwargs or {}):
            self.places[_caller()] += 1
        return func(*args, **kwargs or {})


def waits(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call would wait for a GPU: it reads values, or its result's shape depends on them."""
    if func in _WAIT:
        return True
    if func in (Tensor.__getitem__, Tensor.__setitem__):
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) for part in index)
    if func in (torch.tensor, torch.as_tensor):
        device = kwargs.get("device")
        return device is not None and (torch.device(device).type != "cpu" or not torch.cuda.is_available())
    return False


class _Pardon(TorchFunctionMode):
    """Lets the places of ALLOWED wait while CUDA refuses all others."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `torch.overrides`."""
        if not waits(func, args, kwargs or {}) or _caller() not in ALLOWED:
            return func(*args, **kwargs or {})
        with _debug_mode("default"):
            return func(*args, **kwargs or {})


@contextmanager
def refused() -> Iterator[None]:
    """CUDA raises RuntimeError where the host would wait, but for the places of ALLOWED."""
    with _debug_mode("error"), _Pardon():
        yield


def place_of(error: BaseException) -> str:
    """`file:line function` of the innermost frame in objgan that the error went through."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_ROOT)
    ]
    if not frames:
        return "in the backward pass"
    return f"{Path(frames[-1].filename).relative_to(_ROOT)}:{frames[-1].lineno} {frames[-1].name}"


@contextmanager
def _debug_mode(mode: str) -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _caller() -> str:
    """`file function` of the innermost frame in objgan."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(_ROOT):
            return f"{path.relative_to(_ROOT)} {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "outside objgan"
