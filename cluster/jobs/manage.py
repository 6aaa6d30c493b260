"""`python -m cluster status | logs | stop`: list jobs, print their logs, and stop them."""

import json
import sys
import time
from dataclasses import asdict
from typing import Any

from cluster.jobs.auth import Access, ClusterOptions, connected
from cluster.jobs.ray_jobs import Job, all_jobs, asking, exit_code, jobs_named, last_line, latest, logs_of, table
from cluster.jobs.submit import STOP_S
from cluster.jobs.wait import ended, wait
from pipelines.command_line import option
from pipelines.redaction import redact

_POLL_S = 0.5


class StatusOptions(ClusterOptions):
    """Show the jobs of a cluster, or one job in detail.

    examples:
      python -m cluster status
      python -m cluster status first --json
    """

    name: str | None = option(None, "job", "name of the job (default: a table of all jobs)", flag="NAME", nargs="?")
    json: bool = option(False, "output format", "print JSON")


class LogsOptions(ClusterOptions):
    """Print the log of a job.

    examples:
      python -m cluster logs first --follow
    """

    name: str = option("", "job", "name of the job; the newest submission of that name", flag="NAME")
    follow: bool = option(False, "job", "print new lines until the job ends; the exit code is the job's")


class StopOptions(ClusterOptions):
    """Stop a job after a checkpoint. Ray kills the job after 150 s.

    examples:
      python -m cluster stop first
    """

    name: str = option("", "job", "name of the job; the newest submission of that name", flag="NAME")
    no_wait: bool = option(False, "job", "do not wait until the job has ended")


def status(options: StatusOptions) -> int:
    """Print a table of all jobs, or one job."""
    with connected(Access.of(options)) as client:
        if options.name is None:
            jobs = all_jobs(client)
            text = json.dumps([_facts(client, job) for job in jobs], indent=1) if options.json else table(jobs)
        else:
            job = latest(client, options.name)
            text = json.dumps(_facts(client, job), indent=1) if options.json else _details(client, job, options.name)
    print(redact(text))
    return 0


def _details(client: Any, job: Job, name: str) -> str:
    lines = [table(jobs_named(client, name))]
    for key, value in sorted(job.metadata.items()):
        if key.startswith("objgan.") and key != "objgan.command":
            lines.append(f"  {key.removeprefix('objgan.'):<14}{value}")
    if line := last_line(logs_of(client, job)):
        lines.append(f"  {'last line':<14}{line}")
    return "\n".join(lines)


def _facts(client: Any, job: Job) -> dict[str, Any]:
    """Facts of a job for JSON, with its exit code. Environment variables are left out, also their names."""
    log = logs_of(client, job)
    return {
        **asdict(job),
        "exit_code": exit_code(job, log) if job.over else None,
        "last_line": last_line(log),
    }


def logs(options: LogsOptions) -> int:
    """Print the log of a job; with `--follow`, return its exit code."""
    with connected(Access.of(options)) as client:
        job = latest(client, options.name)
        if options.follow:
            return wait(client, job, show=True)
        sys.stdout.write(logs_of(client, job))
        return 0


def stop(options: StopOptions) -> int:
    """Stop a job, and wait until it has ended."""
    with connected(Access.of(options)) as client:
        job = latest(client, options.name)
        if job.over:
            print(f"{job.id} has ended already ({job.state})")
            return 0
        asking(lambda: client.stop_job(job.id))
        if options.no_wait:
            print(f"{job.id}: asked to stop; it has {STOP_S} s for a checkpoint")
            return 0
        end = time.monotonic() + STOP_S + 30
        while not job.over and time.monotonic() < end:
            time.sleep(_POLL_S)
            job = latest(client, job.id)
        if not job.over:
            print(f"{job.id} is still {job.state}: check its node", file=sys.stderr)
            return 1
        ended(client, job)
        return 0
