"""The driver's side of a training run: events and heartbeats of workers, deadlines, requests to stop.

Workers and the driver exchange them through a Ray actor that needs no CPU: workers post events, heartbeats and the
error that made them give up; the driver takes these and posts the request to stop.
"""

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import ray
import ray.train
from ray.train.v2._internal.execution.callback import ControllerCallback  # it has no public name

from objgan.sections import ComputeConfig
from pipelines.redaction import redact
from pipelines.runtime.events import Event, Listener, WorkerFailed
from pipelines.training.coordinator import RunEvents

INTERRUPTED, TERMINATED = "interrupted", "terminated"
_LONGEST = 300
# What Ray says of the end of a worker's process, among much else.
_EXIT = re.compile(r"Worker exit type: (?P<kind>\w+) Worker exit detail: (?P<detail>.+?)(?: Some common causes|$)")
_POLL_S = 0.2
GRACE_S = 120.0
"""Seconds that workers have for a last checkpoint after they were asked to stop, or after a machine was taken away."""
_ABORT_S = 75.0
"""Seconds that Ray Train has to abort: it waits up to 60 s for its request to be met, and hears nothing meanwhile."""
_ANSWER_S = 10.0


class Stalled(RuntimeError):
    """Nothing has happened for longer than it may; the cluster has no room, or a worker hangs."""


class Preempted(SystemExit):
    """The run was asked to stop, and wrote a checkpoint; the same command resumes it. `code` is the process's."""

    def __init__(self, text: str, reason: str, code: int = 143) -> None:
        super().__init__(code)
        self.text, self.reason = text, reason

    def __str__(self) -> str:
        return self.text


class ReportListener(Protocol):
    """Looks on from the driver's process while a run goes on; called some times a second, and must not block."""

    def event(self, event: Event) -> None:
        """An event of the run: `Validated`, then `Saved` once the checkpoint of that step is complete."""

    def wish(self) -> str | None:
        """Why the run is to stop, with a checkpoint; None: it is not."""


