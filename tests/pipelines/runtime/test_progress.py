"""What a person reads, with a terminal and without."""

import contextlib
import json
import os
import pty
import sys
import termios
from dataclasses import replace
from typing import get_args

import pytest

from pipelines.runtime.events import (
    Began,
    Event,
    Logged,
    Saved,
    Skipped,
    Stopping,
    Validated,
    Warned,
    WorkerFailed,
    facts,
)
from pipelines.runtime.progress import ProgressView

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


def lines(*shown: Event) -> list[str]:
    said: list[str] = []
    view = ProgressView("boxes", said.append)
    for event in shown:
        view.show(event)
    view.close()
    return said


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (INTERVAL, f"boxes 40/200  {TEXT}"),
        (replace(INTERVAL, skipped=2), f"boxes 40/200  {TEXT.replace('left  ', 'left  left out 2  ')}"),
        (Validated(50, 200, {"iou": 0.51234}), "boxes 50/200  held out: iou=0.512"),
        (Saved(50, "step_00000050", 1.23), "boxes: checkpoint step_00000050 written in 1.2 s"),
        (WorkerFailed(1, "it died"), "boxes: warning: worker 1 failed: it died (failure 1 of this command)"),
        (
            Began(20, 90, checkpoint="step_00000020", restarts=2, reason="worker 1 failed: it died"),
            "boxes: workers restarted (restart 2: worker 1 failed: it died); resuming from step 20 "
            "(checkpoint step_00000020)",
        ),
        (Began(0, 90, restarts=1), "boxes: workers restarted (restart 1); resuming from step 0"),
        (Warned("MLflow does not answer"), "boxes: warning: MLflow does not answer"),
        (Began(50, 90, checkpoint="step_00000050"), "boxes: resuming from step 50 (checkpoint step_00000050)"),
        (
            Skipped(61, 3, "generator/adversarial"),
            "boxes: step 61 left out: generator/adversarial was not finite (3 steps left out so far)",
        ),
        (Skipped(7, 1), "boxes: step 7 left out (1 step left out so far)"),
        (Stopping(7, "terminated"), "boxes: stopping: terminated, with a checkpoint at step 7"),
    ],
)
def test_every_kind_of_event_is_one_line_of_text(event: Event, text: str) -> None:
    assert lines(event) == [text]


def test_a_first_begin_says_nothing() -> None:
    assert lines(Began(0, 200)) == []


def test_no_kind_of_event_is_passed_over_by_a_listener() -> None:
    """The terminal, `status.json` and `progress.jsonl` know every type that can be posted."""
    shown = {Logged: INTERVAL, Validated: Validated(1, 2, {}), Saved: Saved(1, "a"), WorkerFailed: WorkerFailed(0, "x")}
    shown |= {Began: Began(1, 2, restarts=1), Warned: Warned("x"), Skipped: Skipped(1, 1), Stopping: Stopping(1, "x")}
    assert set(shown) == set(get_args(Event))
    assert all(lines(event) for event in shown.values())
    assert len({facts(event)["event"] for event in shown.values()}) == len(shown)
    assert all(json.loads(json.dumps(facts(event))) for event in shown.values())


def test_a_slow_run_shows_its_speed_all_the_same() -> None:
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
