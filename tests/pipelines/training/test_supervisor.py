"""The driver's watch over a run, with a real board and something else than training behind it."""

import json
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import ray

from objgan.sections import ComputeConfig
from objgan.training import ATTENTION, SKIPPED
from pipelines.runs.status import LiveStatus, RunStatus
from pipelines.runtime.console import ProgressView
from pipelines.runtime.events import (
    Began,
    Event,
    Logged,
    Recorder,
    Saved,
    Skipped,
    Stopping,
    Validated,
    Warned,
    WorkerFailed,
)
from pipelines.runtime.prometheus import RunMetrics
from pipelines.runtime.worker_starts import on_own_node
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_tracker import Tracker
from pipelines.training.coordinator import Failure, RunCoordinator
from pipelines.training.reporting import Forward, ProgressReporter, ThroughputMeter
from pipelines.training.step_numbers import StepNumbers
from pipelines.training.supervisor import TERMINATED, Stalled, Supervisor
from tests.tools.local_cluster import wait_until
from tests.tools.logged import logged

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


@pytest.fixture
def coordinator() -> Iterator[Any]:
    made = on_own_node(RunCoordinator)
    yield made
    ray.kill(made)


def _supervisor(coordinator: Any, lost: threading.Event | None = None, **compute: float) -> Supervisor:
    listeners = [ProgressView("boxes").show]
    return Supervisor(coordinator, ComputeConfig(**compute), lost or threading.Event(), listeners)


def test_events_reach_every_listener_in_order(coordinator: Any, tmp_path: Path, logs: list[str]) -> None:
    record = Recorder(tmp_path / "progress.jsonl")
    listeners = [ProgressView("boxes").show, record]

    def fit() -> None:
        ray.get(coordinator.begin.remote(Began(7, 9, checkpoint="step_00000007")))
        ray.get(coordinator.post.remote(Warned("one")))

    assert Supervisor(coordinator, ComputeConfig(), threading.Event(), listeners).run(fit) is None
    assert logs == ["boxes: resuming from step 7 (checkpoint step_00000007)", "boxes: warning: one"]
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["began", "warning"]


def test_every_listener_gets_every_kind_of_event(
    coordinator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: list[str]
) -> None:
    """A log interval as the worker measures it, and one event of every other kind, through the real coordinator."""
    status = LiveStatus(Storage(tmp_path), RunStatus("running", "boxes"))
    metrics, sums = RunMetrics("r", "boxes", batch=4), Counter[str]()
    monkeypatch.setattr(metrics, "add", lambda name, value: sums.update({name: value}))
    monkeypatch.setattr(metrics, "set", lambda name, value: None)
    monkeypatch.setattr(metrics, "observe", lambda name, value: sums.update({name: 1}))
    view, record = ProgressView("boxes"), Recorder(tmp_path / "progress.jsonl")

    def work() -> None:
        reporter = ProgressReporter(coordinator, Storage(tmp_path), Tracker(), Began(0, 9, workers=2), loud=True)
        meter = ThroughputMeter(batch_size=4)
        for step in (1, 2):
            meter.count()
            meter.add(StepNumbers(step, {"make/loss": float(step), SKIPPED: 0.0, ATTENTION: 0.0}))
        pace = meter.pace()
        reporter.report(Logged(2, 9, meter.finish(), 0, pace))
        reporter.report(Validated(2, 9, {"iou": 0.5}))
        reporter.report(Skipped(3, 1, "make/loss"))
        reporter.report(Saved(4, "step_00000004", 0.5))
        Forward(coordinator).handle(logging.makeLogRecord({"msg": "careful"}))
        reporter.report(WorkerFailed(1, "it died"))
        reporter.report(Stopping(5, TERMINATED))
        reporter.close()
        ray.get(coordinator.beat.remote(5))  # answered after all earlier reports

    Supervisor(coordinator, ComputeConfig(), threading.Event(), [status, metrics.take, view.show, record]).run(work)
    status.end("stopped")
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == [
        kind.kind for kind in (Began, Logged, Validated, Skipped, Saved, Warned, WorkerFailed, Stopping)
    ]
    assert {kind.kind for kind in get_args(Event)} == {line["event"] for line in lines}, "a kind is not tested"
    logged = lines[1]["values"]
    assert logged["make/loss"] == 1.5 and set(logged) == {
        "make/loss", "seconds_per_step", "samples_per_s", "data_wait_share"
    }  # fmt: skip
    stored = RunStatus.load(Storage(tmp_path))
    assert stored is not None and stored.checkpoint is not None
    assert (stored.step, stored.steps, stored.workers, stored.skipped) == (4, 9, 2, 1)
    assert (stored.samples_per_s, stored.checkpoint.name, stored.error) == (
        logged["samples_per_s"], "step_00000004", "worker 1 failed: it died"
    )  # fmt: skip
    assert sums["objgan_samples_total"] == 8 and sums["objgan_step_seconds"] == 2
    assert sums["objgan_skipped_steps_total"] == sums["objgan_restarts_total"] == sums["objgan_checkpoint_seconds"] == 1
    assert len(logs) == 7 and not any(line in "\n".join(logs) for line in ("cannot", "Traceback")), logs


