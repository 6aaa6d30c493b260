"""What rank 0 reports during training: heartbeats, events, metrics, throughput, system load."""

import functools
import io
import logging
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import ray
import torch
from PIL import Image

from pipelines.redaction import in_a_line
from pipelines.runtime.events import Began, Event, Pace, Warned
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_tracker import Tracker
from pipelines.training.coordinator import Failure
from pipelines.training.step_numbers import StepNumbers

_BEAT_S = 1.0
_ANSWER_S = 5.0

_GB, _MB = 1e9, 1e6


class ProgressReporter:
    """The first worker's voice. The other workers have one that says nothing.

    `reason` is why the driver wants the run to stop, None while it does not.
    """

    def __init__(self, coordinator: Any, storage: Storage, tracker: Tracker, began: Began, loud: bool) -> None:
        self._coordinator, self._storage, self.tracker, self._loud = coordinator, storage, tracker, loud
        self.reason: str | None = None
        self.step = began.step
        self._end = threading.Event()
        # One at a time: pictures are written in the order in which they were made.
        self._pool = ThreadPoolExecutor(1, "herald")
        if loud:
            ray.get(coordinator.begin.remote(began))
            threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def report(self, event: Event) -> None:
        """Report an event to the driver and its listeners."""
        if self._loud:
            self._coordinator.post.remote(event)

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Numbers for MLflow."""
        if self._loud:
            self.tracker.metrics(values, step)

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Into the run's folder `pictures`, and to MLflow."""
        if not self._loud:
            return
        self.tracker.picture(name, image, step)
        self._pool.submit(self._draw, f"pictures/{name}_{step:07d}.png", image)

    def close(self) -> None:
        """Everything is written, and MLflow has it, or it is kept where the next process finds it."""
        self._end.set()
        self._pool.shutdown(wait=True)
        self.tracker.close()

    def _draw(self, name: str, image: Image.Image) -> None:
        file = io.BytesIO()
        image.save(file, "PNG")
        try:
            self._storage.write(name, file.getvalue())
        except Exception as error:  # a picture is not worth a run
            self.report(Warned(f"cannot write {name} ({_line(error)}); training continues"))

    def _beat(self) -> None:
        while not self._end.wait(_BEAT_S):
            try:
                self.reason = ray.get(self._coordinator.beat.remote(self.step), timeout=_ANSWER_S)
            except Exception:  # the driver may be on its way out, or the network away: the next heartbeat decides
                continue


class Forward(logging.Handler):
    """A worker's log, of broken checkpoints, storage and MLflow, as events, which the driver logs."""

    def __init__(self, coordinator: Any) -> None:
        super().__init__()
        self._coordinator = coordinator

    def emit(self, record: logging.LogRecord) -> None:
        """Report a line."""
        self._coordinator.post.remote(Warned(record.getMessage()))


def give_up(coordinator: Any, error: BaseException, step: int) -> None:
    """Report what a retry within this command would only repeat. step: that this worker has finished"""
    number, text = None, _line(error)
    if isinstance(error, OSError):
        number, text = error.errno, error.strerror or text
    ray.get(coordinator.fail.remote(Failure(type(error).__name__, text, number, step)), timeout=_ANSWER_S)


def _line(error: BaseException) -> str:
    return in_a_line(error, 500)


class ThroughputMeter:
    """Means over the steps since the last log line."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        """Start again; unreported values are dropped."""
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
        """Losses of a step; what is not finite would hide the other steps' and is reported by itself."""
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


def system_metrics(folder: Path | None = None) -> dict[str, float]:
    """Numbers named `system/...`; under 10 ms, and no waiting.

    `system/cpu_percent` is the mean over all processors since the call before (0 at the first call); network bytes
    count from the first call of this process on. `folder` is what disk space is asked of.
    """
    memory = psutil.virtual_memory()
    values = {
        "system/cpu_percent": psutil.cpu_percent(interval=None),
        "system/memory_percent": memory.percent,
        "system/memory_available_gb": memory.available / _GB,
        "system/memory_rss_gb": psutil.Process().memory_info().rss / _GB,
        **_network(),
    }
    if folder is not None and folder.exists():
        values["system/disk_free_gb"] = psutil.disk_usage(str(folder)).free / _GB
    return values | _gpu()


def _network() -> dict[str, float]:
    sent, received = _network_bytes()
    sent_before, received_before = _network_at_first()
    return {
        "system/network_sent_mb": (sent - sent_before) / _MB,
        "system/network_received_mb": (received - received_before) / _MB,
    }


@functools.cache
def _network_at_first() -> tuple[int, int]:
    return _network_bytes()


def _network_bytes() -> tuple[int, int]:
    """Sent and received; a container without a network has no counters."""
    counters = psutil.net_io_counters()
    return (0, 0) if counters is None else (counters.bytes_sent, counters.bytes_recv)


def _gpu() -> dict[str, float]:
    if not torch.cuda.is_available():
        return {}
    return {
        "system/gpu_memory_gb": torch.cuda.memory_allocated() / _GB,
        "system/gpu_memory_most_gb": torch.cuda.max_memory_allocated() / _GB,
        "system/gpu_memory_reserved_gb": torch.cuda.memory_reserved() / _GB,
    }
