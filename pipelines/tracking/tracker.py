"""Where a run's numbers and pictures go: MLflow, or nowhere.

Telling never waits for MLflow: a thread sends what was told, and what it cannot send is kept in the run's storage
(`pipelines.tracking.offline_queue`) until MLflow answers, if need be until another process opens the run.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from objgan.errors import InputError
from pipelines.redaction import place_of, redact
from pipelines.runtime import ray_job
from pipelines.runtime.console import Log, say
from pipelines.storage.lease import LeaseLost
from pipelines.storage.retry import StorageRefused, only_logged
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_tracker import (
    EXPERIMENT,
    NEW_FILE,
    RUN_FILE,
    MLflowTracker,
    Tell,
    create_run,
    mlflow_client,
    of_database,
    resolve,
    sqlite_path,
    sqlite_uri,
    why,
)
from pipelines.tracking.offline_queue import Queued, Status

_CLOSE_TIMEOUT = 10.0
_open: dict[tuple[str, str | None, str], MLflowTracker] = {}


class Tracker(Protocol):
    """Takes what a run has to tell; no call but `flush` and `close` waits for anything."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Settings by dotted name; telling them again changes nothing."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step; a step that was told before a resume is not told again."""

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """A picture of a step."""

    def flush(self, timeout: float = 5.0) -> bool:
        """See that everything told so far is sent, or kept where the next process finds it; False: neither."""

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Flush for good, after one last attempt to send."""

    def kept(self) -> Queued | None:
        """What is still to be sent, for a line to the user; None: nothing."""


class NullTracker:
    """Tracks nothing."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Nothing."""

    def flush(self, timeout: float = 5.0) -> bool:
        """Nothing is left to send."""
        return True

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Nothing."""

    def kept(self) -> Queued | None:
        """Nothing."""
        return None


@dataclass(frozen=True)
class Tracking:
    """Address of one MLflow run, to hand to a worker. No `uri`: nothing is tracked.

    `run` None with a storage: the server was away, and the run is made as soon as it answers.
    """

    uri: str = ""
    run: str | None = None
    storage: Storage | None = None

    def tracker(self, tell: Tell | None = None) -> Tracker:
        """The tracker at this address; while it is open, the same one in the whole process.

        tell: hears, from another thread, that MLflow went away, came back, or refuses something
        """
        if not self.uri or (self.run is None and self.storage is None):
            return NullTracker()
        return self.open(tell)

    def open(self, tell: Tell | None = None, adopt: bool = True) -> MLflowTracker:
        """As `tracker`, of a run that is tracked; `adopt` as in MLflowTracker, where it is not open yet."""
        key = self.uri, self.run, "" if self.storage is None else self.storage.uri
        there = _open.get(key)
        if there is None or there.closed:
            there = _open[key] = MLflowTracker(self.uri, self.run, self.storage, tell, adopt)
        return there


def prepare_store(uri: str, known: Path | Storage | None = None) -> None:
    """Create a sqlite store before several processes open it at once, which crashes some of them.

    known: as in `tracked_run`: a run that is known there goes on although the store does not answer

    Raises:
        InputError: the store or server cannot be used.
    """
    from mlflow.exceptions import MlflowException

    path = sqlite_path(uri)
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        client = mlflow_client(uri)
        if client.get_experiment_by_name(EXPERIMENT) is None:
            location = None if path is None else (path.parent / "mlartifacts").resolve().as_uri()
            client.create_experiment(EXPERIMENT, artifact_location=location)
    except Exception as error:
        if not (isinstance(error, MlflowException | OSError) or of_database(error)):
            raise
        if known is None or not _is_known(*_place(known)):
            raise StorageRefused(f"MLflow: cannot use {place_of(uri)} ({why(error)})") from None


def ask_server(uri: str, known: Path | Storage | None = None) -> None:
    """See, before work that takes hours, that the tracking server answers. A sqlite store is made later, under a lease.

    known: as in `prepare_store`

    Raises:
        InputError: it does not.
    """
    if sqlite_path(uri) is None:
        prepare_store(uri, known)


def check_store(uri: str, known: Path | Storage | None = None) -> None:
    """As `prepare_store`, for a command that will do nothing: a store that is not there yet is not made.

    Raises:
        InputError: the store or server cannot be used.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        prepare_store(uri, known)
    else:
        Storage(path.parent).check_unchanged()


def store_exists(uri: str) -> bool:
    """Whether there is a store at all; of a server it is supposed."""
    path = sqlite_path(uri)
    return path is None or path.exists()


