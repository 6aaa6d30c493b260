"""What is sent to MLflow, and how: one run's records, each metric of each step once."""

import contextlib
import itertools
import logging
import os
import re
import shlex
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from objgan.errors import InputError
from pipelines.redaction import in_a_line, place_of
from pipelines.storage.storage import Storage
from pipelines.tracking.offline_queue import Metrics, Parameters, Picture, Record, Status, Tags

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
