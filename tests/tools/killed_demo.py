"""`python -m pipelines demo`, killed in its first stage and given again: one run of all steps, for several tests."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LONG, EVERY = 400, 20
"""Steps of the first stage, and of its checkpoints: at some 20 ms each, not all are done when the driver is killed, nor
when Ray ends its worker, which goes on until the driver is missed."""

_TRAINING = {
    "steps": 4,
    "batch_size": 6,
    "validation_samples": 6,
    "checkpoint_every": 2,
    "picture_every": 4,
    "log_every": 1,
}


@dataclass(frozen=True)
class KilledDemo:
    """Where it ran, what it said when given again, its exit code, and step.json of what was finished at the kill."""

    folder: Path
    said: str
    code: int
    finished: dict[Path, int]


def killed_demo(folder: Path, repository: Path) -> KilledDemo:
    """Run it in this folder; see above."""
    (folder / "quick.yaml").write_text(yaml.safe_dump(_settings()))
    command = [sys.executable, "-m", "pipelines", "demo", "--images", "48", "--config", "quick.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    first = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_for_checkpoint(folder / "runs" / "demo", first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    finished = {path: path.stat().st_mtime_ns for path in (folder / "runs" / "demo").glob("*/step.json")}
    again = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return KilledDemo(folder, again.stdout + again.stderr, again.returncode, finished)


def _settings() -> dict[str, Any]:
    stages = {name: {"training": _TRAINING} for name in ("encoders", "boxes", "shapes", "images")}
    stages["encoders"]["training"] = _TRAINING | {
        "steps": LONG,
        "checkpoint_every": EVERY,
        "picture_every": LONG,
    }
    return {**stages, "compute": {"threads": 1}}


def _wait_for_checkpoint(out: Path, process: subprocess.Popen) -> None:
    """Until the first checkpoint of the first stage is there."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if list(out.glob("encoders-*/step_*")):
            return
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint; exit code {process.poll()}")
