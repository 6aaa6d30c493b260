"""Sweeps on a cluster that loses a node, its head or the job's driver: scenarios of `tests.tools.chaos_cluster`."""

import json
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from pipelines.storage.storage import Storage
from tests.tools.chaos_sweep import compare
from tests.tools.local_cluster import wait_until
from tune.sweep.results import SweepResult
from tune.sweep.trial_store import load_result

_TRAINING = {
    "steps": 400, "batch_size": 8, "group": 8, "checkpoint_every": 50, "log_every": 10, "picture_every": 400,
    "validation_samples": 8,
}  # fmt: skip
_SPACE = "boxes.training.lr: {log_uniform: [1e-4, 1e-2]}\nboxes.training.label_weight: {uniform: [0.5, 2.0]}\n"


@dataclass(frozen=True)
class Ended:
    """The result of a disturbed sweep."""

    finished: int
    trials: int
    difference: str | None
    """From an undisturbed sweep; None: there is none."""
    replayed: int
    """Steps that were trained twice."""
    seconds: float
    """The longest wait for a new step of any trial after the disturbance."""


def words(site: Any, name: str) -> list[str]:
    """The command of a sweep of four trials, two at once, none of which is stopped early."""
    folder: Path = site.bench.folder
    settings = {"boxes": {"text_encoder": "own", "training": _TRAINING}, "compute": {"threads": 1}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(settings))
    (folder / "space.yaml").write_text(_SPACE)
    asked = ["python", "-m", "tune", "boxes", "--data", str(site.bench.data), "--run", name]
    asked += ["--config", str(folder / "sweep.yaml"), "--space", str(folder / "space.yaml"), "--trials", "4"]
    return [*asked, "--max-concurrent", "2", "--scheduler", "none", "--metric", "label_nll"]


def reached(site: Any, name: str, job: Any) -> None:
    """Wait until a trial has its second checkpoint."""
    place = site.bench.folder / "runs" / name / "trials"
    wait_until(lambda: bool(list(place.glob("*/boxes/step_00000100"))) or job.over, 240, "step 100 of a trial")
    assert not job.over, job.text()


def kill_driver(site: Any, name: str) -> None:
    """SIGKILL to the job's own process."""
    os.kill(json.loads((site.bench.folder / "runs" / name / "lease.json").read_text())["pid"], 9)


def outcome(site: Any, name: str, moment: float, calm: str) -> Ended:
    """The result of the sweep compared with the undisturbed one `calm`."""
    disturbed, undisturbed = (_result(site.bench.folder, run) for run in (name, calm))
    finished = sum(trial.state == "finished" for trial in disturbed.trials)
    times, replayed = [], 0
    for file in (site.bench.folder / "runs" / name / "trials").glob("*/boxes/progress.jsonl"):
        lines = [line for line in map(json.loads, file.read_text().splitlines()) if "values" in line]
        replayed += len(lines) - len({line["step"] for line in lines})
        highest = 0
        for line in lines:
            if line["step"] > highest:
                highest = line["step"]
                times.append(line["time"])
    waits = [after - before for before, after in pairwise(sorted(times)) if after > moment]
    # The lines are ten steps apart.
    return Ended(
        finished,
        len(disturbed.trials),
        compare(undisturbed, disturbed),
        10 * replayed,
        round(max(waits, default=0.0), 1),
    )


def _result(folder: Path, run: str) -> SweepResult:
    result = load_result(Storage(folder / "runs" / run))
    assert result is not None
    return result
