"""What measures over whole sets take: arrays or tensors of numbers, computed on in float64."""

import numpy as np
from torch import Tensor

Array = np.ndarray | Tensor


def plain(values: Array) -> np.ndarray:
    """An array of the same type and values, on the CPU."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def float64(values: Array, dimensions: int, what: str) -> np.ndarray:
    """A float64 array of `values`, on the CPU.

    Raises:
        ValueError: another number of dimensions, no row, or an entry that is not a finite number.
    """
    array = plain(values).astype(np.float64)
    if array.ndim != dimensions:
        raise ValueError(f"{what} need {dimensions} dimensions, got an array of {array.shape}")
    if not len(array):
        raise ValueError(f"{what} have no rows")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} hold entries that are not finite numbers")
    return array
