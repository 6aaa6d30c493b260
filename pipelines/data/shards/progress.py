"""Progress of commands that go through shards: a bar on a terminal, log lines elsewhere."""

import logging
import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

logger = logging.getLogger(__name__)
_SECONDS, _MOST_SECONDS = 10.0, 300.0
_LEAST_SECONDS = 0.5
"""No rate is shown for a shorter time."""


class ShardProgress:
    """Counts finished shards. Logs a line after each tenth of them, but at most one in ten seconds, and one in five
    minutes where a tenth takes longer. `unit`: what a shard is made of.
    """

    def __init__(self, shards: int, images: int, name: str = "prepare", unit: str = "images") -> None:
        self._name, self._unit = name, unit
        self._shards, self._images = shards, images
        self._done, self._seen, self._kept = 0, 0, 0
        self._logged = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=images, desc=name, unit=f" {unit}", leave=False, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, images: int, kept: bool) -> None:
        """Count a finished shard of `images` images; kept: it existed before this run."""
        self._done += 1
        self._seen += images
        self._kept += images if kept else 0
        if self._bar is not None:
            self._bar.update(images)
        now, last = time.monotonic(), self._done == self._shards
        if self._first is None and not kept:
            self._first = now, images
        least = _SECONDS if self._done % -(-self._shards // 10) == 0 else _MOST_SECONDS
        if last or now - self._logged >= least:
            self._logged = now
            if last or self._bar is None:
                logger.info(self._line(now))

    def _line(self, now: float) -> str:
        rate = self._rate(now)
        parts = [f"{self._name}: {self._done}/{self._shards} shards", f"{self._seen}/{self._images} {self._unit}"]
        if self._kept:
            parts.append(f"{self._kept} of them already done")
        if rate:
            parts.append(f"{rate:.{0 if rate >= 10 else 2}f} {self._unit}/s")
            if self._done < self._shards:
                parts.append(f"{timedelta(seconds=round((self._images - self._seen) / rate))} left")
        return ", ".join(parts)

    def _rate(self, now: float) -> float:
        """Images per second since the first shard; the time before it was the start of the workers."""
        if self._first is None or now < self._first[0] + _LEAST_SECONDS:
            return 0.0
        return (self._seen - self._kept - self._first[1]) / (now - self._first[0])
