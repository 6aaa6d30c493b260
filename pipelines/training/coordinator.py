"""The actor through which the workers and the driver of a run exchange events, heartbeats and requests to stop.

It imports neither Ray nor torch, which its process does not need to start.
"""

import time
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.runtime.events import Began, Event, WorkerFailed


@dataclass(frozen=True)
class Failure:
    """An error that a retry within this command would only repeat.

    kind: name of the error's class; number: the errno of an OSError; step: that the worker had finished
    """

    kind: str
    text: str
    number: int | None = None
    step: int = 0


@dataclass
class RunEvents:
    """What the driver takes.

    beat_age:  seconds since the last sign of life of the workers' first, or since the coordinator started
    step:      last step that workers are known to have finished
    step_age:  seconds since `step` last grew, or since the workers last began
    attempts:  how often workers began
    advanced:  whether a step was finished since the coordinator started
    """

    events: list[Event] = field(default_factory=list)
    beat_age: float = 0.0
    step: int = 0
    step_age: float = 0.0
    attempts: int = 0
    advanced: bool = False
    failure: Failure | None = None


class RunCoordinator:
    """The actor's class."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._beat = self._moved = time.monotonic()
        self._step, self._attempts, self._advanced = 0, 0, False
        self._stop: str | None = None
        self._failure: Failure | None = None
        self._last: WorkerFailed | None = None
        self._controller: Any = None
        self._abandoned = False

    def control(self, controller: Any) -> None:
        """Ray Train's controller of the run, an actor."""
        self._controller = controller

    def abandon(self) -> Any:
        """The driver gives the run up; returns the controller, None: it has not begun."""
        self._abandoned = True
        return self._controller

    def abandoned(self) -> bool:
        """Whether the driver gave the run up."""
        return self._abandoned

    def post(self, *events: Event) -> None:
        """Events for the listener at the driver."""
        for event in events:
            self._events.append(event)
            if isinstance(event, WorkerFailed):
                self._last = event

    def begin(self, event: Began) -> None:
        """Workers begin, for the first time or again."""
        reason = str(self._last) if self._last else None
        self.post(replace(event, restarts=self._attempts, reason=reason if self._attempts else None))
        self._attempts, self._last = self._attempts + 1, None
        self._step, self._beat, self._moved = event.step, time.monotonic(), time.monotonic()

    def beat(self, step: int) -> str | None:
        """A sign of life of the first worker; returns the reason to stop, if there is one."""
        self._beat = time.monotonic()
        if step > self._step:
            self._step, self._moved, self._advanced = step, self._beat, True
        return self._stop

    def fail(self, failure: Failure) -> None:
        """A worker gives up. The first failure counts: others follow from it."""
        self._advanced = self._advanced or (self._attempts > 0 and failure.step > self._step)
        self._failure = self._failure or failure

    def given_up(self) -> bool:
        """Whether a worker gave up."""
        return self._failure is not None

    def stop(self, reason: str) -> None:
        """Ask the workers to write a checkpoint and end."""
        self._stop = self._stop or reason

    def take(self) -> RunEvents:
        """What is new."""
        now, events = time.monotonic(), self._events
        self._events = []
        return RunEvents(
            events, now - self._beat, self._step, now - self._moved, self._attempts, self._advanced, self._failure
        )
