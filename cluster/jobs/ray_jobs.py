"""Submissions on a cluster: NAME, and NAME-2, NAME-3, ... where it was gone on with."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cluster.errors import InputError

Result = TypeVar("Result")

NAME_KEY, NUMBER_KEY, KIND_KEY = "objgan.submission", "objgan.number", "objgan.kind"
CHECK = re.compile(r"check-[0-9a-f]{12}")
"""The submission id of a check before a job starts (`preflight`)."""
LAST_WORD = re.compile(r"^(?P<state>done|failed|stopped|interrupted|error)(?: \(exit code (?P<code>\d+)\))?: ")
"""How the programs end their logs; in JSON the same words are in `state` and `exit_code`."""
_JSON_CODE = re.compile(r'"exit_code": (?P<code>\d+)')
_LAST, _WRONG_INPUT = 10, 2
"""`cluster steps` has a word of its own after that of the program that it ran."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_OVER = {"SUCCEEDED", "FAILED", "STOPPED"}
_MEANT = {0, 1, 2, 130, 143}


class ClusterAway(RuntimeError):
    """The job server does not answer; whether jobs go on is not known."""


@dataclass(frozen=True)
class Job:
    """A submission as the cluster reports it.

    id:     what Ray knows it by
    name:   what it was submitted as; `number` counts how often
    state:  pending, running, succeeded, failed or stopped
    code:   the driver's exit code, where Ray knows it
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
        """From what Ray's client returns."""
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
    """See that a name can be a submission id and part of a file's name.

    Raises:
        InputError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"--id {name}: use letters, digits, '.', '_' and '-', at most 63, starting with one of the first"
        )
    return name


def asking(request: Callable[[], Result]) -> Result:
    """The answer to a request.

    Raises:
        ClusterAway: there was none.
        RuntimeError: the job server refused.
    """
    import ray.exceptions
    import requests

    try:
        return request()
    except ray.exceptions.AuthenticationError:
        raise ClusterAway("it does not know this token any more") from None
    except (requests.exceptions.RequestException, ConnectionError) as error:
        raise ClusterAway(type(error).__name__) from None


def all_jobs(client: Any) -> list[Job]:
    """What was submitted, oldest first, without this package's own checks."""
    found = [details for details in asking(client.list_jobs) if details.submission_id]
    jobs = [Job.of(details) for details in found if not CHECK.fullmatch(details.submission_id)]
    return sorted(jobs, key=lambda job: job.started or 0.0)


def jobs_named(client: Any, name: str) -> list[Job]:
    """All submissions of a name (or the one of that id), oldest first."""
    there = all_jobs(client)
    return sorted((job for job in there if job.name == name), key=lambda job: job.number) or [
        job for job in there if job.id == name
    ]


def latest(client: Any, name: str) -> Job:
    """The newest submission of a name.

    Raises:
        InputError: there is none; the known ones are named.
    """
    found = jobs_named(client, name)
    if found:
        return found[-1]
    known = ", ".join(sorted({job.name for job in all_jobs(client)})[-20:]) or "none"
    raise InputError(
        f"no job {name} on this cluster: known are {known}; after a restart of its head a cluster has forgotten all "
        f"jobs, while runs are in their storage"
    )


def logs_of(client: Any, job: Job) -> str:
    """All that a job has said; nothing where it has not begun."""
    try:
        return str(asking(lambda: client.get_job_logs(job.id)))
    except RuntimeError as error:
        if isinstance(error, ClusterAway):
            raise
        return ""


def last_line(log: str) -> str:
    """The last line of a log that says something."""
    return next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")


def exit_code(job: Job, log: str) -> int:
    """0 done, 1 worth a retry, 2 wrong input, 143 preempted after a checkpoint; of a job that is over.

    Ray does not keep the code of a job that was stopped: it stands at the end of its log.
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
    """A time for people."""
    return "-" if not seconds else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def table(jobs: Sequence[Job]) -> str:
    """One line a submission."""
    head = ("JOB", "STATE", "CODE", "STARTED", "ENDED", "COMMAND")
    rows = [
        (job.id, job.state, "-" if job.code is None else str(job.code), when(job.started), when(job.ended), job.command)
        for job in jobs
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    )