class Supervisor:
    """Runs `fit` in a thread of its own, so that the main one can watch, and hears signals.

    lost:      set when another driver has taken the run
    listeners: get every event, in order
    wish:      is asked some times a second why the run is to stop; None: it is not
    tick:      is called some times a second
    """

    def __init__(
        self,
        coordinator: Any,
        compute: ComputeConfig,
        lost: threading.Event,
        listeners: Sequence[Listener] = (),
        wish: Callable[[], str | None] = lambda: None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._coordinator, self._compute, self._lost = coordinator, compute, lost
        self._listeners, self._wish, self._tick = listeners, wish, tick
        self._asked: str | None = None
        self._told_at = 0.0
        self.latest = RunEvents()

    def run(self, fit: Callable[[], object]) -> str | None:
        """Until `fit` ends or there is no hope left; the reason why the workers were asked to stop, if they were.

        Raises:
            Stalled: no worker, or no step, for too long.
            KeyboardInterrupt: the second one; the first asks the workers to stop.
            BaseException: what `fit` raised.
        """
        failed: list[BaseException] = []
        thread = threading.Thread(target=_keep_error, args=(fit, failed), name="fit", daemon=True)
        thread.start()
        with self._hearing():
            while thread.is_alive():
                try:
                    thread.join(_POLL_S)
                    self._look()
                except KeyboardInterrupt:
                    if self._asked is not None:
                        raise
                    self._asked = INTERRUPTED
        self._look()
        if failed and self.latest.failure is None and self._asked is None:
            raise failed[0]
        return self._asked

    def _look(self) -> None:
        if self._asked is None:
            self._asked = self._wish()
        self._tell_wish()
        latest = self.latest = ray.get(self._coordinator.take.remote(), timeout=60)
        for event in latest.events:
            for listen in self._listeners:
                listen(event)
        self._tick()
        if self._lost.is_set():
            raise Stalled("another driver holds this run now: it goes on there")
        self._judge(latest)

    def _tell_wish(self) -> None:
        if self._asked is None or self._told_at:
            return
        self._told_at = time.monotonic()
        self._coordinator.stop.remote(self._asked)

    def _judge(self, latest: RunEvents) -> None:
        compute = self._compute
        if self._told_at and time.monotonic() - self._told_at > GRACE_S:
            raise Stalled(f"the workers left no checkpoint within {GRACE_S:.0f} s of being asked to stop")
        if latest.beat_age > compute.start_deadline:
            there = {name: ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
            raise Stalled(
                f"no worker has given a sign of life for {latest.beat_age:.0f} s (compute.start_deadline); "
                f"the run asks "
                f"for {compute.workers} workers, the cluster has {there['CPU']:.0f} CPUs and {there['GPU']:.0f} GPUs"
            )
        if latest.attempts and latest.step_age > compute.stall_deadline:
            raise Stalled(
                f"no step was finished for {latest.step_age:.0f} s (compute.stall_deadline), the last one was "
                f"{latest.step}"
            )

    @contextlib.contextmanager
    def _hearing(self) -> Iterator[None]:
        """SIGTERM asks for a checkpoint first; a second one ends at once, as before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGTERM)

        def hear(signum: int, frame: Any) -> None:
            if self._asked is not None:
                signal.signal(signal.SIGTERM, before)
                os.kill(os.getpid(), signal.SIGTERM)
            self._asked = self._asked or TERMINATED

        signal.signal(signal.SIGTERM, hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


class FailureReports(ray.train.UserCallback):
    """Reports to the coordinator, from Ray Train's controller, why a worker failed."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator, self._failures = coordinator, 0

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Ray Train calls this before it decides whether to start workers again."""
        self._failures += 1
        # Those that waited for a worker that died fail, too; the death itself says why.
        ranked = sorted(worker_exceptions.items(), key=lambda item: (_EXIT.search(str(item[1])) is None, item[0]))
        rank, error = ranked[0] if ranked else (0, RuntimeError("unknown reason"))
        self._coordinator.post.remote(WorkerFailed(rank, _reason(error), self._failures))


def _reason(error: BaseException) -> str:
    """Why a worker failed, in one short line: how its process ended, or the last line of its traceback."""
    text = redact(" ".join(str(error).split()))
    if death := _EXIT.search(text):
        return f"{death['detail'].rstrip('.')} ({death['kind']})"[:_LONGEST]
    lines = [line.strip() for line in redact(str(error)).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:_LONGEST]


class Controlled(ControllerCallback):
    """Runs in Ray Train's controller, and lets a driver that gives the run up end it (`abandon`)."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ray Train calls this first."""
        self._coordinator.control.remote(ray.get_runtime_context().current_actor)

    def on_controller_start_worker_group(self, *, scaling_config: Any, num_workers: int) -> None:
        """Ray Train calls this before it requests workers, when it holds none and waits for none."""
        with contextlib.suppress(ray.exceptions.RayError):
            if ray.get(self._coordinator.abandoned.remote(), timeout=_ANSWER_S):
                os._exit(0)


def abandon(coordinator: Any) -> None:
    """End a training that waits or hangs, where this process lives on; returns when its workers are free.

    Ray Train would take workers as soon as there is room for them, and nobody would give them back: a controller that
    is killed while it waits leaves its request behind. While workers run it hears `abort`; while it waits for them it
    hears nothing, but sees between two requests that it is given up (RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S).
    """
    with contextlib.suppress(ray.exceptions.RayError):
        controller = ray.get(coordinator.abandon.remote(), timeout=_ANSWER_S)
        if controller is None:
            return
        with contextlib.suppress(ray.exceptions.RayError):  # it ends before it answers
            ray.get(controller.abort.remote(), timeout=_ABORT_S)
        ray.kill(controller)


def _keep_error(fit: Callable[[], object], failed: list[BaseException]) -> None:
    try:
        fit()
    except BaseException as error:  # it is raised again where somebody hears it
        failed.append(error)
