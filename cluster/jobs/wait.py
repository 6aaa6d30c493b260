"""A job's log as it is written, and its end; a head that does not answer is waited for, but not for ever."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from cluster.jobs.ray_jobs import ClusterAway, Job, asking, exit_code, last_line, logs_of

PATIENCE_S = 60.0
"""Seconds without an answer after which a follower gives up."""
_POLL_S = 1.0
_SILENCE_S = 30.0


def wait(client: Any, job: Job, show: bool, patience: float = PATIENCE_S) -> int:
    """Until the job has ended, its log printed if `show`; its exit code, or 1 if the cluster is gone.

    What is said of the end goes to stderr.
    """
    printed, since = 0, time.monotonic()
    while True:
        try:
            if show:
                printed = _Tail(client, job.id, printed).run()
            now = _look(client, job)
        except _GONE as error:
            if time.monotonic() - since > patience:
                _say(_lost(job, error))
                return 1
            time.sleep(_POLL_S)
            continue
        except LookupError:
            _say(f"{job.id}: this cluster no longer knows the job (its head was restarted); {_resume(job)}")
            return 1
        since = time.monotonic()
        if now.over:
            return ended(client, now, quiet=show)
        time.sleep(_POLL_S)


def ended(client: Any, job: Job, quiet: bool = False) -> int:
    """Say how a job ended; its exit code. quiet: its last line was shown already."""
    log = logs_of(client, job)
    code = exit_code(job, log)
    why = "" if quiet or job.state == "succeeded" else f": {last_line(log)}"
    if job.state == "failed" and job.code is None:
        why = f": {' '.join(job.message.split())[:300]}"
    if job.state == "stopped" and code == 1:
        why = ": it was ended before it could leave a checkpoint; the last one counts"
    then = "" if code in (0, 2) else f"; {_resume(job)}"
    _say(f"{job.id}: {job.state}, exit code {code}{why}{then}")
    return code


def _look(client: Any, job: Job) -> Job:
    try:
        return Job.of(asking(lambda: client.get_job_info(job.id)))
    except ClusterAway:
        raise
    except RuntimeError as error:
        if "404" in str(error) or "does not exist" in str(error):
            raise LookupError(job.id) from None
        raise ClusterAway(" ".join(str(error).split())[:200]) from None


class _Tail:
    """Follows a log from the place where an earlier look at it ended."""

    def __init__(self, client: Any, job: str, printed: int) -> None:
        self._client, self._job, self._printed = client, job, printed

    def run(self) -> int:
        """Print what is new until the job ends or the connection breaks; characters printed in all."""
        import aiohttp

        # The check of the job's state that follows reports the cause.
        with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError):
            asyncio.run(self._tail())
        return self._printed

    async def _tail(self) -> None:
        seen, log = 0, self._client.tail_job_logs(self._job)
        while True:
            try:
                # A lost machine sends nothing, and neither does a busy job: only the job's state shows which.
                text = await asyncio.wait_for(anext(log), _SILENCE_S)
            except (StopAsyncIteration, TimeoutError):
                return
            fresh = text[max(0, self._printed - seen) :]
            seen += len(text)
            if fresh:
                sys.stdout.write(fresh)
                sys.stdout.flush()
                self._printed = seen


_GONE: tuple[type[Exception], ...] = (ClusterAway,)
_say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731


def _lost(job: Job, error: Exception) -> str:
    return (
        f"{job.id}: the cluster does not answer any more ({error}), so the job has probably ended with its head; when "
        f"there is a head again, {_resume(job)}"
    )


def _resume(job: Job) -> str:
    return f"python -m cluster submit --id {job.name} --resume ... goes on from the last checkpoint"
