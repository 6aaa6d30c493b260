"""Where a run's metrics and pictures go: MLflow, or nowhere.

Logging never waits for MLflow: a thread uploads, and what it cannot upload is queued in the run's storage
(`pipelines.tracking.offline_queue`) until MLflow is reachable, by this process or by the next one of the run.
"""

import contextlib
import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objgan.errors import InputError
from pipelines.redaction import place_of, redact
from pipelines.runtime import ray_job
from pipelines.runtime.origin import origin
from pipelines.storage.lease import LeaseLost
from pipelines.storage.retry import StorageRefused, only_logged
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_client import (
    EXPERIMENT,
    create_run,
    mlflow_client,
    of_database,
    sqlite_path,
    sqlite_uri,
    why,
)
from pipelines.tracking.mlflow_tracker import NEW_FILE, RUN_FILE, MLflowTracker, Tracker, resolve
from pipelines.tracking.offline_queue import Queued, Status
from pipelines.tracking.relocation import artifacts_beside, refuse_moved

logger = logging.getLogger(__name__)
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Tag of an experiment that MLflow's pages open as machine learning; without it, MLflow 3.17 opens it as GenAI."""
_open: dict[tuple[str, str | None, str], MLflowTracker] = {}


@dataclass(frozen=True)
class Tracking:
    """Address of one MLflow run, to pass to a worker. Without `uri` nothing is tracked.

    `run` None: the server was not reachable, and the run is created as soon as it is.
    """

    uri: str = ""
    run: str | None = None
    storage: Storage | None = None

    def tracker(self, adopt: bool = True) -> Tracker:
        """The tracker at this address; while it is open, the whole process shares it. `adopt`: as of MLflowTracker."""
        if not self.uri or self.storage is None:
            return Tracker()
        key = self.uri, self.run, self.storage.uri
        tracker = _open.get(key)
        if tracker is None or tracker.closed:
            tracker = _open[key] = MLflowTracker(self.uri, self.run, self.storage, adopt)
        return tracker


