"""Where a run's numbers and pictures go: MLflow, or nowhere."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from objgan.errors import InputError

EXPERIMENT = "objgan"
_PARAMETER_LENGTH = 500


class Tracker(Protocol):
    """Takes what a run has to tell."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Settings by dotted name; telling them again changes nothing."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step; a step that was told before a resume is not told again."""

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """A picture of a step."""


class NullTracker:
    """Tracks nothing."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Tracking:
    """Address of one MLflow run, to hand to a worker. `run` None: nothing is tracked."""

    uri: str = ""
    run: str | None = None

    def tracker(self) -> Tracker:
        """The tracker at this address."""
        return NullTracker() if self.run is None else MLflowTracker(self.uri, self.run)


class MLflowTracker:
    """Writes to one MLflow run through the client, without MLflow's process-wide state."""

    def __init__(self, uri: str, run: str) -> None:
        self._client, self._run = _client(uri), run
        self._told: dict[str, int] = {}

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log settings; parameters are immutable in MLflow, so known ones are left out."""
        from mlflow.entities import Param

        known = self._client.get_run(self._run).data.params
        new = [Param(k, str(v)[:_PARAMETER_LENGTH]) for k, v in values.items() if k not in known]
        for start in range(0, len(new), 100):
            self._client.log_batch(self._run, params=new[start : start + 100])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers in one call."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh = {k: v for k, v in values.items() if step > self._last_step(k)}
        if fresh:
            self._client.log_batch(self._run, metrics=[Metric(k, float(v), now, step) for k, v in fresh.items()])
            self._told.update(dict.fromkeys(fresh, step))

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Log a PNG under `pictures/NAME/STEP.png`."""
        self._client.log_image(self._run, image, artifact_file=f"pictures/{name}/{step:07d}.png")

    def _last_step(self, key: str) -> int:
        """MLflow stores a metric twice when it is told twice at one step."""
        if key not in self._told:
            history = self._client.get_metric_history(self._run, key)
            self._told[key] = max((metric.step for metric in history), default=-1)
        return self._told[key]


def prepare_store(uri: str) -> None:
    """Create a sqlite store before several processes open it at once, which crashes some of them.

    Raises:
        InputError: the store or server cannot be used.
    """
    from mlflow.exceptions import MlflowException

    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    path = _sqlite_path(uri)
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        if _client(uri).get_experiment_by_name(EXPERIMENT) is None:
            location = None if path is None else (path.parent / "mlartifacts").resolve().as_uri()
            _client(uri).create_experiment(EXPERIMENT, artifact_location=location)
    except (MlflowException, OSError) as error:
        raise InputError(f"MLflow: cannot use {uri} ({str(error).splitlines()[0][:200]})") from None


@contextlib.contextmanager
def tracked_run(
    uri: str, name: str, known: Path, tags: Mapping[str, str], parent: str | None = None
) -> Iterator[Tracking]:
    """An MLflow run for the length of a block: RUNNING, then FINISHED, FAILED, or KILLED on an interrupt.

    `known` is a small file beside the results that holds the run's id, so that the same command after a kill goes
    on in the same run.
    """
    client = _client(uri)
    run = _find(client, known) or _create(client, name, tags, parent)
    known.parent.mkdir(parents=True, exist_ok=True)
    known.write_text(run + "\n")
    client.update_run(run, status="RUNNING")
    try:
        yield Tracking(uri, run)
    except BaseException as error:
        client.set_terminated(run, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    client.set_terminated(run, "FINISHED")


def _create(client: Any, name: str, tags: Mapping[str, str], parent: str | None) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    nested = {"mlflow.parentRunId": parent} if parent else {}
    run: str = client.create_run(experiment.experiment_id, run_name=name, tags={**tags, **nested}).info.run_id
    return run


def _find(client: Any, known: Path) -> str | None:
    """The run that `known` names, where this store still has it."""
    from mlflow.exceptions import MlflowException

    try:
        run = known.read_text().strip()
        return run if client.get_run(run).info.lifecycle_stage == "active" else None
    except (FileNotFoundError, MlflowException):
        return None


def _client(uri: str) -> Any:
    logging_quiet()
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def logging_quiet() -> None:
    """MLflow's migrations, hints and bars are not for our users."""
    import logging

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
