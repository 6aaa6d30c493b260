"""What a worker does beside training: signs of life, events, metrics, pictures; none of it makes a step wait."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from PIL import Image

from pipelines.redaction import in_a_line
from pipelines.runtime.events import Began, Event, Warned
from pipelines.storage.storage import Storage
from pipelines.tracking.tracker import Tracker
from pipelines.training.board import Failure

_BEAT_S = 1.0
_ANSWER_S = 5.0


class Herald:
    """The first worker's voice. The other workers have one that says nothing.

    `reason` is why the driver wants the run to stop, None while it does not.
    """

    def __init__(self, board: Any, storage: Storage, tracker: Tracker, began: Began, loud: bool) -> None:
        self._board, self._storage, self.tracker, self._loud = board, storage, tracker, loud
        self.reason: str | None = None
        self.step = began.step
        self._end = threading.Event()
        # One at a time: pictures are written in the order in which they were made.
        self._pool = ThreadPoolExecutor(1, "herald")
        if loud:
            ray.get(board.begin.remote(began))
            threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def report(self, event: Event) -> None:
        """Report an event to the driver and its listeners."""
        if self._loud:
            self._board.post.remote(event)

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Numbers for MLflow."""
        if self._loud:
            self.tracker.metrics(values, step)

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

    def _draw(self, name: str, image: Image.Image) -> None:
        file = io.BytesIO()
        image.save(file, "PNG")
        try:
            self._storage.write(name, file.getvalue())
        except Exception as error:  # a picture is not worth a run
            self.report(Warned(f"cannot write {name} ({_line(error)}); training continues"))

    def _beat(self) -> None:
        while not self._end.wait(_BEAT_S):
            try:
                self.reason = ray.get(self._board.beat.remote(self.step), timeout=_ANSWER_S)
            except Exception:  # the driver may be on its way out, or the network away: the next beat tells
                continue


def give_up(board: Any, error: BaseException, step: int) -> None:
    """Report what a retry within this command would only repeat. step: that this worker has finished"""
    number, text = None, _line(error)
    if isinstance(error, OSError):
        number, text = error.errno, error.strerror or text
    ray.get(board.fail.remote(Failure(type(error).__name__, text, number, step)), timeout=_ANSWER_S)


def _line(error: BaseException) -> str:
    return in_a_line(error, 500)
