"""Output of a command for a platform (JSON lines, last line, status files, tags, Prometheus) and for people."""

import contextlib
import json
import logging
import logging.config
import os
import pty
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from objgan.errors import InputError
from pipelines.runs.status import JobStatus, RunStatus
from pipelines.runtime import console, ray_job
from pipelines.runtime.console import ProgressView
from pipelines.runtime.events import (
    Began,
    Event,
    Logged,
    Pace,
    Saved,
    Skipped,
    Stopping,
    Validated,
    Warned,
    WorkerFailed,
    facts,
)
from pipelines.runtime.prometheus import COUNTERS, RunMetrics
from pipelines.storage.storage import Storage
from pipelines.training.reporting import ThroughputMeter
from tests.tools.logged import logged

_KEYS = {"time", "level", "run", "stage", "step", "values", "message"}

VALUES = {
    "generator/adversarial": 0.69315,
    "generator/gradient_norm": 3.0,
    "discriminator/accuracy": 0.5,
    "learning_rate/generator": 1e-4,
    "system/cpu_percent": 50.0,
    "seconds_per_step": 0.5,
    "samples_per_s": 32.4,
    "data_wait_share": 0.034,
}
INTERVAL = Logged(40, 200, VALUES)
TEXT = "32 samples/s  wait 3%  0:01:20 left  generator/adversarial=0.693"


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


def test_the_last_line_has_state_code_and_reason(repository: Path, tmp_path: Path) -> None:
    words = ["prepare", "--images", str(tmp_path), "--instances", "no.json", "--captions", "no.json", "--out"]
    code, lines = command(repository, *words, str(tmp_path / "out"), "--log-format", "json")
    last = json.loads(lines[-1])
    assert (code, last["state"], last["exit_code"], last["level"]) == (2, "error", 2, "error")
    assert "no.json" in last["message"]


def test_log_records_of_our_modules_are_lines_with_the_level_of_the_record(capsys) -> None:
    log = logging.getLogger("pipelines.x")
    try:
        for form in ("text", "json"):
            console.choose(form, "r")
            log.info("no warning: a word")
            log.warning("http://u:secretly@h", extra={"prefix": "a: "})
            with console.lines_with(stage="s", prefix="# "):
                log.info("dry")
            log.info("beside", extra={"aside": True})
    finally:
        console.choose("text", None)
    shown = capsys.readouterr()
    assert shown.err.splitlines()[0] == "beside" and "beside" not in shown.out
    text, objects = shown.out.splitlines()[:3], [json.loads(line) for line in shown.out.splitlines()[3:]]
    assert text == ["no warning: a word", "a: warning: http://***@h", "# dry"]
    assert [each["message"] for each in objects] == text and all(each.keys() >= _KEYS for each in objects)
    assert [(each["level"], each["stage"]) for each in objects] == [("info", None), ("warning", None), ("info", "s")]


def test_lines_survive_that_a_library_configures_logging(capsys: pytest.CaptureFixture[str]) -> None:
    """Ray Train does, which closes the handlers of all loggers (ray-project/ray#48732)."""
    try:
        console.choose("text", "r")
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
        logging.getLogger("tune.x").info("still here")
    finally:
        console.choose("text", None)
    assert capsys.readouterr().out == "still here\n"


def test_a_program_that_imports_us_sees_warnings_alone(repository: Path) -> None:
    code = "from pipelines.storage.retry import logger; logger.info('an event'); logger.warning('a fault')"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "a fault\n")


@pytest.mark.parametrize(
    ("error", "state"),
    [(None, "finished"), (ValueError("x"), "failed"), (SystemExit(143), "preempted"), (KeyboardInterrupt(), "stopped")],
)
def test_the_status_records_how_work_ended(tmp_path: Path, error: BaseException | None, state: str) -> None:
    storage = Storage(tmp_path)
    expected = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with expected, JobStatus(storage, "prepare", "r") as job_status:
        job_status.progress(1, 4)
        assert RunStatus.load(storage).state == "running"
        job_status.progress(4, 4)
        if error is not None:
            raise error
    status = RunStatus.load(storage)
    assert (status.state, status.stage, status.step, status.steps) == (state, "prepare", 4, 4)
    assert status.error == ("ValueError: x" if state == "failed" else None)


def test_a_job_has_its_tags_and_continues_a_run_only_with_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_prometheus_metrics_follow_the_events_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[tuple[str, float]] = []
    monkeypatch.setattr(RunMetrics, "_do", lambda self, name, use: use(RecordedMetric(name, recorded)))
    metrics = RunMetrics("r", "shapes", batch=4)
    metrics.take(Began(10, 20, checkpoint="step_00000010"))
    metrics.take(Logged(12, 20, {"samples_per_s": 8.0}, 1, Pace(2, (0.5, 0.25), 0.125)))
    metrics.take(Skipped(11, 1, "generator/x"))
    metrics.take(Saved(12, "step_00000012", 2.0))
    metrics.take(WorkerFailed(0, "x"))
    metrics.tick()
    assert recorded[:-1] == [
        ("objgan_step", 10), ("objgan_step", 12), ("objgan_steps_total", 20), ("objgan_samples_total", 8),
        ("objgan_samples_per_second", 8.0), ("objgan_data_wait_seconds_total", 0.125), ("objgan_step_seconds", 0.5),
        ("objgan_step_seconds", 0.25), ("objgan_skipped_steps_total", 1), ("objgan_checkpoint_seconds", 2.0),
        ("objgan_restarts_total", 1),
    ]  # fmt: skip
    assert recorded[-1][0] == "objgan_checkpoint_age_seconds" and recorded[-1][1] < 5


