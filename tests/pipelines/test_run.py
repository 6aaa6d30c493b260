"""The whole way, killed in the middle: the same command goes on and finishes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_TRAINING = {
    "steps": 4,
    "batch_size": 6,
    "validation_samples": 6,
    "checkpoint_every": 2,
    "picture_every": 4,
    "log_every": 1,
}
_LONG = 60
STEPS = ["assemble", "boxes", "encoders", "evaluate", "images", "prepare", "register", "sample", "shapes"]


def _settings() -> dict:
    stages = {name: {"training": _TRAINING} for name in ("encoders", "boxes", "shapes", "images")}
    # Steps take some 30 ms: the first stage is long enough to be killed between two of its checkpoints.
    stages["encoders"]["training"] = _TRAINING | {"steps": _LONG, "picture_every": _LONG}
    return {**stages, "compute": {"threads": 1}}


@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(_settings()))
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "demo",
        "--images",
        "48",
        "--config",
        "quick.yaml",
        "--out",
        "runs/demo",
    ]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    first = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _wait_for_checkpoint(tmp_path / "runs" / "demo", first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "demo").glob("*/step.json")}
    assert {path.parent.name.split("-")[0] for path in before} == {"sample", "prepare"}
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-4000:]
    resumed = re.search(r"encoders: goes on from step (\d+)", again.stdout)
    assert resumed is not None
    assert 2 <= int(resumed[1]) < _LONG
    assert all(path.stat().st_mtime_ns == when for path, when in before.items()), "finished steps were done again"
    _check_results(tmp_path, again.stdout)


def _wait_for_checkpoint(out: Path, process: subprocess.Popen) -> None:
    """Until the first checkpoint of the first stage is there."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if list(out.glob("encoders-*/step_*")):
            return
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint; exit code {process.poll()}")


def _check_results(folder: Path, said: str) -> None:
    out = folder / "runs" / "demo"
    assert sorted(path.parent.name.split("-")[0] for path in out.glob("*/step.json")) == STEPS
    assert (out / "pictures" / "contact_sheet.png").exists()
    assert str(Path("runs/demo/pictures/contact_sheet.png")) in said
    client = MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("objgan")
    runs = client.search_runs([experiment.experiment_id])
    parent = (out / "mlflow_run.txt").read_text().strip()
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
    assert sorted(run.data.tags["objgan.step"] for run in nested) == STEPS, "one nested run a step, also after the kill"
    assert {run.info.status for run in runs} == {"FINISHED"}
    encoders = next(run for run in nested if run.data.tags["objgan.step"] == "encoders")
    history = client.get_metric_history(encoders.info.run_id, "matching/words")
    assert [metric.step for metric in history] == list(range(1, _LONG + 1)), "no step twice, none missing"
    version = client.get_model_version_by_alias("objgan", "challenger")
    assert json.loads((out / "config.json").read_text())["recipe"] == "tiny"
    assert version.version in ("1", 1)
