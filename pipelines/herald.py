"""What a worker does beside training: signs of life, lines, status, pictures; none of it makes a step wait."""

import io
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import ray
from PIL import Image

from pipelines.status import RunStatus
from pipelines.storage import Storage
from pipelines.tracking import Tracker

_BEAT_S = 1.0
_ANSWER_S = 5.0


class Herald:
    """The first worker's voice. The other workers have one that says nothing.

    `reason` is why the driver wants the run to stop, None while it does not.
    """

    def __init__(self, board: Any, storage: Storage, tracker: Tracker, status: RunStatus, loud: bool) -> None:
        self._board, self._storage, self.tracker, self._status = board, storage, tracker, status
        self._loud = loud
        self.reason: str | None = None
        self.step = status.step
        self._end = threading.Event()
        # One at a time: pictures and status files are written in the order in which they were made.
        self._pool = ThreadPoolExecutor(1, "herald")
        self._writing: Future[None] | None = None
        if loud:
            self._status = replace(status, restarts=ray.get(board.begin.remote(status.step)))
            threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def tell(self, line: dict[str, Any]) -> None:
        """A line for whoever watches the run."""
        if self._loud:
            self._board.tell.remote(line)

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Numbers for MLflow."""
        if self._loud:
            self.tracker.metrics(values, step)

    def note(self, **changes: Any) -> None:
        """Bring `status.json` up to date, as soon as the last one is written."""
        if not self._loud:
            return
        self._status = replace(self._status, **changes)
        if self._writing is None or self._writing.done():
            self._writing = self._pool.submit(self._save)

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Into the run's folder `pictures`, and to MLflow."""
        if not self._loud:
            return
        self.tracker.picture(name, image, step)
        self._pool.submit(self._draw, f"pictures/{name}_{step:07d}.png", image)

    def close(self) -> None:
        """Everything is written, and MLflow has it, or it is kept where the next process finds it."""
        self._end.set()
        self._pool.shutdown(wait=True)
        self.tracker.close()

    def _save(self) -> None:
        # A status that cannot be written is not worth a run.
        _quietly(lambda: self._status.save(self._storage), self.tell)

    def _draw(self, name: str, image: Image.Image) -> None:
        file = io.BytesIO()
        image.save(file, "PNG")
        _quietly(lambda: self._storage.write(name, file.getvalue()), self.tell)

    def _beat(self) -> None:
        while not self._end.wait(_BEAT_S):
            try:
                self.reason = ray.get(self._board.beat.remote(self.step), timeout=_ANSWER_S)
            except Exception:  # the driver may be on its way out, or the network away: the next beat tells
                continue


def fail(board: Any, error: BaseException) -> None:
    """Tell the driver what a retry would only repeat."""
    code, text = None, _line(error)
    if isinstance(error, OSError):
        code, text = error.errno, error.strerror or text
    ray.get(board.fail.remote(type(error).__name__, text, code), timeout=_ANSWER_S)


def _quietly(write: Callable[[], None], tell: Callable[[dict[str, Any]], None]) -> None:
    try:
        write()
    except Exception as error:
        tell({"warning": f"a file for people could not be written ({_line(error)}); training goes on"})


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
