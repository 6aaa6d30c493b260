"""Jobs of a cluster: NAME, and NAME-2, NAME-3, ... for its resumed submissions."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from objgan.errors import InputError
from pipelines import command_line

Result = TypeVar("Result")

NAME_KEY, NUMBER_KEY, KIND_KEY = "objgan.submission", "objgan.number", "objgan.kind"
CHECK = re.compile(r"check-[0-9a-f]{12}")
"""The submission id of a check before a job starts (`preflight`)."""
LAST_WORD = re.compile(r"^(?P<state>done|failed|stopped|interrupted|declined|error)(?: \(exit code (?P<code>\d+)\))?: ")
"""The last line of a program's log; in JSON, `state` and `exit_code` hold the same words."""
_JSON_CODE = re.compile(r'"exit_code": (?P<code>\d+)')
_LAST, _WRONG_INPUT = 10, 2
"""`cluster steps` prints its own line after the last line of the program that it ran."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_OVER = {"SUCCEEDED", "FAILED", "STOPPED"}
_MEANT = {0, 1, 2, 3, 130, 143}


class ClusterAway(RuntimeError):
    """The job server does not answer; its jobs may still run."""


@dataclass(frozen=True)
class Job:
    """A submission as the cluster reports it.

    id:     Ray's submission id
    name:   the name that was submitted; `number` counts its submissions
    state:  pending, running, succeeded, failed or stopped
    code:   exit code of the driver, if Ray knows it
    started, ended: unix seconds
    """

    id: str
    name: str
    number: int
    state: str
    command: str
    metadata: dict[str, str]
    code: int | None = None
    message: str = ""
    started: float | None = None
    ended: float | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state.upper() in _OVER

    @classmethod
    def of(cls, details: Any) -> "Job":
        """A job of the details that Ray's client returns."""
        metadata = dict(details.metadata or {})
        number = metadata.get(NUMBER_KEY, "1")
        status = str(getattr(details.status, "value", details.status))
        return cls(
            details.submission_id,
            metadata.get(NAME_KEY, details.submission_id),
            int(number) if number.isdigit() else 1,
            status.lower(),
            metadata.get("objgan.command", details.entrypoint),
            metadata,
            details.driver_exit_code,
            details.message or "",
            details.start_time and details.start_time / 1000,
            details.end_time and details.end_time / 1000,
        )


def check_name(name: str) -> str:
    """Check that a name can be a submission id and a part of a file's name.

    Raises:
        InputError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"--id {name}: use at most 63 letters, digits, '.', '_' and '-', starting with a letter or digit"
        )
    return name


def asking(request: Callable[[], Result]) -> Result:
    """The answer to a request.

    Raises:
        ClusterAway: no answer.
        RuntimeError: the job server rejected the request.
    """
    import ray.exceptions
    import requests

    try:
        return request()
    except ray.exceptions.AuthenticationError:
        raise ClusterAway("it no longer knows this token") from None
    except (requests.exceptions.RequestException, ConnectionError) as error:
        raise ClusterAway(type(error).__name__) from None


def all_jobs(client: Any) -> list[Job]:
    """All submissions, oldest first, without the checks before a start."""
    submitted = [details for details in asking(client.list_jobs) if details.submission_id]
    jobs = [Job.of(details) for details in submitted if not CHECK.fullmatch(details.submission_id)]
    return sorted(jobs, key=lambda job: job.started or 0.0)


def jobs_named(client: Any, name: str) -> list[Job]:
    """All submissions of a name, or the submission of an id, oldest first."""
    jobs = all_jobs(client)
    named = [job for job in jobs if job.name == name]
    return sorted(named, key=lambda job: job.number) or [job for job in jobs if job.id == name]


def latest(client: Any, name: str) -> Job:
    """The newest submission of a name.

    Raises:
        InputError: no such job; the message lists known names.
    """
    if jobs := jobs_named(client, name):
        return jobs[-1]
    known = ", ".join(sorted({job.name for job in all_jobs(client)})[-20:]) or "none"
    raise InputError(
        f"no job {name} on this cluster: known jobs: {known}; a cluster forgets its jobs when its head restarts, but "
        f"runs stay in their storage"
    )


def logs_of(client: Any, job: Job) -> str:
    """The log of a job; empty before its start."""
    try:
        return str(asking(lambda: client.get_job_logs(job.id)))
    except RuntimeError as error:
        if isinstance(error, ClusterAway):
            raise
        return ""


def last_line(log: str) -> str:
    """The last line of a log that is not empty."""
    return next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")


def exit_code(job: Job, log: str) -> int:
    """Exit code of a job that is over: 0 done, 1 worth a retry, 2 wrong input, 3 declined, 143 preempted.

    Ray does not keep the code of a stopped job: the end of its log has it.
    """
    if job.state == "succeeded":
        return 0
    if job.state == "failed":
        code = 1 if job.code is None else 128 - job.code if job.code < 0 else job.code
        return code if code in _MEANT and code else 1
    for line in reversed(log.splitlines()[-_LAST:]):
        if last := LAST_WORD.match(line):
            return _WRONG_INPUT if last["state"] == "error" else int(last["code"] or 1)
        if last := _JSON_CODE.search(line):
            return int(last["code"])
    return 1


def when(seconds: float | None) -> str:
    """A time as text."""
    return "-" if not seconds else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def table(jobs: Sequence[Job]) -> str:
    """A line for each submission."""
    head = ("JOB", "STATE", "CODE", "STARTED", "ENDED", "COMMAND")
    rows = [
        (job.id, job.state, "-" if job.code is None else str(job.code), when(job.started), when(job.ended), job.command)
        for job in jobs
    ]
    return command_line.table([head, *rows])