class RecordedMetric:
    """Stands in for a metric and records its values."""

    def __init__(self, name: str, recorded: list[tuple[str, float]]) -> None:
        self.name, self.recorded = name, recorded

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert tags == {"run": "r", "stage": "shapes"}
        self.recorded.append((self.name, value))

    set = observe = inc


def test_a_broken_prometheus_metric_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError(name)

    monkeypatch.setattr("pipelines.runtime.prometheus._metric", broken)
    metrics = RunMetrics("r", "shapes")
    for name in COUNTERS:
        metrics.add(name, 1)
    metrics.tick()


def test_an_interval_has_the_seconds_of_each_step() -> None:
    interval = ThroughputMeter(4)
    for _ in range(3):
        with interval:
            pass
        interval.count()
    pace = interval.pace()
    assert pace.steps == 3 and len(pace.seconds) == 3 and sum(pace.seconds) >= pace.waited >= 0
    interval.finish()
    assert interval.pace() == Pace()


def lines(*shown: Event) -> list[str]:
    view = ProgressView("boxes")
    with logged() as said:
        for event in shown:
            view.show(event)
    view.close()
    return said


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (INTERVAL, f"boxes 40/200  {TEXT}"),
        (replace(INTERVAL, skipped=2), f"boxes 40/200  {TEXT.replace('left  ', 'left  skipped 2  ')}"),
        (Validated(50, 200, {"iou": 0.51234}), "boxes 50/200  held out: iou=0.512"),
        (Saved(50, "step_00000050", 1.23), "boxes: checkpoint step_00000050 written in 1.2 s"),
        (WorkerFailed(1, "it died"), "boxes: warning: worker 1 failed: it died (failure 1 of this command)"),
        (
            Began(20, 90, checkpoint="step_00000020", restarts=2, reason="worker 1 failed: it died"),
            "boxes: workers restarted (restart 2: worker 1 failed: it died); resuming from step 20 "
            "(checkpoint step_00000020)",
        ),
        (Began(0, 90, restarts=1), "boxes: workers restarted (restart 1); resuming from step 0"),
        (Warned("MLflow is not reachable"), "boxes: warning: MLflow is not reachable"),
        (Began(50, 90, checkpoint="step_00000050"), "boxes: resuming from step 50 (checkpoint step_00000050)"),
        (
            Skipped(61, 3, "generator/adversarial"),
            "boxes: step 61 skipped: generator/adversarial was not finite (3 steps skipped so far)",
        ),
        (Skipped(7, 1), "boxes: step 7 skipped (1 step skipped so far)"),
        (Stopping(7, "terminated"), "boxes: stopping: terminated, with a checkpoint at step 7"),
    ],
)
def test_every_kind_of_event_is_one_line_of_text(event: Event, text: str) -> None:
    assert lines(event) == [text]


def test_the_first_begin_prints_nothing() -> None:
    assert lines(Began(0, 200)) == []


def test_listeners_handle_every_kind_of_event() -> None:
    """The terminal, `status.json` and `progress.jsonl` know every type that can be posted."""
    shown = {Logged: INTERVAL, Validated: Validated(1, 2, {}), Saved: Saved(1, "a"), WorkerFailed: WorkerFailed(0, "x")}
    shown |= {Began: Began(1, 2, restarts=1), Warned: Warned("x"), Skipped: Skipped(1, 1), Stopping: Stopping(1, "x")}
    assert set(shown) == set(get_args(Event))
    assert all(lines(event) for event in shown.values())
    assert len({facts(event)["event"] for event in shown.values()}) == len(shown)
    assert all(json.loads(json.dumps(facts(event))) for event in shown.values())


def test_a_slow_run_shows_its_speed() -> None:
    (text,) = lines(replace(INTERVAL, values=VALUES | {"samples_per_s": 0.257}))
    assert "0.26 samples/s" in text


def test_on_a_terminal_a_bar_moves_and_events_stay_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 150))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        said = lines(Began(20, 200, checkpoint="step_00000020"), INTERVAL, Saved(40, "step_00000040"))
    bar = ""
    with contextlib.suppress(OSError):  # the end of what the terminal was sent
        while text := os.read(ours, 9999).decode():
            bar += text
    os.close(ours)
    assert said == [
        "boxes: resuming from step 20 (checkpoint step_00000020)",
        "boxes: checkpoint step_00000040 written",
    ]
    assert "boxes 40/200" in bar and TEXT in bar
