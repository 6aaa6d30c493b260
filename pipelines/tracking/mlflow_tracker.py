"""A tracker that sends to MLflow in the background, and the MLflow client it uses."""

import atexit
import contextlib
import itertools
import logging
import os
import re
import shlex
import sys
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from objgan.errors import InputError
from pipelines.redaction import in_a_line, place_of, redact
from pipelines.storage.storage import Storage
from pipelines.tracking.offline_queue import (
    FOLDER,
    Metrics,
    OfflineQueue,
    Parameters,
    Picture,
    Queued,
    Record,
    Status,
    Tags,
    shown,
)

Tell = Callable[[str], None]
_LINGER = 0.2  # what is told in this time goes in one call
_MOST_RECORDS = 500  # of one attempt
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0

EXPERIMENT = "objgan"
RUN_FILE, NEW_FILE = "mlflow_run.txt", "mlflow_new.json"
_MOST_METRICS, _MOST_PARAMETERS = 1000, 100  # of one call
_PARAMETER_LENGTH = 500
# MLflow's own patience (7 retries, 120 s each) would hold up a command for minutes.
_BRIEF = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""Codes of MLflow's errors that say that a value is wrong, not that the server is."""
_KEY_TAG = "objgan.key"
_PACKAGES = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "pymysql": "PyMySQL",
    "azure": "azure-storage-blob",
    "google": "google-cloud-storage",
}
"""Of a module, what to install, where that has another name."""


class MLflowTracker:
    """Takes what a run tells at once; a thread sends it in batches, in order.

    What cannot be sent goes to the run's storage, so that memory does not grow and a kill loses nothing that was
    flushed; it is sent before anything newer. Without a storage it stays in memory.

    Args:
        uri: of MLflow's store or server
        run: the MLflow run; None: it is found, or made, by way of the storage
        storage: the run's storage
        tell: hears, from the thread, that MLflow went away, came back, or refuses something
        adopt: whether to send what earlier processes left
        longest_wait: seconds between two attempts, at most
    """

    def __init__(
        self,
        uri: str,
        run: str | None,
        storage: Storage | None = None,
        tell: Tell | None = None,
        adopt: bool = True,
        longest_wait: float = _LONGEST_WAIT,
    ) -> None:
        self._sender = Sender(uri, run, storage)
        self._say, self._longest_wait = tell or (lambda text: None), longest_wait
        self._offline_queue = None if storage is None else OfflineQueue(storage)
        self._where = "memory" if storage is None else f"{shown(storage)}/{FOLDER}"
        self._files = self._offline_queue.names() if self._offline_queue is not None and adopt else []
        self._queue: list[Record] = []
        self._away = self._hurry = self._closing = self._given_up = False
        self._changed = threading.Condition()
        self._keeping = threading.Lock()
        self._refusals = 0
        self.closed = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Settings by dotted name; telling them again changes nothing."""
        self.tell(Parameters({key: redact(str(value)) for key, value in values.items()}))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step; those that MLflow has of it or of a later one are left out when they are sent."""
        self.tell(Metrics({key: float(value) for key, value in values.items()}, step))

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """A picture of a step, under `pictures/NAME/STEP.png`."""
        self.tell(Picture(name, step, image.copy()))

    def tell(self, record: Record) -> None:
        """Put a record in the queue; told after `close`, it is kept for the next process.

        Raises:
            RuntimeError: the tracker is closed, and there is no storage to keep it in.
        """
        with self._changed:
            self._queue.append(record)
            self._changed.notify_all()
        if self.closed and not self._keep():
            raise RuntimeError("this tracker is closed")

    def flush(self, timeout: float = 5.0) -> bool:
        """See that everything told so far is sent, or kept where the next process finds it.

        While MLflow is known to be away, or when it takes longer than `timeout`, it is kept. False: there is no
        storage to keep it in, or it does not answer either.
        """
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._away or not self._queue, timeout)
            self._hurry = False
        return self._keep()

    def close(self, timeout: float = 10.0) -> None:
        """One last attempt to send, for so many seconds at most; what is left then is kept."""
        with self._changed:
            if self.closed:
                return
            self.closed = self._closing = True
            self._changed.notify_all()
        atexit.unregister(self.close)
        self._thread.join(timeout)
        self._given_up = True
        self._keep()

    def kept(self) -> Queued | None:
        """What is still to be sent; None: nothing."""
        if self._offline_queue is None:
            return None
        return self._offline_queue.kept() or None

    def _work(self) -> None:
        wait = 0.0
        while True:
            last = self._pause(wait)
            try:
                self._send_all()
                self._answered()
                wait = 0.0
            except Exception as error:  # whatever went wrong there must not end a training
                self._failed(error)
                wait = min(max(_FIRST_WAIT, 2 * wait), self._longest_wait)
            if last:
                return

    def _pause(self, wait: float) -> bool:
        """Wait for something to send, or out the time before another attempt; True: it is the last one."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closing, wait)
            elif not self._files:
                self._changed.wait_for(lambda: self._queue or self._closing)
                self._changed.wait_for(lambda: self._hurry or self._closing, _LINGER)
            return self._closing

    def _send_all(self) -> None:
        while not self._given_up:
            file, records = self._next()
            if file is not None and self._offline_queue is not None:
                self._sender.send(self._offline_queue.read(file))
                self._offline_queue.remove(file)
            elif records:
                self._sender.send(records)
            else:
                return
            self._forget(file, records)

    def _next(self) -> tuple[str | None, list[Record]]:
        """The oldest file of the backlog; the queue's turn comes when there is none."""
        with self._changed:
            return (self._files[0], []) if self._files else (None, self._queue[:_MOST_RECORDS])

    def _forget(self, file: str | None, records: list[Record]) -> None:
        with self._changed:
            if file is not None:
                self._files.remove(file)
            self._drop(records)
            self._changed.notify_all()

    def _drop(self, records: list[Record]) -> None:
        """Take records off the queue's front, as far as they are still there."""
        there = {id(record) for record in records}
        self._queue = [record for record in self._queue if id(record) not in there]

    def _answered(self) -> None:
        with self._changed:
            back, self._away = self._away, False
        if back:
            self._say("MLflow answers again; what was kept is sent")
        for refused in self._sender.refused[self._refusals :]:
            self._say(f"MLflow refuses {refused}")
        self._refusals = len(self._sender.refused)

    def _failed(self, error: Exception) -> None:
        with self._changed:
            first, self._away = not self._away, True
            self._changed.notify_all()
        if first and not self._closing:
            self._say(f"MLflow does not answer ({in_a_line(error)}): numbers and pictures are kept in {self._where}")
        self._keep()

    def _keep(self) -> bool:
        """Move the queue to the backlog; True: nothing is left that only this process knows."""
        with self._keeping:
            with self._changed:
                records = list(self._queue)
            if not records:
                return True
            if self._offline_queue is None:
                return False
            # The lock of the queue is open meanwhile: whoever trains never waits for the storage.
            with contextlib.suppress(OSError, InputError):
                file = self._offline_queue.add(records)
                with self._changed:
                    self._files.append(file)
                    self._drop(records)
                return True
            return False


