"""Reading what steps measured without a wait for a GPU; no Ray here."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from objgan.training import ATTENTION, SKIPPED, StepRecord

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


class MetricAccumulator:
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
