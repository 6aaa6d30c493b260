"""Prometheus metrics of a run, on the metrics port of the driver's node: names start with `ray_objgan_`.

The driver derives them from the events of the workers: no step waits for them, the death of a worker does not end a
series, and errors are ignored.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from pipelines.runtime.events import Began, Event, Logged, Pace, Saved, Skipped, WorkerFailed

_TAGS = ("run", "stage")
BUCKETS = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
"""Seconds. No quantile exceeds the largest: thresholds of alerts are below it."""

COUNTERS = {
    "objgan_samples_total": "samples trained on, converted or measured",
    "objgan_data_wait_seconds_total": "seconds that the loop of the first worker waited for data",
    "objgan_skipped_steps_total": "steps skipped because a loss or gradient was not finite",
    "objgan_rejected_rows_total": "images, captions, annotations and masks that prepare rejected",
    "objgan_restarts_total": "failures of a worker, after which all workers restart",
}
GAUGES = {
    "objgan_samples_per_second": "samples per second over the last log interval",
    "objgan_step": "finished steps (shards, batches)",
    "objgan_steps_total": "total number of steps (shards, batches)",
    "objgan_checkpoint_age_seconds": "seconds since the last checkpoint was complete, or the run began",
}
HISTOGRAMS = {
    "objgan_step_seconds": "seconds of a step, with its wait for data",
    "objgan_checkpoint_seconds": "seconds to write a checkpoint, in parallel with training",
}
_made: dict[str, Any] = {}


class RunMetrics:
    """Metrics of one stage of a run. Without Ray, and after the first error, it does nothing.

    batch:  samples per step
    since:  time of the last checkpoint (unix seconds); None: the run has no checkpoint
    """

    def __init__(self, run: str, stage: str, batch: int = 0, since: float | None = None) -> None:
        self._tags = {"run": run, "stage": stage}
        self._batch, self._fresh = batch, since or time.time()
        self._broken = False
        # A counter that was never increased would be missing instead of 0, and its alert would never fire.
        with contextlib.suppress(Exception):
            for name in COUNTERS:
                _metric(name)._record(0.0, tags=self._tags)

    def add(self, name: str, value: float) -> None:
        """Increase a counter."""
        if value > 0:
            self._do(name, lambda metric: metric.inc(value, tags=self._tags))

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._do(name, lambda metric: metric.set(value, tags=self._tags))

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram."""
        self._do(name, lambda metric: metric.observe(value, tags=self._tags))

    def progress(self, done: int, total: int, samples: int = 0) -> None:
        """Record the progress of a command that has no log intervals."""
        self.set("objgan_step", done)
        self.set("objgan_steps_total", total)
        self.add("objgan_samples_total", samples)

    def take(self, event: Event) -> None:
        """Record an event of a training run."""
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
        """Update the age of the last checkpoint."""
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
    """The metric of a name; Ray allows one per process."""
    if name not in _made:
        import ray.util.metrics

        if name in COUNTERS:
            _made[name] = ray.util.metrics.Counter(name, COUNTERS[name], _TAGS)
        elif name in GAUGES:
            _made[name] = ray.util.metrics.Gauge(name, GAUGES[name], _TAGS)
        else:
            _made[name] = ray.util.metrics.Histogram(name, HISTOGRAMS[name], BUCKETS, _TAGS)
    return _made[name]
