"""The tracker that writes to MLflow without waiting for it."""

import atexit
import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from objgan.errors import InputError
from pipelines.redaction import in_a_line, redact
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_store import Sender
from pipelines.tracking.offline_queue import FOLDER, Backlog, Kept, Metrics, Parameters, Picture, Record, shown

Tell = Callable[[str], None]
_LINGER = 0.2  # what is told in this time goes in one call
_MOST_RECORDS = 500  # of one attempt
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0


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
        self._backlog = None if storage is None else Backlog(storage)
        self._where = "memory" if storage is None else f"{shown(storage)}/{FOLDER}"
        self._files = self._backlog.names() if self._backlog is not None and adopt else []
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

    def kept(self) -> Kept | None:
        """What is still to be sent; None: nothing."""
        if self._backlog is None:
            return None
        return self._backlog.kept() or None

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
            if file is not None and self._backlog is not None:
                self._sender.send(self._backlog.read(file))
                self._backlog.remove(file)
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
            if self._backlog is None:
                return False
            # The lock of the queue is open meanwhile: whoever trains never waits for the storage.
            with contextlib.suppress(OSError, InputError):
                file = self._backlog.add(records)
                with self._changed:
                    self._files.append(file)
                    self._drop(records)
                return True
            return False
