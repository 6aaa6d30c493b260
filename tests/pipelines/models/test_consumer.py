"""A consumer in an environment with the registered model's requirements alone: the whole contract, REST included."""

import os
import subprocess
from pathlib import Path

import mlflow.pyfunc
import pytest

from pipelines.models.registry import mlflow_at, register
from tests.tools.clean_environment import clean_environment
from tests.tools.ports import free_port
from tests.tools.untrained import write_model


@pytest.mark.slow
def test_a_consumer_needs_mlflow_and_the_uri_alone(repository: Path, tmp_path: Path) -> None:
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    first, second = (
        register(write_model(tmp_path / f"model{seed}", seed), tracking_uri=tracking).uri for seed in (0, 1)
    )
    with mlflow_at(tracking):
        lines = Path(mlflow.pyfunc.get_model_dependencies(first)).read_text().split()
    python = clean_environment(tmp_path / "clean", lines)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}
    environment["PATH"] = f"{python.parent}:{environment['PATH']}"
    command = [python, repository / "tests" / "tools" / "consumer.py", tracking, first, second, str(free_port())]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0 and done.stdout.endswith("ok\n"), done.stdout[-2000:] + done.stderr[-6000:]
