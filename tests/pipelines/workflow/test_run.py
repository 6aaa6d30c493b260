"""The demo, killed in the middle: the same command resumes and finishes, and README's commands run in its folder."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.tools.documents import COCO, commands, run_all
from tests.tools.killed_demo import EVERY, LONG, KilledDemo
from tests.tools.killed_demo import killed_demo as make_killed_demo

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = ["assemble", "boxes", "encoders", "evaluate", "images", "prepare", "register", "sample", "shapes"]


@pytest.fixture(scope="module")
def killed_demo(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> KilledDemo:
    """The demo, killed and resumed; its folder has runs/ and a registered model."""
    return make_killed_demo(tmp_path_factory.mktemp("demo"), repository)


def test_a_killed_run_goes_on_where_it_was(killed_demo: KilledDemo) -> None:
    assert killed_demo.code == 0, killed_demo.said[-6000:]
    assert {path.parent.name.split("-")[0] for path in killed_demo.finished} == {"sample", "prepare"}
    resumed = re.search(r"encoders: resuming from step (\d+)", killed_demo.said)
    assert resumed is not None
    assert EVERY <= int(resumed[1]) < LONG
    for path, when in killed_demo.finished.items():
        assert path.stat().st_mtime_ns == when, f"{path} was finished, and done again"


def test_a_killed_run_leaves_every_result_once(killed_demo: KilledDemo) -> None:
    out = killed_demo.folder / "runs" / "demo"
    assert sorted(path.parent.name.split("-")[0] for path in out.glob("*/step.json")) == STEPS
    assert (out / "pictures" / "contact_sheet.png").exists()
    assert str(Path("runs/demo/pictures/contact_sheet.png")) in killed_demo.said
    client = MlflowClient(f"sqlite:///{killed_demo.folder / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("objgan")
    runs = client.search_runs([experiment.experiment_id])
    parent = (out / "mlflow_run.txt").read_text().strip()
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
    assert sorted(run.data.tags["objgan.step"] for run in nested) == STEPS, "one nested run a step, also after the kill"
    assert {run.info.status for run in runs} == {"FINISHED"}
    encoders = next(run for run in nested if run.data.tags["objgan.step"] == "encoders")
    history = client.get_metric_history(encoders.info.run_id, "matching/words")
    assert [metric.step for metric in history] == list(range(1, LONG + 1)), "no step twice, none missing"
    version = client.get_model_version_by_alias("objgan", "challenger")
    assert json.loads((out / "config.json").read_text())["recipe"] == "tiny"
    assert version.version in ("1", 1)
    assert "## Measures" in version.description and "95 % interval" in version.description
    assert client.get_run(version.run_id).data.metrics and version.tags["objgan.run.boxes"]
    (data,) = encoders.inputs.dataset_inputs
    assert data.dataset.name == "prepared" and version.tags["objgan.data_digest"].startswith(data.dataset.digest)


def test_the_commands_of_the_readme_run(repository: Path, killed_demo: KilledDemo) -> None:
    documented = [command for command in commands((repository / "README.md").read_text()) if command != COCO]
    run_all(repository, killed_demo.folder, documented)


def test_the_python_of_the_readme_runs(repository: Path, killed_demo: KilledDemo) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (repository / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=killed_demo.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("kites.png", "moved.png"):
        assert (killed_demo.folder / "runs" / name).read_bytes().startswith(b"\x89PNG")
