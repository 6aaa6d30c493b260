"""A tracker that uploads to MLflow in the background."""

import atexit
import contextlib
import itertools
import logging
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from objgan.errors import InputError
from pipelines.redaction import in_a_line, place_of, redact
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_client import (
    LONGEST_VALUE,
    MOST_METRICS,
    MOST_PARAMETERS,
    REFUSALS,
    create_run,
    dataset_input,
    mlflow_client,
)
from pipelines.tracking.offline_queue import (
    FOLDER,
    Dataset,
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

logger = logging.getLogger(__name__)
CLOSE_TIMEOUT = 10.0
_LINGER = 0.2  # records that arrive within this time share a call
_MOST_RECORDS = 500  # of one attempt
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
RUN_FILE, NEW_FILE = "mlflow_run.txt", "mlflow_new.json"


class Tracker:
    """Logs parameters, metrics and pictures of a run; only `flush` and `close` may block. This base tracks nothing."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log settings by dotted name; a name that is already logged keeps its value."""
        self.add(Parameters({key: redact(str(value)) for key, value in values.items()}))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics of a step; a step that was logged before a resume is not logged twice."""
        self.add(Metrics({key: float(value) for key, value in values.items()}, step))

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Log a picture of a step, as `pictures/NAME/STEP.png`."""
        self.add(Picture(name, step, image.copy()))

    def dataset(self, digest: str, source: str, rows: Mapping[str, int]) -> None:
        """Log the data that the run reads: digest and location of a prepared folder, images of each split."""
        self.add(Dataset(digest, redact(place_of(source)), dict(rows)))

    def add(self, record: Record) -> None:
        """Log a record."""

    def flush(self, timeout: float = 5.0) -> bool:
        """Upload all records, or store them if that takes longer than `timeout`; False: the storage is away, too."""
        return True

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Try to upload for `timeout` seconds at most, and store the rest."""

    def queued(self) -> Queued | None:
        """What is stored and not yet uploaded; None: nothing."""
        return None


class MLflowTracker(Tracker):
    """Uploads records to MLflow in the background, in batches and in order.

    Records that cannot be uploaded are written to the run's storage: memory does not grow, and a kill loses nothing
    that was flushed. They are uploaded before any newer record.

    Args:
        uri: of MLflow's store or server
        run: the MLflow run; None: its id is in the storage, or it is created when MLflow is reachable
        storage: the run's storage
        adopt: whether to upload what earlier processes queued
        longest_wait: seconds between two attempts, at most
    """

    def __init__(
        self, uri: str, run: str | None, storage: Storage, adopt: bool = True, longest_wait: float = _LONGEST_WAIT
    ) -> None:
        self._sender, self._offline = Sender(uri, run, storage), OfflineQueue(storage)
        self._longest_wait = longest_wait
        self._folder = f"{shown(storage)}/{FOLDER}"
        self._files = self._offline.names() if adopt else []
        self._records: list[Record] = []
        self._unreachable = self._hurry = self._given_up = self.closed = False
        self._changed, self._storing = threading.Condition(), threading.Lock()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def add(self, record: Record) -> None:
        """Log a record; after `close` it is stored for the next process.

        Raises:
            RuntimeError: the tracker is closed, and the storage is not available.
        """
        with self._changed:
            self._records.append(record)
            self._changed.notify_all()
        if self.closed and not self._store():
            raise RuntimeError("this tracker is closed")

    def flush(self, timeout: float = 5.0) -> bool:
        """Upload all records; store them if MLflow is unreachable or `timeout` is over."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._unreachable or not self._records, timeout)
            self._hurry = False
        return self._store()

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Make a last attempt to upload, and store the rest."""
        with self._changed:
            if self.closed:
                return
            self.closed = True
            self._changed.notify_all()
        atexit.unregister(self.close)
        self._thread.join(timeout)
        self._given_up = True
        self._store()

    def queued(self) -> Queued | None:
        """What is stored and not yet uploaded; None: nothing."""
        return self._offline.summary() or None

    def _work(self) -> None:
        wait = 0.0
        while True:
            last = self._pause(wait)
            try:
                self._upload()
                self._report_success()
                wait = 0.0
            except Exception as error:  # no error of MLflow may end a training
                self._report_failure(error)
                wait = min(max(_FIRST_WAIT, 2 * wait), self._longest_wait)
            if last:
                return

    def _pause(self, wait: float) -> bool:
        """Wait for a record, or for the next attempt; True: it is the last one."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self.closed, wait)
            elif not self._files:
                self._changed.wait_for(lambda: self._records or self.closed)
                self._changed.wait_for(lambda: self._hurry or self.closed, _LINGER)
            return self.closed

    def _upload(self) -> None:
        """Upload all files of the queue, then the records in memory."""
        while not self._given_up:
            with self._changed:
                file, records = next(iter(self._files), None), self._records[:_MOST_RECORDS]
            if file is not None:
                self._sender.send(self._offline.read(file))
                self._offline.remove(file)
                with self._changed:
                    self._files.remove(file)
            elif records:
                self._sender.send(records)
                self._discard(records)
            else:
                return

    def _discard(self, records: list[Record], file: str | None = None) -> None:
        """Remove records from memory, if they are still in it; they were uploaded, or stored in `file`."""
        done = {id(record) for record in records}
        with self._changed:
            self._records = [record for record in self._records if id(record) not in done]
            self._files += [] if file is None else [file]
            self._changed.notify_all()

    def _report_success(self) -> None:
        with self._changed:
            was_unreachable, self._unreachable = self._unreachable, False
        if was_unreachable:
            logger.info("MLflow is reachable again; uploading queued metrics")
        while self._sender.rejected:
            logger.warning(f"MLflow rejects {self._sender.rejected.pop(0)}")

    def _report_failure(self, error: Exception) -> None:
        with self._changed:
            first, self._unreachable = not self._unreachable, True
            self._changed.notify_all()
        if first and not self.closed:
            reason = in_a_line(error)
            logger.warning(f"MLflow is not reachable ({reason}); metrics and pictures are queued in {self._folder}")
        self._store()

    def _store(self) -> bool:
        """Move the records from memory to the storage; False: the storage is not available."""
        with self._storing:
            with self._changed:
                records = list(self._records)
            # The condition is free meanwhile, so training never waits for the storage.
            with contextlib.suppress(OSError, InputError):
                if records:
                    self._discard(records, self._offline.add(records))
                return True
            return False


class Sender:
    """Sends records to one MLflow run, through the client, without MLflow's process-wide state.

    It asks MLflow what the run has before the first call and after every failure: a call that failed may have arrived.

    Args:
        uri: of the store or server
        run: the run's id; None: it is in the storage, or the run is created when the server is reachable
        storage: the run's storage
    """

    def __init__(self, uri: str, run: str | None, storage: Storage) -> None:
        self._uri, self._run, self._storage = uri, run, storage
        self._last_steps: dict[str, int] | None = None
        self._parameters: set[str] = set()
        self.rejected: list[str] = []
        """Values that MLflow will never accept, with the reason."""

    def send(self, records: Sequence[Record]) -> None:
        """Send records in order, without those that MLflow already has.

        Raises:
            Exception: MLflow is not reachable; some of the records may have arrived, and all can be sent again.
        """
        try:
            client = mlflow_client(self._uri)
            if self._last_steps is None:
                self._last_steps = self._read_run(client)
            for kind, group in itertools.groupby(records, type):
                self._send_kind(client, kind, list(group))
        except BaseException:
            self._last_steps = None
            raise

    def _read_run(self, client: Any) -> dict[str, int]:
        """Read the run's parameters, and return the last step of each of its metrics."""
        self._run = self._run or resolve(client, self._storage)
        run = client.get_run(self._run)
        if run.info.lifecycle_stage != "active":
            raise RuntimeError(f"run {self._run} is deleted in MLflow: restore it in MLflow")
        data = run.data.to_proto()
        self._parameters = {parameter.key for parameter in data.params}
        return {metric.key: metric.step for metric in data.metrics}

    def _send_kind(self, client: Any, kind: type, records: list[Any]) -> None:
        if kind is Metrics:
            self._send_metrics(client, records)
        elif kind is Parameters:
            self._send_parameters(client, records)
        for record in records:
            match record:
                case Picture(name, step):
                    with tempfile.TemporaryDirectory() as folder:
                        path = Path(folder) / f"{step:07d}.png"
                        path.write_bytes(record.png())
                        client.log_artifact(self._run, str(path), f"pictures/{name}")  # replaces an earlier one
                case Status("RUNNING"):
                    client.update_run(self._run, status="RUNNING")
                case Status(status, time):
                    client.set_terminated(self._run, status, time)
                case Dataset():
                    client.log_inputs(self._run, [dataset_input(record)])  # a known one is not added again
                case Tags(tags):
                    for key, value in tags.items():
                        client.set_tag(self._run, key, value)

    def _send_metrics(self, client: Any, records: list[Metrics]) -> None:
        """MLflow stores a metric twice if it is logged twice at one step, so known steps are skipped."""
        from mlflow.entities import Metric

        last_steps, new = dict(self._last_steps or {}), []
        for record in records:
            for key, value in record.metrics.items():
                if record.step > last_steps.get(key, -1):
                    new.append(Metric(key, value, record.time, record.step))
                    last_steps[key] = record.step
        self._send_valid(new, MOST_METRICS, lambda part: client.log_batch(self._run, metrics=part))
        self._last_steps = last_steps

    def _send_parameters(self, client: Any, records: list[Parameters]) -> None:
        """Parameters are immutable in MLflow, so known ones are skipped."""
        from mlflow.entities import Param

        values = {key: value for record in reversed(records) for key, value in record.parameters.items()}
        new = [Param(key, value[:LONGEST_VALUE]) for key, value in values.items() if key not in self._parameters]
        self._send_valid(new, MOST_PARAMETERS, lambda part: client.log_batch(self._run, params=part))
        self._parameters.update(values)

    def _send_valid(self, items: list[Any], most: int, send: Callable[[list[Any]], None]) -> None:
        """Send what MLflow accepts, `most` items a call: halving isolates a bad name, which is skipped."""
        from mlflow.exceptions import MlflowException

        if not items:
            return
        if len(items) <= most:
            try:
                return send(items)
            except MlflowException as error:
                if error.error_code not in REFUSALS:
                    raise
                if len(items) == 1:
                    self.rejected.append(f"{items[0].key} ({in_a_line(error)})")
                    return
        half = len(items) // 2
        self._send_valid(items[:half], most, send)
        self._send_valid(items[half:], most, send)


def resolve(client: Any, storage: Storage) -> str:
    """The id of a run that began while the server was not reachable; creates the run if it does not exist yet.

    Raises:
        RuntimeError: the storage does not describe a run.
    """
    wanted = storage.json(NEW_FILE)
    if wanted is None:
        raise RuntimeError(f"{storage} does not name an MLflow run")
    if storage.exists(wanted["known"]):
        return storage.read(wanted["known"]).decode().strip()
    run = create_run(client, wanted["name"], wanted["tags"], wanted["key"])
    storage.write(wanted["known"], run + "\n")
    return run
