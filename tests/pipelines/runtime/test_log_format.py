"""What a platform reads of a command: JSON lines, its last line, status files, tags, numbers for Prometheus."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from objgan.errors import InputError
from pipelines.runs.standing import Standing
from pipelines.runs.status import RunStatus
from pipelines.runtime import ray_job
from pipelines.runtime.events import Began, Logged, Pace, Saved, Skipped, WorkerFailed
from pipelines.runtime.prometheus import COUNTERS, RunMetrics
from pipelines.storage.storage import Storage
from pipelines.training.ledger import Interval

_KEYS = {"time", "level", "run", "stage", "step", "values", "message"}


def command(repository: Path, *words: str, **variables: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *words],
        cwd=repository,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_every_line_is_an_object_with_the_same_keys(repository: Path, tmp_path: Path) -> None:
    words = ["sample", "--images", "3", "--out", str(tmp_path / "coco")]
    code, lines = command(repository, *words, OBJGAN_LOG_FORMAT="json")
    assert code == 0
    assert lines and all(json.loads(line).keys() >= _KEYS for line in lines)
    assert json.loads(lines[0])["run"] == "coco"


def test_the_last_line_says_state_code_and_reason(repository: Path, tmp_path: Path) -> None:
    words = ["prepare", "--images", str(tmp_path), "--instances", "no.json", "--captions", "no.json", "--out"]
    code, lines = command(repository, *words, str(tmp_path / "out"), "--log-format", "json")
    last = json.loads(lines[-1])
    assert (code, last["state"], last["exit_code"], last["level"]) == (2, "error", 2, "error")
    assert "no.json" in last["message"]


@pytest.mark.parametrize(
    ("error", "state"),
    [(None, "finished"), (ValueError("x"), "failed"), (SystemExit(143), "preempted"), (KeyboardInterrupt(), "stopped")],
)
def test_a_status_says_how_work_ended(tmp_path: Path, error: BaseException | None, state: str) -> None:
    storage = Storage(tmp_path)
    expected = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with expected, Standing(storage, "prepare", "r") as standing:
        standing.progress(1, 4)
        assert RunStatus.load(storage).state == "running"
        standing.progress(4, 4)
        if error is not None:
            raise error
    there = RunStatus.load(storage)
    assert (there.state, there.stage, there.step, there.steps) == (state, "prepare", 4, 4)
    assert there.error == ("ValueError: x" if state == "failed" else None)


def test_a_job_knows_its_tags_and_does_not_go_on_by_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_job.tags() == {} and ray_job.job_environment() is None
    monkeypatch.setenv("OBJGAN_TAGS", '{"objgan.submission": "a"}')
    assert ray_job.tags() == {"objgan.submission": "a"}
    storage = Storage(tmp_path)
    storage.write("config.json", "{}")
    ray_job.refuse_reuse(storage, "config.json")
    monkeypatch.setenv("OBJGAN_RUNS", "new")
    ray_job.refuse_reuse(storage, "other.json")
    with pytest.raises(InputError, match="submit with --resume"):
        ray_job.refuse_reuse(storage, "config.json")
    monkeypatch.setenv("OBJGAN_RUNS", "resume")
    ray_job.refuse_reuse(storage, "config.json")


def test_numbers_follow_the_events_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float]] = []
    monkeypatch.setattr(RunMetrics, "_do", lambda self, name, use: use(Kept(name, told)))
    metrics = RunMetrics("r", "shapes", batch=4)
    metrics.take(Began(10, 20, checkpoint="step_00000010"))
    metrics.take(Logged(12, 20, {"samples_per_s": 8.0}, 1, Pace(2, (0.5, 0.25), 0.125)))
    metrics.take(Skipped(11, 1, "generator/x"))
    metrics.take(Saved(12, "step_00000012", 2.0))
    metrics.take(WorkerFailed(0, "x"))
    metrics.tick()
    assert told[:-1] == [
        ("objgan_step", 10), ("objgan_step", 12), ("objgan_steps_total", 20), ("objgan_samples_total", 8),
        ("objgan_samples_per_second", 8.0), ("objgan_data_wait_seconds_total", 0.125), ("objgan_step_seconds", 0.5),
        ("objgan_step_seconds", 0.25), ("objgan_skipped_steps_total", 1), ("objgan_checkpoint_seconds", 2.0),
        ("objgan_restarts_total", 1),
    ]  # fmt: skip
    assert told[-1][0] == "objgan_checkpoint_age_seconds" and told[-1][1] < 5


class Kept:
    """Takes what a metric would."""

    def __init__(self, name: str, told: list[tuple[str, float]]) -> None:
        self.name, self.told = name, told

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert tags == {"run": "r", "stage": "shapes"}
        self.told.append((self.name, value))

    set = observe = inc


def test_what_goes_wrong_with_numbers_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError(name)

    monkeypatch.setattr("pipelines.runtime.prometheus._metric", broken)
    metrics = RunMetrics("r", "shapes")
    for name in COUNTERS:
        metrics.add(name, 1)
    metrics.tick()


def test_an_interval_keeps_the_seconds_of_each_step() -> None:
    interval = Interval(4)
    for _ in range(3):
        with interval:
            pass
        interval.count()
    pace = interval.pace()
    assert pace.steps == 3 and len(pace.seconds) == 3 and sum(pace.seconds) >= pace.waited >= 0
    interval.finish()
    assert interval.pace() == Pace()
