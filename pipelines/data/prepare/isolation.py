"""Converts records in a separate process, one at a time: a record that kills the process is rejected."""

import contextlib
import multiprocessing
import resource
import signal
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection

import psutil  # type: ignore[import-untyped]

from pipelines.data.prepare.rows import Conversion, Converted, Record, convert, lost_image
from pipelines.data.shards.image_files import Unreadable
from pipelines.storage.attempts import Attempts, WorkerDied

MOST_MEMORY = 8 << 30
"""Bytes that one record may take: several times the largest image and its masks."""
_SPAWN = multiprocessing.get_context("spawn")  # a forked copy of a process that runs threads may hang
_START_S = 300.0


def convert_apart(records: Iterable[Record], conversion: Conversion, attempts: Attempts) -> Converted:
    """As `rows.convert`; a record whose conversion kills its process twice, or takes too much memory, is rejected.

    `conversion` must be picklable. Records at which workers died twice in earlier attempts are not retried.

    Raises:
        WorkerDied: the process does not start.
        StorageAway, InputError, OSError: as the conversion raised it.
    """
    result, killers = Converted(), attempts.killers()
    with contextlib.closing(_Apart(conversion)) as apart:
        for record in records:
            if record.image["image_id"] in killers:
                converted = Converted(rejected=lost_image(record, _killer("the worker")))
            else:
                attempts.note(record.image["image_id"])
                converted = apart.convert(record)
            result.rows += converted.rows
            result.rejected += converted.rejected
            result.contradictions += converted.contradictions
    return result


def _killer(detail: str) -> Unreadable:
    return Unreadable("its conversion kills the worker", detail)


class _Apart:
    """A process that converts; started when needed, and again after its death."""

    def __init__(self, conversion: Conversion) -> None:
        self._conversion = conversion
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def convert(self, record: Record) -> Converted:
        """Convert one record. It is tried twice: the system may have killed the process for another reason."""
        for _ in range(2):
            try:
                pipe = self._started()
                pipe.send(record)
                answer = pipe.recv()
            except (EOFError, ConnectionError):
                death = self._death()
                continue
            if isinstance(answer, BaseException):
                raise answer
            if isinstance(answer, Converted):
                return answer
        return Converted(rejected=lost_image(record, _killer(death)))

    def close(self) -> None:
        """End the process."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.join(10)
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    def _started(self) -> Connection:
        if self._pipe is None:
            self._pipe, theirs = _SPAWN.Pipe()
            self._process = _SPAWN.Process(target=_serve, args=(theirs, self._conversion), daemon=True)
            self._process.start()
            theirs.close()
            self._await_start(self._pipe)
        return self._pipe

    def _await_start(self, pipe: Connection) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            if pipe.poll(_START_S):
                pipe.recv()
                return
        raise WorkerDied(f"prepare: the process that converts a shard's records does not start ({self._death()})")

    def _death(self) -> str:
        """Why the process died; the next call starts another one."""
        process = self._process
        self.close()
        code = None if process is None else process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"


def _serve(pipe: Connection, conversion: Conversion) -> None:
    """In the process: convert records until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles interrupts
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = psutil.Process().memory_info().data + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    with contextlib.suppress(EOFError, ConnectionError):
        pipe.send("ready")
        for record in _received(pipe):
            pipe.send(_answer(record, conversion))


def _received(pipe: Connection) -> Iterator[Record]:
    while True:
        yield pipe.recv()


def _answer(record: Record, conversion: Conversion) -> Converted | Exception:
    try:
        return convert([record], conversion)
    except MemoryError:
        error = Unreadable("its conversion needs too much memory", f"over {MOST_MEMORY >> 30} GiB")
        return Converted(rejected=lost_image(record, error))
    except Exception as error:  # for the worker to raise
        return error
