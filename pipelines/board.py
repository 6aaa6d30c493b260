"""The board: what a run's workers and its driver have to tell each other while Ray Train is in charge of both.

A Ray actor that needs no CPU. Workers hang up lines, signs of life and what made them give up; the driver takes these
down, and hangs up the wish to stop.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.util.scheduling_strategies


@dataclass
class Seen:
    """What the driver takes down.

    beat_age:  seconds since the last sign of life of the workers' first, or since the board was made
    step:      where the workers are
    step_age:  seconds since `step` last grew, or since the workers last began
    attempts:  how often workers began
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    beat_age: float = 0.0
    step: int = 0
    step_age: float = 0.0
    attempts: int = 0
    failure: dict[str, Any] | None = None


class Board:
    """The actor's class."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []
        self._beat = self._moved = time.monotonic()
        self._step, self._attempts = 0, 0
        self._stop: str | None = None
        self._failure: dict[str, Any] | None = None

    def tell(self, *lines: dict[str, Any]) -> None:
        """Hang up lines for the person who watches."""
        self._lines += lines

    def begin(self, step: int) -> int:
        """The workers begin (again) at `step`; how often they had begun before."""
        self._attempts += 1
        self._step, self._beat, self._moved = step, time.monotonic(), time.monotonic()
        return self._attempts - 1

    def beat(self, step: int) -> str | None:
        """A sign of life of the first worker; the reason to stop, if there is one."""
        self._beat = time.monotonic()
        if step > self._step:
            self._step, self._moved = step, self._beat
        return self._stop

    def fail(self, kind: str, text: str, code: int | None = None) -> None:
        """What a retry would only repeat. The first one counts: others follow from it."""
        self._failure = self._failure or {"error": kind, "text": text, "errno": code}

    def given_up(self) -> bool:
        """Whether a retry would only repeat what went wrong."""
        return self._failure is not None

    def stop(self, reason: str) -> None:
        """Ask the workers to checkpoint and leave."""
        self._stop = self._stop or reason

    def take(self) -> Seen:
        """What is new."""
        now, lines = time.monotonic(), self._lines
        self._lines = []
        return Seen(lines, now - self._beat, self._step, now - self._moved, self._attempts, self._failure)


def make_board() -> Any:
    """A board on the driver's own node, which no worker's death takes with it."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(num_cpus=0)(Board).options(scheduling_strategy=here).remote()