@contextlib.contextmanager
def tracked_run(
    uri: str,
    name: str,
    known: Path | Storage,
    tags: Mapping[str, str],
    parent: str | None = None,
    log: Log = say,
) -> Iterator[Tracking]:
    """An MLflow run for the length of a block: RUNNING, then FINISHED, FAILED, or KILLED on an interrupt.

    Whoever lost the run to another driver (`LeaseLost`) leaves its status alone.

    `known` is the run's storage (or a small file beside the results) that holds the run's id, so that the same
    command after a kill goes on in the same run, also while the server is away. A new run needs the server, unless it
    is part of one that is under way (`parent`).

    Raises:
        InputError: a new run, and the server does not answer; nothing was begun.
    """
    storage, file = _place(known)
    tracking = Tracking(uri, _begin(uri, storage, _Wanted(name, {**tags, **ray_job.tags()}, parent, file)), storage)
    # Closed at once: what an earlier process left is sent before a worker opens the run.
    _tell_status(tracking, "RUNNING")
    try:
        yield tracking
    except LeaseLost:
        raise  # another driver goes on with this run, and says what becomes of it
    except BaseException as error:
        killed = not isinstance(error, Exception)
        with only_logged("cannot note in MLflow how the run ended", log):
            _end(tracking, "KILLED" if killed else "FAILED", log, adopt=not killed)
        raise
    _end(tracking, "FINISHED", log)


def send_queued(tracking: Tracking, timeout: float) -> Queued | None:
    """Send what earlier processes of a run left; what is still left afterwards."""
    tracker = tracking.tracker()
    tracker.close(timeout)
    return tracker.kept()


def known_run(storage: Storage) -> str | None:
    """The id of the MLflow run that a storage knows."""
    return storage.read(RUN_FILE).decode().strip() if storage.exists(RUN_FILE) else None


@dataclass(frozen=True)
class _Wanted:
    """A run to be made, and the file for its id."""

    name: str
    tags: Mapping[str, str]
    parent: str | None
    known: str

    def all_tags(self) -> dict[str, str]:
        tags = {**self.tags, **({"mlflow.parentRunId": self.parent} if self.parent else {})}
        return {name: redact(value) for name, value in tags.items()}


def _begin(uri: str, storage: Storage, wanted: _Wanted) -> str | None:
    """The run's id: known, or new; None: it is to be made later."""
    if not uri:
        return None
    run = storage.read(wanted.known).decode().strip() if storage.exists(wanted.known) else None
    try:
        client = mlflow_client(uri)
        if run is None and storage.exists(NEW_FILE):
            run = resolve(client, storage)
        elif run is None or not _is_active(client, run):
            run = create_run(client, wanted.name, wanted.all_tags())
            storage.write(wanted.known, run + "\n")
        else:
            for tag, value in ray_job.tags().items():  # it was begun by another submission
                client.set_tag(run, tag, redact(value))
    except InputError:
        raise
    except Exception as error:
        if run is None and wanted.parent is None and not storage.exists(NEW_FILE):
            raise StorageRefused(f"MLflow: cannot use {place_of(uri)} ({why(error)})") from None
        if run is None:
            facts = {"name": wanted.name, "tags": wanted.all_tags(), "known": wanted.known, "key": secrets.token_hex(8)}
            storage.write(NEW_FILE, json.dumps(storage.json(NEW_FILE) or facts) + "\n")
    return run


def _is_active(client: Any, run: str) -> bool:
    """Whether the store still has the run."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return False
        raise


def _tell_status(tracking: Tracking, status: str, adopt: bool = True) -> Queued | None:
    """Send a status, or keep it; an open tracker of the run has told all it had to tell."""
    if not tracking.uri:
        return None
    tracker = tracking.open(adopt=adopt)
    tracker.tell(Status(status))
    tracker.close(_CLOSE_TIMEOUT)
    return tracker.kept()


def _end(tracking: Tracking, status: str, log: Log, adopt: bool = True) -> None:
    """Say how a run ended. `adopt` False: a worker may still be alive, and sends its backlog itself."""
    kept = _tell_status(tracking, status, adopt)
    if kept:
        log(kept.text())


def _place(known: Path | Storage) -> tuple[Storage, str]:
    return (Storage(known.parent), known.name) if isinstance(known, Path) else (known, RUN_FILE)


def _is_known(storage: Storage, file: str) -> bool:
    return storage.exists(file) or storage.exists(NEW_FILE)


def tracking_uri(runs: Path) -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else sqlite in `runs`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(runs.resolve() / "mlflow.db")
