"""Attempts to make a shard, written down where a worker's death does not erase them.

Ray starts a task again whose worker died. Here the next attempt learns that there was one before it, so that a record
that kills workers is found, and no shard is tried for ever.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

MOST_ATTEMPTS = 6
"""Of one command, at one shard, that end with the worker's death."""


class WorkerDied(RuntimeError):
    """Workers died too often at the same work, and no single record was found that does it."""


class Attempts:
    """The attempts at one shard. Inside the `with` block an attempt is under way; leaving it, also on error, ends it.

    Args:
        folder: of the working files
        shard:  the shard's name
        inputs: digest of what the shard is made of; attempts with other inputs do not count
        run:    a name of this command, other commands on the same folder have others

    Raises:
        WorkerDied: on entering, after `MOST_ATTEMPTS` deaths in this run.
    """

    def __init__(self, folder: Path, shard: str, inputs: str, run: str) -> None:
        self._path, self._shard, self._head, self._run = folder / "attempts" / shard, shard, ["inputs", inputs], run
        self._deaths: list[tuple[str, int | None]] = []
        self._file: IO[str] | None = None

    def __enter__(self) -> "Attempts":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._deaths = self._read()
        here = sum(run == self._run for run, _ in self._deaths)
        if here >= MOST_ATTEMPTS:
            # A worker may die before its first image.
            last = next((image for _, image in reversed(self._deaths) if image is not None), None)
            where = "" if last is None else f", the last time at image {last}"
            raise WorkerDied(
                f"prepare: {here} workers died one after the other at shard {self._shard}{where}: look for a lack of "
                f"memory"
            )
        self._file = self._path.open("a" if self._deaths else "w")
        if not self._deaths:
            self._write(self._head)
        self._write(["run", self._run])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._path.unlink(missing_ok=True)

    @property
    def is_suspect(self) -> bool:
        """Whether some record of the shard may kill workers: one died in this run, or several in earlier ones.

        One death in an earlier run says little: a command that is stopped takes its workers with it.
        """
        return len(self._deaths) > 1 or any(run == self._run for run, _ in self._deaths)

    def killers(self) -> set[int]:
        """Ids of the images at which a worker died twice."""
        counts = Counter(image for _, image in self._deaths if image is not None)
        return {image for image, deaths in counts.items() if deaths > 1}

    def note(self, image_id: int) -> None:
        """Write down which image is next."""
        self._write(["image", image_id])

    def _write(self, entry: Sequence[str | int]) -> None:
        if self._file is None:
            raise RuntimeError("no attempt is under way")
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def _read(self) -> list[tuple[str, int | None]]:
        """Attempts that did not end: the run, and the last image that was noted."""
        deaths: list[tuple[str, int | None]] = []
        with contextlib.suppress(OSError, ValueError, TypeError, IndexError):
            head, *entries = [json.loads(line) for line in self._path.read_text().splitlines()]
            for kind, value in entries if head == self._head else ():
                if kind == "run":
                    deaths.append((value, None))
                else:
                    deaths[-1] = (deaths[-1][0], int(value))
        return deaths
