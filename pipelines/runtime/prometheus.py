"""A run's numbers for Prometheus, on the metrics port of the driver's node: names start with `ray_objgan_`.

The driver makes them from the events that workers report anyway: no step waits for them, a worker's death does not end
a series, and an error here is ignored.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from pipelines.runtime.events import Began, Event, Logged, Pace, Saved, Skipped, WorkerFailed

_TAGS = ("run", "stage")
_SECONDS = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]

COUNTERS = {
    "objgan_samples_total": "samples trained on, converted or measured",
    "objgan_data_wait_seconds_total": "seconds that the first worker's loop waited for data",
    "objgan_skipped_steps_total": "steps that were left out because a loss or gradient was not finite",
    "objgan_rejected_rows_total": "images, captions, annotations and masks that prepare rejected",
    "objgan_restarts_total": "times that a worker died or failed, after which workers start again",
}
GAUGES = {
    "objgan_samples_per_second": "over the last log interval",
    "objgan_step": "steps (shards, batches) done",
    "objgan_steps_total": "steps (shards, batches) in all",
    "objgan_checkpoint_age_seconds": "since the last checkpoint was complete, or the run began",
}
HISTOGRAMS = {
    "objgan_step_seconds": "of a step, with its wait for data",
    "objgan_checkpoint_seconds": "to write a checkpoint, beside training",
}
_made: dict[str, Any] = {}


class RunMetrics:
    """One stage of one run. Without Ray, and after the first thing that goes wrong, it does nothing.

    batch:  samples of a step
    since:  unix seconds of the last checkpoint that is there; None: none is
    """

    def __init__(self, run: str, stage: str, batch: int = 0, since: float | None = None) -> None:
        self._tags = {"run": run, "stage": stage}
        self._batch, self._fresh = batch, since or time.time()
        self._broken = False
        # A counter that was never raised would be missing rather than 0, and an alert on it silent.
        with contextlib.suppress(Exception):
            for name in COUNTERS:
                _metric(name)._record(0.0, tags=self._tags)

    def add(self, name: str, value: float) -> None:
        """Raise a counter."""
        if value > 0:
            self._do(name, lambda metric: metric.inc(value, tags=self._tags))

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._do(name, lambda metric: metric.set(value, tags=self._tags))

    def observe(self, name: str, value: float) -> None:
        """Into a histogram."""
        self._do(name, lambda metric: metric.observe(value, tags=self._tags))

    def progress(self, done: int, total: int, samples: int = 0) -> None:
        """How far work is that has no lines."""
        self.set("objgan_step", done)
        self.set("objgan_steps_total", total)
        self.add("objgan_samples_total", samples)

    def take(self, event: Event) -> None:
        """An event of a training run."""
        match event:
            case Logged():
                self._interval(event)
            case Saved(seconds=seconds) if seconds is not None:
                self._fresh = time.time()
                self.observe("objgan_checkpoint_seconds", seconds)
            case Began(step=step):
                self.set("objgan_step", step)
            case Skipped():
                self.add("objgan_skipped_steps_total", 1)
            case WorkerFailed():
                self.add("objgan_restarts_total", 1)

    def tick(self) -> None:
        """Time passes."""
        self.set("objgan_checkpoint_age_seconds", time.time() - self._fresh)

    def _interval(self, event: Logged) -> None:
        pace = event.pace or Pace()
        self.progress(event.step, event.steps, pace.steps * self._batch)
        self.set("objgan_samples_per_second", event.values["samples_per_s"])
        self.add("objgan_data_wait_seconds_total", pace.waited)
        for seconds in pace.seconds:
            self.observe("objgan_step_seconds", seconds)

    def _do(self, name: str, use: Callable[[Any], None]) -> None:
        if self._broken:
            return
        self._broken = True
        with contextlib.suppress(Exception):
            use(_metric(name))
            self._broken = False


def _metric(name: str) -> Any:
    """Made once a process, for Ray knows metrics by name."""
    if name not in _made:
        import ray.util.metrics

        if name in COUNTERS:
            _made[name] = ray.util.metrics.Counter(name, COUNTERS[name], _TAGS)
        elif name in GAUGES:
            _made[name] = ray.util.metrics.Gauge(name, GAUGES[name], _TAGS)
        else:
            _made[name] = ray.util.metrics.Histogram(name, HISTOGRAMS[name], _SECONDS, _TAGS)
    return _made[name]