class Sender:
    """Sends records to one MLflow run, through the client, without MLflow's process-wide state.

    What a run has is asked of MLflow at the first call and after every failure: a call that failed may have arrived.

    Args:
        uri: of the store or server
        run: the run's id; None: it is in the storage, or is made when the server answers
        storage: the run's storage
    """

    def __init__(self, uri: str, run: str | None, storage: Storage | None) -> None:
        self._uri, self._run, self._storage = uri, run, storage
        self._told: dict[str, int] | None = None
        self._parameters: set[str] = set()
        self.refused: list[str] = []
        """What MLflow will never take, in words."""

    def send(self, records: Sequence[Record]) -> None:
        """Send records in order; those that MLflow has already are left out.

        Raises:
            Exception: MLflow does not answer; some of the records may have arrived, and all can be sent again.
        """
        try:
            client = mlflow_client(self._uri)
            if self._told is None:
                self._ask(client)
            for kind, group in itertools.groupby(records, type):
                self._send_kind(client, kind, list(group))
        except BaseException:
            self._told = None
            raise

    def _ask(self, client: Any) -> None:
        self._run = self._run or resolve(client, self._storage)
        run = client.get_run(self._run)
        if run.info.lifecycle_stage != "active":
            raise RuntimeError(f"run {self._run} is deleted in MLflow: restore it there")
        data = run.data.to_proto()
        self._told = {metric.key: metric.step for metric in data.metrics}  # MLflow keeps the one of the last step
        self._parameters = {parameter.key for parameter in data.params}

    def _send_kind(self, client: Any, kind: type, records: list[Any]) -> None:
        if kind is Metrics:
            self._metrics(client, records)
        elif kind is Parameters:
            self._settings(client, records)
        for record in records:
            if isinstance(record, Picture):
                self._picture(client, record)
            elif isinstance(record, Status):
                self._status(client, record)
            elif isinstance(record, Tags):
                for key, value in record.values.items():
                    client.set_tag(self._run, key, value)

    def _metrics(self, client: Any, records: list[Metrics]) -> None:
        from mlflow.entities import Metric

        told = dict(self._told or {})
        fresh = []
        for record in records:
            for key, value in record.values.items():
                # MLflow stores a metric twice when it is told twice at one step.
                if record.step > told.get(key, -1):
                    fresh.append(Metric(key, value, record.time, record.step))
                    told[key] = record.step
        for chunk in _chunks(fresh, _MOST_METRICS):
            self._insist(chunk, lambda part: client.log_batch(self._run, metrics=part))
        self._told = told

    def _settings(self, client: Any, records: list[Parameters]) -> None:
        """Parameters are immutable in MLflow, so known ones are left out."""
        from mlflow.entities import Param

        values = {key: value for record in reversed(records) for key, value in record.values.items()}
        new = [Param(key, value[:_PARAMETER_LENGTH]) for key, value in values.items() if key not in self._parameters]
        for chunk in _chunks(new, _MOST_PARAMETERS):
            self._insist(chunk, lambda part: client.log_batch(self._run, params=part))
        self._parameters.update(values)

    def _picture(self, client: Any, picture: Picture) -> None:
        """A file of the same name takes the place of the earlier one."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{picture.step:07d}.png"
            path.write_bytes(picture.png())
            client.log_artifact(self._run, str(path), f"pictures/{picture.name}")

    def _status(self, client: Any, record: Status) -> None:
        if record.status == "RUNNING":
            client.update_run(self._run, status="RUNNING")
        else:
            client.set_terminated(self._run, record.status, record.time)

    def _insist(self, items: list[Any], send: Callable[[list[Any]], None]) -> None:
        """Send what MLflow takes: one bad name among a thousand is found by halving, and left out."""
        from mlflow.exceptions import MlflowException

        try:
            send(items)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            if len(items) == 1:
                self.refused.append(f"{items[0].key} ({in_a_line(error)})")
                return
            self._insist(items[: len(items) // 2], send)
            self._insist(items[len(items) // 2 :], send)


def resolve(client: Any, storage: Storage | None) -> str:
    """The id of a run that was begun while the server was away; made now where it is not there yet.

    Raises:
        RuntimeError: nothing in the storage says what to make.
    """
    wanted = None if storage is None else storage.json(NEW_FILE)
    if storage is None or wanted is None:
        raise RuntimeError("no MLflow run is known here")
    if storage.exists(wanted["known"]):
        return storage.read(wanted["known"]).decode().strip()
    run = create_run(client, wanted["name"], wanted["tags"], wanted["key"])
    storage.write(wanted["known"], run + "\n")
    return run


def create_run(client: Any, name: str, tags: Mapping[str, str], key: str = "") -> str:
    """A new run, or the one that was made with the same `key` by a call whose answer was lost."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if key:
        found = client.search_runs([experiment.experiment_id], f"tags.`{_KEY_TAG}` = '{key}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {**tags, _KEY_TAG: key}
    return str(client.create_run(experiment.experiment_id, run_name=name, tags=dict(tags)).info.run_id)


def sqlite_uri(path: Path) -> str:
    """The URI of a sqlite store: the characters that mean something in a URI are quoted.

    No others, because MLflow makes an empty folder under the quoted name, beside the one that is meant.
    """
    return "sqlite:///" + re.sub("[%?#]", lambda sign: urllib.parse.quote(sign[0]), str(path))


def sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite store; None of another store."""
    place = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(urllib.parse.unquote(place)) if uri.startswith("sqlite:///") else None


def mlflow_client(uri: str) -> Any:
    """A client that gives up soon, unless the environment says otherwise."""
    logging_quiet()
    for name, value in _BRIEF.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    with needed_packages(uri):
        try:
            return MlflowClient(tracking_uri=uri)
        except Exception as error:
            if not (isinstance(error, ValueError) or (of_database(error) and "Argument" in _kinds(error))):
                raise
            reason = in_a_line(error)
            raise InputError(
                f"MLflow: {place_of(uri)} is no address of a store ({reason}): check MLFLOW_TRACKING_URI"
            ) from None


@contextlib.contextmanager
def needed_packages(uri: str) -> Iterator[None]:
    """A block in which MLflow may import the driver of its store at `uri`, or of where its files are.

    Raises:
        InputError: the driver is not installed.
    """
    try:
        yield
    except ImportError as error:
        package = _PACKAGES.get(error.name or "", error.name or "of the database's driver")
        raise InputError(
            f"MLflow: {place_of(uri)} needs the Python package {package}, which is not installed: run "
            f"`{shlex.quote(sys.executable)} -m pip install '{package}'`, or set MLFLOW_TRACKING_URI to another store"
        ) from None


def of_database(error: BaseException) -> bool:
    """Whether it is an error of SQLAlchemy, which MLflow passes on as it is."""
    return "sqlalchemy." in _kinds(error)


def _kinds(error: BaseException) -> str:
    """The names of its class and of those above it."""
    return " ".join(f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__)


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """MLflow's own patience for a block: a model of some hundred megabytes takes its time."""
    ours = {name for name, value in _BRIEF.items() if os.environ.get(name) == value}
    for name in ours:
        del os.environ[name]
    try:
        yield
    finally:
        for name in ours:
            os.environ.setdefault(name, _BRIEF[name])


def why(error: BaseException) -> str:
    """Why MLflow cannot be used, in one short line, with what to do where that is known."""
    text = str(error)
    if "Invalid Host header" in text:
        return "the server refuses this host name: start it with --allowed-hosts HOST:PORT"
    if "error code 401" in text or "error code 403" in text:
        return f"{in_a_line(error, 120)}: check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or _TOKEN"
    if "Max retries exceeded" in text or "Connection" in text:
        return "no server answers there: start it, or correct MLFLOW_TRACKING_URI"
    return in_a_line(error)


def logging_quiet() -> None:
    """MLflow's migrations, hints and bars are not for our users."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
