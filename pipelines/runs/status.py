"""`status.json`: the state of a run, or of a command that is not training."""

import contextlib
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from types import TracebackType
from typing import Any, Literal, Self, get_args

from objgan.errors import InputError
from pipelines.redaction import in_a_line, redact_all
from pipelines.runtime.console import finite
from pipelines.runtime.events import Began, Event, Logged, Saved, Skipped, WorkerFailed
from pipelines.runtime.prometheus import RunMetrics
from pipelines.storage.lease import typed
from pipelines.storage.retry import Work, settled
from pipelines.storage.storage import Storage

logger = logging.getLogger(__name__)
_EVERY_S = 2.0

FILE = "status.json"
VERSION = 1
_PATIENCE_S = 5.0
State = Literal["running", "finished", "failed", "preempted", "stopped"]


class JobStatus:
    """Says `running` from its beginning on, and at its end how it ended. A status that cannot be written stops nothing.

    storage: of the results
    stage:   what is done: prepare, evaluate, run
    run:     that it is part of; None: no numbers for Prometheus, its steps have their own
    """

    def __init__(self, storage: Storage, stage: str, run: str | None) -> None:
        # Nothing waits for a status.
        self._storage = storage.patient(1.0)
        self._status = RunStatus("running", stage, command=typed())
        self._written, self._work = 0.0, Work()
        self.metrics = RunMetrics(run, stage) if run else None

    def __enter__(self) -> Self:
        self._save()
        return self

    def progress(self, done: int, total: int, samples: int = 0) -> None:
        """Number of parts done of all, and the samples of the last one."""
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


@dataclass(frozen=True)
class CheckpointNote:
    """The last checkpoint: name of its folder, its step, when it was complete (unix seconds)."""

    name: str
    step: int
    time: float


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands; written at log intervals, so `updated` is its last sign of life."""

    state: State
    stage: str
    step: int = 0
    steps: int = 0
    samples_per_s: float | None = None
    seconds_per_step: float | None = None
    eta_s: float | None = None
    checkpoint: CheckpointNote | None = None
    error: str | None = None
    """The last error, in one line; also of a run that continued after it, such as the death of a worker."""
    skipped: int = 0
    """Steps whose gradients were not finite and were left out."""
    restarts: int = 0
    """Times that workers began again, in the command that wrote this."""
    workers: int = 0
    mlflow_run: str | None = None
    reason: str | None = None
    """Why the state is what it is, where that needs saying: `preempted` by what, `stopped` by whom."""
    command: str | None = None
    """What was typed, so that it can be typed again."""
    updated: float = field(default_factory=time.time)
    """Unix seconds."""
    version: int = VERSION

    def save(self, storage: Storage) -> None:
        """Write `status.json` whole; JSON has no NaN and no infinity: such a number is left out."""
        facts = finite(redact_all(asdict(self)))
        storage.write(FILE, (json.dumps(facts, indent=1) + "\n").encode())

    @classmethod
    def load(cls, storage: Storage) -> "RunStatus | None":
        """The status that a run left; None where there is none yet.

        What a newer version added is passed over.

        Raises:
            InputError: the file is not a status.
        """
        if not storage.exists(FILE):
            return None
        where = f"{storage}/{FILE}"
        try:
            return cls(**_known(storage.json(FILE)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"status of the run: {where} cannot be read ({error}); remove it, the run goes on"
            ) from None


class LiveStatus:
    """A listener that keeps `status.json` up to date from a training run's events. Only the driver writes the file.

    A thread writes it, so that nothing waits for a slow storage. A status that cannot be written is logged once.
    """

    def __init__(self, storage: Storage, status: RunStatus) -> None:
        self.status = status
        # A status that is late is worth no long wait.
        self._storage = storage.patient(_PATIENCE_S)
        self._written: RunStatus | None = None
        self._warned = False
        self._pool = ThreadPoolExecutor(1, "status")

    def __call__(self, event: Event) -> None:
        """Take an event."""
        self.status = _after(self.status, event)
        self._pool.submit(self._write)

    def end(self, state: State, error: str | None = None, reason: str | None = None) -> None:
        """Write how the run ended, after all that came before, and end the thread."""
        now = self.status
        self.status = replace(
            now, state=state, error=error or now.error, reason=reason, eta_s=None, updated=time.time()
        )
        self._pool.submit(self._write)
        self._pool.shutdown(wait=True)

    def _write(self) -> None:
        status = self.status
        if status is self._written:
            return  # a later event came while the one before was written, and went with it
        self._written = status
        try:
            status.save(self._storage)
        except (OSError, InputError) as error:
            if not self._warned:
                logger.warning(f"{FILE} cannot be written ({error})", extra={"prefix": f"{status.stage}: "})
            self._warned = True


def _after(status: RunStatus, event: Event) -> RunStatus:
    """The status after an event."""
    match event:
        case Began():
            return replace(
                status,
                step=event.step,
                steps=event.steps,
                workers=event.workers,
                skipped=event.skipped,
                restarts=event.restarts,
                updated=time.time(),
            )
        case Logged(step=step, steps=steps, values=values):
            pace = values["seconds_per_step"]
            return replace(
                status,
                step=step,
                skipped=event.skipped,
                samples_per_s=values["samples_per_s"],
                seconds_per_step=pace,
                eta_s=(steps - step) * pace,
                updated=time.time(),
            )
        case Saved(step=step, checkpoint=name):
            now = time.time()
            note = CheckpointNote(name, step, now)
            return replace(status, step=max(step, status.step), checkpoint=note, updated=now)
        case Skipped(skipped=skipped):
            return replace(status, skipped=skipped, updated=time.time())
        case WorkerFailed():
            return replace(status, error=str(event), updated=time.time())
    return status


def _known(facts: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(RunStatus)}
    known = {name: value for name, value in facts.items() if name in names}
    if known["state"] not in get_args(State):
        raise ValueError(f"unknown state {known['state']!r}")
    for name in ("step", "steps", "skipped", "restarts", "workers", "updated"):
        if name in known and not isinstance(known[name], int | float):
            raise ValueError(f"{name} is not a number")
    note = known.get("checkpoint")
    if note is not None:
        known["checkpoint"] = CheckpointNote(str(note["name"]), int(note["step"]), float(note["time"]))
    return known
