"""Timing of small calls: several repeats after a warm-up, and their median."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """What was measured: seconds of one call (median and fastest of `repeats`), which handles `items` things.

    note: what was found beside the time
    """

    name: str
    seconds: float
    fastest: float
    repeats: int
    items: int
    unit: str
    note: str = ""

    @property
    def rate(self) -> float:
        """Things per second."""
        return self.items / self.seconds


def time_calls(
    name: str, call: Callable[[], object], items: int, unit: str, repeats: int = 7, warm_up: int = 2
) -> Measurement:
    """Time `call`, which handles `items` things of the kind `unit`."""
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return Measurement(name, statistics.median(seconds), min(seconds), repeats, items, unit)
