"""`python -m cluster status | logs | stop`: what was submitted, what it says, and how to end it."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import Any

from cluster.errors import InputError
from cluster.jobs import auth
from cluster.jobs.ray_jobs import (
    ClusterAway,
    Job,
    all_jobs,
    asking,
    exit_code,
    jobs_named,
    last_line,
    latest,
    logs_of,
    table,
)
from cluster.jobs.submit import STOP_S
from cluster.jobs.wait import ended, wait
from pipelines.redaction import redact

_POLL_S = 0.5


def add_parser(commands: Any) -> None:
    """The three commands' options."""
    status = _command(commands, "status", "What was submitted, and how it stands.", _status)
    status.add_argument("name", nargs="?", metavar="NAME", help="all about one (default: a table of all)")
    status.add_argument("--json", action="store_true", help="for programs")
    logs = _command(commands, "logs", "What a job has said so far.", _logs)
    logs.add_argument("name", metavar="NAME", help="as it was submitted; the newest of that name")
    logs.add_argument("--follow", action="store_true", help="until it ends; the exit code is the job's")
    stop = _command(commands, "stop", f"Ask a job to leave a checkpoint and end; after {STOP_S} s it is killed.", _stop)
    stop.add_argument("name", metavar="NAME", help="as it was submitted; the newest of that name")
    stop.add_argument("--no-wait", action="store_true", help="do not wait for its end")


def _command(commands: Any, name: str, text: str, action: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    auth.add_options(command)
    command.set_defaults(action=lambda options: _asked(options, action))
    return command


def _asked(options: argparse.Namespace, action: Any) -> int:
    way = auth.Access.of(options)
    client = auth.connect(way)
    try:
        return int(action(client, options))
    except ClusterAway as error:
        raise InputError(f"--address {way.address}: the cluster stopped answering ({error}): try again") from None


def _status(client: Any, options: argparse.Namespace) -> int:
    if options.name is None:
        jobs = all_jobs(client)
        print(redact(json.dumps([_facts(client, job) for job in jobs], indent=1) if options.json else table(jobs)))
        return 0
    job = latest(client, options.name)
    if options.json:
        print(redact(json.dumps(_facts(client, job), indent=1)))
        return 0
    print(table(jobs_named(client, options.name)))
    for name, value in sorted(job.metadata.items()):
        if name.startswith("objgan.") and name != "objgan.command":
            print(redact(f"  {name.removeprefix('objgan.'):<14}{value}"))
    if line := last_line(logs_of(client, job)):
        print(redact(f"  {'last line':<14}{line}"))
    return 0


def _facts(client: Any, job: Job) -> dict[str, Any]:
    """As JSON: the facts of a job, with its exit code. Variables are left out, also their names."""
    log = logs_of(client, job)
    facts = asdict(job)
    facts["exit_code"] = exit_code(job, log) if job.over else None
    return {**facts, "last_line": last_line(log)}


def _logs(client: Any, options: argparse.Namespace) -> int:
    job = latest(client, options.name)
    if options.follow:
        return wait(client, job, show=True)
    sys.stdout.write(logs_of(client, job))
    return 0


def _stop(client: Any, options: argparse.Namespace) -> int:
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
        print(f"{job.id} is still {job.state}: look at its node", file=sys.stderr)
        return 1
    ended(client, job)
    return 0
