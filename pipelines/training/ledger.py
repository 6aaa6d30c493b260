"""What training steps told, read without making a GPU wait, and summed up for each log interval."""

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch

from objgan.training import ATTENTION, SKIPPED, StepRecord
from pipelines.runtime.events import Pace

_LAG = 2
"""Steps that a GPU may be ahead of what was read of it: copies have arrived by then, and nothing waits."""


@dataclass(frozen=True)
class StepNumbers:
    """A step's record, read: by `phase/term`."""

    step: int
    values: dict[str, float]

    @property
    def skipped(self) -> bool:
        """Whether the step changed nothing."""
        return self.values[SKIPPED] > 0

    @property
    def attention(self) -> bool:
        """Whether a worker asked to be heard."""
        return self.values[ATTENTION] > 0


class Ledger:
    """Records go in as they are made; they come out in order, on the CPU at once, on a GPU two steps later.

    Every worker reads the same numbers at the same step, so that all of them decide alike.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[StepRecord, torch.Tensor, torch.cuda.Event | None]] = deque()

    def add(self, record: StepRecord) -> None:
        """Take a step's record; its numbers start on their way to the host."""
        if record.values.device.type != "cuda":
            self._waiting.append((record, record.values, None))
            return
        there = torch.empty(record.values.shape, dtype=record.values.dtype, pin_memory=True)
        there.copy_(record.values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((record, there, event))

    def read(self, everything: bool = False) -> Iterator[StepNumbers]:
        """What has arrived by rule; `everything`: all there is, after waiting for it."""
        while self._waiting and (everything or self._waiting[0][2] is None or len(self._waiting) > _LAG):
            record, values, event = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            yield StepNumbers(record.step, dict(zip(record.names, values.tolist(), strict=True)))


class Interval:
    """Means over the steps since the last log line."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        """Begin anew, without what was not told."""
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._steps, self._waited, self._began = 0, 0.0, time.perf_counter()
        self._times = [self._began]

    def __enter__(self) -> None:
        """In the block the loop waits for data."""
        self._since = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._waited += time.perf_counter() - self._since

    def count(self) -> None:
        """A step was done."""
        self._steps += 1
        self._times.append(time.perf_counter())

    def add(self, numbers: StepNumbers) -> None:
        """Losses of a step; what is not finite would hide the other steps' and is told by itself."""
        for name, value in numbers.values.items():
            if "/" in name and math.isfinite(value):
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1

    def pace(self) -> Pace:
        """The time of the interval so far."""
        seconds = tuple(round(end - start, 5) for start, end in pairwise(self._times))
        return Pace(self._steps, seconds, round(self._waited, 5))

    def finish(self) -> dict[str, float]:
        """Means by name, `seconds_per_step`, `samples_per_s`, and `data_wait_share` of the time."""
        values = {name: total / self._counts[name] for name, total in self._sums.items()}
        seconds = max(time.perf_counter() - self._began, 1e-9)
        values["seconds_per_step"] = seconds / max(self._steps, 1)
        values["samples_per_s"] = self._steps * self._batch_size / seconds
        values["data_wait_share"] = self._waited / seconds
        self.restart()
        return values
