"""The MLflow client of all commands: its address, timeouts, errors and limits, and what it creates."""

import contextlib
import json
import logging
import os
import re
import shlex
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from objgan.errors import InputError
from pipelines.redaction import in_a_line, place_of, redact
from pipelines.runtime.origin import REVISION, USER, origin
from pipelines.tracking.offline_queue import Dataset

EXPERIMENT = "objgan"
MOST_METRICS, MOST_PARAMETERS = 1000, 100
"""Of one call."""
LONGEST_VALUE = 500
"""Characters of a parameter or a tag."""
_DIGEST_LENGTH = 36
# MLflow's defaults (7 retries, 120 s each) would block a command for minutes.
_BRIEF = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""Codes of MLflow's errors that mean that a value is wrong, not that the server is."""
_KEY_TAG = "objgan.key"
_MLFLOW_TAGS = {USER: "mlflow.user", REVISION: "mlflow.source.git.commit"}
"""Our tags, and those of MLflow's pages."""
_PACKAGES = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "pymysql": "PyMySQL",
    "azure": "azure-storage-blob",
    "google": "google-cloud-storage",
}
"""The package to install for a module, if it has another name."""


def dataset_input(data: Dataset) -> Any:
    """The input of a run that MLflow's pages show."""
    from mlflow.entities import Dataset as MLflowDataset
    from mlflow.entities import DatasetInput, InputTag

    kind = data.source.partition("://")[0] if "://" in data.source else "local"
    profile = json.dumps({"images": sum(data.rows.values()), "rows": dict(data.rows), "digest": data.dataset})
    name, digest = dataset_name(data.dataset)
    dataset = MLflowDataset(name, digest, kind, json.dumps({"uri": data.source}), profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def dataset_name(digest: str) -> tuple[str, str]:
    """Name and digest of prepared data in MLflow, which stores the first letters of a digest."""
    return "prepared", digest[:_DIGEST_LENGTH]


def create_run(client: Any, name: str, tags: Mapping[str, str], key: str = "") -> str:
    """Create a run, or find the one that an earlier call with the same `key` created and whose answer was lost."""
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    if key:
        runs = client.search_runs([experiment], f"tags.`{_KEY_TAG}` = '{key}'", max_results=1)
        if runs:
            return str(runs[0].info.run_id)
        tags = {**tags, _KEY_TAG: key}
    tags = {**origin(), **tags}
    known = {theirs: redact(tags[ours]) for ours, theirs in _MLFLOW_TAGS.items() if ours in tags}
    tags = {**known, **tags}
    return str(client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)


def sqlite_uri(path: Path) -> str:
    """The URI of a sqlite store, with only the characters quoted that have a meaning in a URI.

    For any other quoted character MLflow would create an empty folder with the quoted name.
    """
    return "sqlite:///" + re.sub("[%?#]", lambda sign: urllib.parse.quote(sign[0]), str(path))


def sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite store; None for another store."""
    place = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(urllib.parse.unquote(place)) if uri.startswith("sqlite:///") else None


def mlflow_client(uri: str) -> Any:
    """A client with short timeouts, unless the environment sets others."""
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
                f"MLflow: {place_of(uri)} is not the address of a store ({reason}): check MLFLOW_TRACKING_URI"
            ) from None


@contextlib.contextmanager
def needed_packages(uri: str) -> Iterator[None]:
    """A block in which MLflow may import the driver of its store at `uri`, or of its artifact storage.

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
    """Whether it is an error of SQLAlchemy, which MLflow does not wrap."""
    return "sqlalchemy." in _kinds(error)


def _kinds(error: BaseException) -> str:
    """The names of its class and base classes."""
    return " ".join(f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__)


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """MLflow's own timeouts for a block, for example to upload a model of some hundred megabytes."""
    ours = {name for name, value in _BRIEF.items() if os.environ.get(name) == value}
    for name in ours:
        del os.environ[name]
    try:
        yield
    finally:
        for name in ours:
            os.environ.setdefault(name, _BRIEF[name])


def why(error: BaseException) -> str:
    """Why MLflow cannot be used, in one short line, with the fix if it is known."""
    text = str(error)
    if "Invalid Host header" in text:
        return "the server rejects this host name: start it with --allowed-hosts HOST:PORT"
    if "error code 401" in text or "error code 403" in text:
        return f"{in_a_line(error, 120)}: check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or _TOKEN"
    if "Max retries exceeded" in text or "Connection" in text:
        return "no server answers there: start it, or correct MLFLOW_TRACKING_URI"
    return in_a_line(error)


def logging_quiet() -> None:
    """Suppress MLflow's log lines, hints and progress bars, which do not concern our users."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
