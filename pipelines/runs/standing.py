"""How work stands that is not training: `status.json` beside its results, and numbers for Prometheus."""

import contextlib
import time
from dataclasses import replace
from types import TracebackType
from typing import Self

from objgan.errors import InputError
from pipelines.redaction import in_a_line
from pipelines.runs.status import RunStatus, State
from pipelines.runtime.prometheus import RunMetrics
from pipelines.storage.holders import typed
from pipelines.storage.retry import Work, settled
from pipelines.storage.storage import Storage

_EVERY_S = 2.0


class Standing:
    """Says `running` from its beginning on, and at its end how it ended. A status that cannot be written stops nothing.

    storage: of the results
    stage:   what is done: prepare, evaluate, run
    run:     that it is part of; None: no numbers for Prometheus, its steps have their own
    """

    def __init__(self, storage: Storage, stage: str, run: str | None) -> None:
        # Nothing waits for a status.
        self._storage = storage.patient(1.0, log=lambda line: None)
        self._status = RunStatus("running", stage, command=typed())
        self._written, self._work = 0.0, Work()
        self.metrics = RunMetrics(run, stage) if run else None

    def __enter__(self) -> Self:
        self._save()
        return self

    def progress(self, done: int, total: int, samples: int = 0) -> None:
        """So many parts of all are done; the last one was of so many samples."""
        self._work.advance()
        if self.metrics is not None:
            self.metrics.progress(done, total, samples)
        self._status = replace(self._status, step=done, steps=total)
        if time.monotonic() - self._written > _EVERY_S or done == total:
            self._save()

    def rejected(self, rows: int) -> None:
        """So many rows of the input were left out."""
        if self.metrics is not None:
            self.metrics.add("objgan_rejected_rows_total", rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state, reason = ended_as(error)
        known = None if error is None else settled(error, self._work.advanced)
        self._status = replace(self._status, state=state, reason=reason, error=one_line(known, state))
        self._save()
        self._work.__exit__(kind, error, trace)

    def _save(self) -> None:
        self._written = time.monotonic()
        with contextlib.suppress(OSError, InputError):
            replace(self._status, updated=time.time()).save(self._storage)


def ended_as(error: BaseException | None, terminated: State = "preempted") -> tuple[State, str | None]:
    """The state that work ended in, and the reason where it was asked to end.

    terminated: the state after SIGTERM: `preempted` where all that was finished is kept
    """
    if error is None:
        return "finished", None
    if isinstance(error, KeyboardInterrupt):
        return "stopped", "interrupted"
    if isinstance(error, SystemExit):
        return terminated, "terminated"
    return "failed", None


def one_line(error: BaseException | None, state: State) -> str | None:
    """The error of work that failed, in a line; None of work that did not."""
    return f"{type(error).__name__}: {in_a_line(error, 480)}" if error is not None and state == "failed" else None
