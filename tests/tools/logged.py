"""The lines that our modules log, as the console shows them."""

import contextlib
import logging
from collections.abc import Callable, Iterator

from pipelines.runtime.console import OURS, text_of


class _Lines(logging.Handler):
    def __init__(self, take: Callable[[str], object]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(text_of(record))


@contextlib.contextmanager
def logged(take: Callable[[str], object] | None = None) -> Iterator[list[str]]:
    """The lines that are logged in the block; each goes to `take`, too, if it is given."""
    lines: list[str] = []
    loggers, handlers = list(map(logging.getLogger, OURS)), [_Lines(each) for each in (lines.append, take) if each]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield lines
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
            for handler in handlers:
                logger.removeHandler(handler)
