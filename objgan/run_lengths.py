"""COCO's run lengths of a mask: the one reader and the one writer of them. They are checked before they are decoded.

The runs alternate between 0 and 1, beginning with 0, down one column after the other. In compressed text, a run is a
number in digits of five bits, the lowest digit first, one character a digit; from the fourth run on, it is the
difference to the run before the last.

`pycocotools.mask.decode` allocates whatever size is declared, and returns uninitialised memory where the runs do not
fill it. Nothing else in this repository decodes run lengths.
"""

from typing import Any

import numpy as np
import pycocotools.mask

MOST_PIXELS = 178_956_970
"""Pillow's own limit: what is larger was most likely made to fill the memory."""
MOST_SIDE = 1_000_000
"""Filters take memory in proportion to the longer side: a line of `MOST_PIXELS` would take 9 GB."""
MOST_RUNS = 1 << 24
"""More than any outline has; checking them takes 0.7 GB."""
_MOST_DIGITS = 7


class BadMask(ValueError):
    """A segmentation that is no mask: the reason, in the same words for all of a kind, and this one's details."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.detail = reason, detail


def decode(counts: Any, height: int, width: int) -> np.ndarray:
    """Compressed (str or bytes) or uncompressed (list) run lengths -> uint8 [height, width] of 0 and 1.

    Columns are contiguous.

    Raises:
        BadMask: the picture is too large, or the run lengths do not fill it.
    """
    runs = read_runs(counts, height, width)
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 1
    return np.repeat(values, runs).reshape(width, height).T


def encode(mask: np.ndarray) -> str:
    """bool or uint8 [height, width] of 0 and 1 -> compressed run lengths."""
    counts: bytes = pycocotools.mask.encode(np.asfortranarray(mask, np.uint8))["counts"]
    return counts.decode("ascii")


def read_runs(counts: Any, height: int, width: int) -> np.ndarray:
    """int64 [n]: run lengths that fill height x width pixels exactly. Nothing of the picture's size is allocated.

    Raises:
        BadMask: the picture is too large, or the run lengths do not fill it.
    """
    pixels = height * width
    if min(height, width) < 1 or max(height, width) > MOST_SIDE or pixels > MOST_PIXELS:
        limits = f"over {MOST_PIXELS:,} pixels or {MOST_SIDE:,} on a side"
        raise BadMask("run lengths of a picture that is too large", f"{height} x {width}, {limits}")
    if isinstance(counts, str):
        runs = _from_text(counts.encode("utf-8", "surrogatepass"))
    elif isinstance(counts, bytes):
        runs = _from_text(counts)
    elif isinstance(counts, list):
        runs = _from_list(counts)
    else:
        raise BadMask("run lengths that are neither a text nor a list", type(counts).__name__)
    # Each run first: the sum of what is too large may wrap round.
    wrong = runs[(runs < 0) | (runs > pixels)]
    if len(wrong):
        raise BadMask("run lengths that do not fill the picture", f"a run of {wrong[0]} in {pixels} pixels")
    if runs.sum() != pixels:
        raise BadMask("run lengths that do not fill the picture", f"{runs.sum()} of {pixels} pixels")
    return runs


def _from_text(text: bytes) -> np.ndarray:
    digits = np.frombuffer(text, np.uint8) - np.uint8(48)  # below 0 it wraps round, to over 63
    last = (digits & 32) == 0
    if not len(digits) or digits.max() > 63 or not last[-1]:
        raise BadMask("run lengths that are cut short, or no such text")
    _check_number(int(np.count_nonzero(last)))
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    lengths = np.diff(starts, append=len(digits))
    if lengths.max() > _MOST_DIGITS:
        raise BadMask("run lengths that are cut short, or no such text", f"a number of {lengths.max()} digits")
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    runs: np.ndarray = np.add.reduceat((digits & 31).astype(np.int64) << shifts, starts)
    runs -= np.where(digits[last] & 16, 1 << (5 * lengths), 0)
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs


def _from_list(counts: list[Any]) -> np.ndarray:
    _check_number(len(counts))
    try:
        # Not numpy's own conversion: it takes 0.5 for 0, and true for 1.
        return np.array([run if type(run) is int else _whole(run) for run in counts], np.int64)
    except (ValueError, OverflowError):
        raise BadMask("run lengths that are not all whole numbers") from None


def _whole(run: object) -> int:
    """1.0 as 1.

    Raises:
        ValueError: it is no whole number.
    """
    if isinstance(run, float) and run.is_integer():
        return int(run)
    raise ValueError


def _check_number(runs: int) -> None:
    if runs > MOST_RUNS:
        raise BadMask("more run lengths than any mask has", f"{runs:,}, over {MOST_RUNS:,}")
