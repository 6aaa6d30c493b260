"""What a person reads, with a terminal and without."""

import contextlib
import os
import pty
import sys
import termios
from typing import Any

import pytest

from pipelines.progress import ProgressView

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
INTERVAL: dict[str, Any] = {"step": 40, "steps": 200, "values": VALUES}
TEXT = "32 samples/s  wait 3%  0:01:20 left  generator/adversarial=0.693"


def lines(*shown: dict[str, Any]) -> list[str]:
    said: list[str] = []
    view = ProgressView("boxes", said.append)
    for line in shown:
        view.show(line)
    view.close()
    return said


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (INTERVAL, f"boxes 40/200  {TEXT}"),
        ({**INTERVAL, "skipped": 2}, f"boxes 40/200  {TEXT.replace('left  ', 'left  left out 2  ')}"),
        ({"step": 50, "steps": 200, "measures": {"iou": 0.51234}}, "boxes 50/200  held out: iou=0.512"),
        ({"checkpoint": "step_00000050", "seconds": 1.23, "step": 50}, "boxes: checkpoint step_00000050 kept in 1.2 s"),
        ({"restarted": 2, "reason": "a worker died"}, "boxes: workers started again (restart 2): a worker died"),
        ({"restarted": 2}, "boxes: workers started again (restart 2): unknown"),
        ({"warning": "MLflow does not answer"}, "boxes: warning: MLflow does not answer"),
        ({"resumed": 50}, "boxes: goes on from step 50"),
        (
            {"resumed": 50, "checkpoint": "step_00000050"},
            "boxes: goes on from step 50 (checkpoint step_00000050)",
        ),
        (
            {"skipped": 3, "step": 61, "term": "generator/adversarial"},
            "boxes: step 61 left out: generator/adversarial was not finite (3 steps left out so far)",
        ),
        ({"skipped": 1, "step": 7}, "boxes: step 7 left out (1 step left out so far)"),
        ({"stopping": "the node is to be taken away"}, "boxes: stopping: the node is to be taken away"),
    ],
)
def test_every_kind_of_line_is_one_line_of_text(line: dict[str, Any], text: str) -> None:
    assert lines(line) == [text]


def test_a_kind_that_is_not_known_yet_is_passed_over() -> None:
    assert lines({"weather": "sunny"}) == []


def test_a_slow_run_shows_its_speed_all_the_same() -> None:
    (text,) = lines({**INTERVAL, "values": VALUES | {"samples_per_s": 0.257}})
    assert "0.26 samples/s" in text


def test_on_a_terminal_a_bar_moves_and_events_stay_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 150))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        said = lines({"resumed": 20}, INTERVAL, {"checkpoint": "step_00000040", "step": 40})
    bar = ""
    with contextlib.suppress(OSError):  # the end of what the terminal was sent
        while text := os.read(ours, 9999).decode():
            bar += text
    os.close(ours)
    assert said == ["boxes: goes on from step 20", "boxes: checkpoint step_00000040 kept"]
    assert "boxes 40/200" in bar and TEXT in bar
