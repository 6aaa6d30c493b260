"""Reading one step ahead of the training, in a thread; neither Ray nor Arrow here."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from objgan.batch import Part


def read_ahead(read: Callable[[int], list[Part]], steps: Iterable[int], pin: bool) -> Iterator[list[Part]]:
    """A thread reads the next step during the current one: decoders and the step's operators release the GIL.

    `pin`: into page-locked memory, from which a GPU copies while the host goes on
    """

    def make(step: int) -> list[Part]:
        parts = read(step)
        return [Part(group, batch.pin_memory()) for group, batch in parts] if pin else parts

    with ThreadPoolExecutor(1, "reader") as thread:
        pending: Future[list[Part]] | None = None
        for step in steps:
            following = thread.submit(make, step)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
