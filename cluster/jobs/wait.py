"""Follow a job's log to its end. A head that does not answer is waited for, within a limit."""

import asyncio
import contextlib
import sys
import time
from typing import Any

from cluster.jobs.ray_jobs import ClusterAway, Job, asking, exit_code, last_line, logs_of

PATIENCE_S = 60.0
"""Seconds without an answer after which `wait` gives up."""
_POLL_S = 1.0
_SILENCE_S = 30.0


def wait(client: Any, job: Job, show: bool) -> int:
    """Wait until the job has ended, and print its log if `show`. Returns its exit code, or 1 if the cluster is gone.

    The line on its end goes to stderr.
    """
    printed, since = 0, time.monotonic()
    while True:
        try:
            if show:
                printed = _tail(client, job.id, printed)
            now = _state(client, job)
        except ClusterAway as error:
            if time.monotonic() - since > PATIENCE_S:
                _report(
                    f"{job.id}: the cluster no longer answers ({error}), so the job has probably ended with its head; "
                    f"when it has a head again, {_resume(job)}"
                )
                return 1
            time.sleep(_POLL_S)
            continue
        except LookupError:
            _report(f"{job.id}: this cluster no longer knows the job (its head was restarted); {_resume(job)}")
            return 1
        since = time.monotonic()
        if now.over:
            return ended(client, now, quiet=show)
        time.sleep(_POLL_S)


def ended(client: Any, job: Job, quiet: bool = False) -> int:
    """Report how a job ended, and return its exit code. quiet: its last line was printed already."""
    log = logs_of(client, job)
    code = exit_code(job, log)
    why = "" if quiet or job.state == "succeeded" else f": {last_line(log)}"
    if job.state == "failed" and job.code is None:
        why = f": {' '.join(job.message.split())[:300]}"
    if job.state == "stopped" and code == 1:
        why = ": it ended before it could write a checkpoint; the previous checkpoint counts"
    then = "" if code in (0, 2, 3) else f"; {_resume(job)}"
    _report(f"{job.id}: {job.state}, exit code {code}{why}{then}")
    return code


def _state(client: Any, job: Job) -> Job:
    try:
        return Job.of(asking(lambda: client.get_job_info(job.id)))
    except ClusterAway:
        raise
    except RuntimeError as error:
        if "404" in str(error) or "does not exist" in str(error):
            raise LookupError(job.id) from None
        raise ClusterAway(" ".join(str(error).split())[:200]) from None


def _tail(client: Any, job: str, printed: int) -> int:
    """Print a log from character `printed` on, until the job ends or the connection breaks. Returns its new end."""
    import aiohttp

    async def follow() -> None:
        nonlocal printed
        received, log = 0, client.tail_job_logs(job)
        while True:
            try:
                # Neither a lost machine nor a busy job sends anything: only the job's state shows which it is.
                text = await asyncio.wait_for(anext(log), _SILENCE_S)
            except (StopAsyncIteration, TimeoutError):
                return
            fresh = text[max(0, printed - received) :]
            received += len(text)
            if fresh:
                sys.stdout.write(fresh)
                sys.stdout.flush()
                printed = received

    # The check of the job's state that follows reports the cause.
    with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError):
        asyncio.run(follow())
    return printed


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _resume(job: Job) -> str:
    return f"python -m cluster submit --id {job.name} --resume ... resumes from the last checkpoint"
