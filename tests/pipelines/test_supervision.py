"""The driver's watch over a run, with a real board and something else than training behind it."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from objgan.sections import ComputeConfig
from pipelines.board import make_board
from pipelines.progress import ProgressView
from pipelines.supervision import TERMINATED, Stalled, Supervisor

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


@pytest.fixture
def board() -> Iterator[Any]:
    made = make_board()
    yield made
    ray.kill(made)


def _supervisor(board: Any, said: list[str], lost: threading.Event | None = None, **compute: float) -> Supervisor:
    return Supervisor(board, ComputeConfig(**compute), ProgressView("boxes", said.append), lost or threading.Event())


def test_lines_reach_the_person_and_the_file(board: Any, tmp_path: Path) -> None:
    said: list[str] = []

    def fit() -> None:
        assert ray.get(board.begin.remote(0)) == 0
        ray.get(board.tell.remote({"warning": "one"}))
        ray.get(board.tell.remote({"resumed": 7}))

    assert _supervisor(board, said).run(fit, tmp_path / "progress.jsonl") is None
    assert said == ["boxes: warning: one", "boxes: goes on from step 7"]
    assert len((tmp_path / "progress.jsonl").read_text().splitlines()) == 2


def test_a_run_without_any_worker_gives_up_and_says_what_the_cluster_has(board: Any) -> None:
    end = threading.Event()
    with pytest.raises(Stalled, match=r"sign of life for .* asks for 1 workers, the cluster has 2 CPUs"):
        _supervisor(board, [], start_deadline=0.8).run(lambda: end.wait(30) and None, None)
    end.set()


def test_workers_that_make_no_step_are_given_up(board: Any) -> None:
    end = threading.Event()

    def fit() -> None:
        ray.get(board.begin.remote(4))
        while not end.wait(0.1):
            ray.get(board.beat.remote(4))

    with pytest.raises(Stalled, match=r"no step was finished for .* the last one was 4"):
        _supervisor(board, [], stall_deadline=1.0).run(fit, None)
    end.set()


def test_sigterm_asks_the_workers_to_stop(board: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    heard: list[str | None] = []

    def fit() -> None:
        ray.get(board.begin.remote(0))
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not heard and time.monotonic() < deadline:
            reason = ray.get(board.beat.remote(1))
            heard.extend([reason] if reason else [])
            time.sleep(0.05)

    assert _supervisor(board, []).run(fit, None) == TERMINATED
    assert heard == [TERMINATED]
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_fit_raises_is_raised(board: Any) -> None:
    def fit() -> None:
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        _supervisor(board, []).run(fit, None)


def test_a_run_that_another_took_over_is_left(board: Any) -> None:
    end, lost = threading.Event(), threading.Event()
    lost.set()
    with pytest.raises(Stalled, match="another driver"):
        _supervisor(board, [], lost).run(lambda: end.wait(30) and None, None)
    end.set()


def test_only_the_first_failure_counts(board: Any) -> None:
    ray.get(board.fail.remote("InputError", "first"))
    ray.get(board.fail.remote("OSError", "second", 28))
    assert ray.get(board.given_up.remote())
    assert ray.get(board.take.remote()).failure == {"error": "InputError", "text": "first", "errno": None}