def prepare_store(uri: str, known: Path | Storage | None = None) -> None:
    """Create a sqlite store before several processes open it at once, which crashes some of them.

    known: as in `tracked_run`; if it holds a run, that run continues although the store is not reachable

    Raises:
        InputError: the store or server cannot be used, or the store was moved.
    """
    from mlflow.exceptions import MlflowException

    path = sqlite_path(uri)
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        client = mlflow_client(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            location = None if path is None else artifacts_beside(path)
            client.create_experiment(EXPERIMENT, artifact_location=location, tags=_KIND)
            return
        if path is not None:
            refuse_moved(path, experiment.artifact_location)
        if not experiment.tags.keys() & _KIND.keys():
            with contextlib.suppress(MlflowException):  # without the right to change it, it can still be used
                client.set_experiment_tag(experiment.experiment_id, *next(iter(_KIND.items())))
    except Exception as error:
        if not (isinstance(error, MlflowException | OSError) or of_database(error)):
            raise
        storage, file = (None, "") if known is None else _place(known)
        if storage is None or not (storage.exists(file) or storage.exists(NEW_FILE)):
            raise StorageRefused(f"MLflow: cannot use {place_of(uri)} ({why(error)})") from None


def ask_server(uri: str, known: Path | Storage | None = None) -> None:
    """Check that the tracking server is reachable, before hours of work. A sqlite store is created later.

    known: as in `prepare_store`

    Raises:
        InputError: it is not.
    """
    if sqlite_path(uri) is None:
        prepare_store(uri, known)


def check_store(uri: str, known: Path | Storage | None = None) -> None:
    """As `prepare_store`, for a command that changes nothing: a store that does not exist is not created.

    Raises:
        InputError: the store or server cannot be used.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        prepare_store(uri, known)
    else:
        Storage(path.parent).check_unchanged()


def store_exists(uri: str) -> bool:
    """Whether the store exists; always true for a server."""
    path = sqlite_path(uri)
    return path is None or path.exists()


@contextlib.contextmanager
def tracked_run(
    uri: str, name: str, known: Path | Storage, tags: Mapping[str, str], parent: str | None = None
) -> Iterator[Tracking]:
    """An MLflow run for a block: RUNNING, then FINISHED, FAILED, or KILLED on an interrupt.

    On `LeaseLost` the status stays as it is: another driver has taken over the run.

    `known` is the run's storage (or a small file beside the results) that holds the run's id, so that the same
    command after a kill continues the same run, also while the server is not reachable. A new run needs the server,
    unless it is part of a run that has begun (`parent`).

    Raises:
        InputError: the run is new and the server is not reachable; nothing has begun.
    """
    storage, file = _place(known)
    tags = {**tags, **origin(), **({"mlflow.parentRunId": parent} if parent else {})}
    facts = {"name": name, "tags": {key: redact(value) for key, value in tags.items()}, "known": file}
    tracking = Tracking(uri, _begin(uri, storage, facts, new=parent is None), storage)
    # The tracker is closed at once: it uploads what an earlier process queued before a worker opens the run.
    _log_status(tracking, "RUNNING")
    try:
        yield tracking
    except LeaseLost:
        raise
    except BaseException as error:
        killed = not isinstance(error, Exception)
        with only_logged("cannot log in MLflow how the run ended"):
            # A worker may still be alive after a kill, and uploads its queue itself.
            _log_status(tracking, "KILLED" if killed else "FAILED", adopt=not killed)
        raise
    _log_status(tracking, "FINISHED")


def send_queued(tracking: Tracking, timeout: float) -> Queued | None:
    """Upload what earlier processes of a run queued; returns what is still queued."""
    tracker = tracking.tracker()
    tracker.close(timeout)
    return tracker.queued()


def known_run(storage: Storage) -> str | None:
    """The id of the MLflow run that a storage holds."""
    return storage.read(RUN_FILE).decode().strip() if storage.exists(RUN_FILE) else None


def _begin(uri: str, storage: Storage, facts: dict[str, Any], new: bool) -> str | None:
    """The run's id: known, or created; None: it is created later.

    facts: name and tags of a run to create, and `known`, the file for its id
    new:   whether the run needs the server, because it is not part of another
    """
    if not uri:
        return None
    known = facts["known"]
    run = storage.read(known).decode().strip() if storage.exists(known) else None
    try:
        client = mlflow_client(uri)
        if run is None and storage.exists(NEW_FILE):
            run = resolve(client, storage)
        elif run is None or not _is_active(client, run):
            run = create_run(client, facts["name"], facts["tags"])
            storage.write(known, run + "\n")
        else:
            for tag, value in ray_job.tags().items():  # another submission began it
                client.set_tag(run, tag, redact(value))
    except InputError:
        raise
    except Exception as error:
        if run is None and not storage.exists(NEW_FILE):
            if new:
                raise StorageRefused(f"MLflow: cannot use {place_of(uri)} ({why(error)})") from None
            storage.write(NEW_FILE, json.dumps({**facts, "key": secrets.token_hex(8)}) + "\n")
    return run


def _is_active(client: Any, run: str) -> bool:
    """Whether the run exists in the store."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return False
        raise


def _log_status(tracking: Tracking, status: str, adopt: bool = True) -> None:
    """Upload or queue a status, and close the run's tracker; at the end of the run, log what stays queued."""
    tracker = tracking.tracker(adopt=adopt)
    tracker.add(Status(status))
    tracker.close()
    if status != "RUNNING" and (queued := tracker.queued()):
        logger.info(queued.text())


def _place(known: Path | Storage) -> tuple[Storage, str]:
    return (Storage(known.parent), known.name) if isinstance(known, Path) else (known, RUN_FILE)


def tracking_uri(runs: Path) -> str:
    """`MLFLOW_TRACKING_URI`, or else sqlite in `runs`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(runs.resolve() / "mlflow.db")