def test_a_record_that_cannot_be_written_is_logged_once_and_ends_nothing(coordinator: Any, tmp_path: Path) -> None:
    def fit() -> None:
        ray.get(coordinator.post.remote(Warned("one"), Warned("two")))

    record = Recorder(tmp_path / "nowhere" / "progress.jsonl")
    with logged() as said:
        Supervisor(coordinator, ComputeConfig(), threading.Event(), [record]).run(fit)
    assert len(said) == 1 and "No such file" in said[0]


def test_workers_that_begin_again_know_why(coordinator: Any) -> None:
    ray.get(coordinator.begin.remote(Began(0, 9)))
    ray.get(coordinator.post.remote(WorkerFailed(1, "it died")))
    ray.get(coordinator.begin.remote(Began(4, 9)))
    ray.get(coordinator.begin.remote(Began(5, 9)))
    events = ray.get(coordinator.take.remote()).events
    again = [(one.restarts, one.reason) for one in events if isinstance(one, Began)]
    assert again == [(0, None), (1, "worker 1 failed: it died"), (2, None)]


def test_a_step_that_only_the_failure_knows_of_counts(coordinator: Any) -> None:
    """Signs of life come once a second, and a failure may come before the first."""
    ray.get(coordinator.begin.remote(Began(4, 9)))
    ray.get(coordinator.fail.remote(Failure("StorageRefused", "x", step=4)))
    assert not ray.get(coordinator.take.remote()).advanced
    ray.get(coordinator.fail.remote(Failure("StorageRefused", "x", step=5)))
    assert ray.get(coordinator.take.remote()).advanced


def test_time_passes_for_metrics_while_nothing_happens(coordinator: Any) -> None:
    ticks: list[float] = []
    watch = Supervisor(coordinator, ComputeConfig(), threading.Event(), tick=lambda: ticks.append(time.monotonic()))
    assert watch.run(lambda: wait_until(lambda: len(ticks) >= 3, 60, "three ticks")) is None


def test_a_run_without_any_worker_gives_up_and_says_what_the_cluster_has(coordinator: Any) -> None:
    end = threading.Event()
    with pytest.raises(Stalled, match=r"sign of life for .* asks for 1 workers, the cluster has 2 CPUs"):
        _supervisor(coordinator, start_deadline=0.8).run(lambda: end.wait(30) and None)
    end.set()


def test_workers_that_make_no_step_are_given_up(coordinator: Any) -> None:
    end = threading.Event()

    def fit() -> None:
        ray.get(coordinator.begin.remote(Began(4, 9)))
        while not end.wait(0.1):
            ray.get(coordinator.beat.remote(4))

    with pytest.raises(Stalled, match=r"no step was finished for .* the last one was 4"):
        _supervisor(coordinator, stall_deadline=1.0).run(fit)
    end.set()


def test_sigterm_asks_the_workers_to_stop(coordinator: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    heard: list[str | None] = []

    def fit() -> None:
        ray.get(coordinator.begin.remote(Began(0, 9)))
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not heard and time.monotonic() < deadline:
            reason = ray.get(coordinator.beat.remote(1))
            heard.extend([reason] if reason else [])
            time.sleep(0.05)

    assert _supervisor(coordinator).run(fit) == TERMINATED
    assert heard == [TERMINATED]
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_fit_raises_is_raised(coordinator: Any) -> None:
    def fit() -> None:
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        _supervisor(coordinator).run(fit)


def test_a_run_that_another_took_over_is_left(coordinator: Any) -> None:
    end, lost = threading.Event(), threading.Event()
    lost.set()
    with pytest.raises(Stalled, match="another driver"):
        _supervisor(coordinator, lost).run(lambda: end.wait(30) and None)
    end.set()


def test_only_the_first_failure_counts(coordinator: Any) -> None:
    ray.get(coordinator.fail.remote(Failure("InputError", "first")))
    ray.get(coordinator.fail.remote(Failure("OSError", "second", 28)))
    assert ray.get(coordinator.given_up.remote())
    assert ray.get(coordinator.take.remote()).failure == Failure("InputError", "first")
