"""`python -m cluster submit ... -- COMMAND`: run a command of the checkout as a Ray job, after checks."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.jobs import environment
from cluster.jobs.auth import Access, ClusterOptions, connected
from cluster.jobs.command import CHECKOUT, Ask, Command, ask_of
from cluster.jobs.package import Package, packed
from cluster.jobs.preflight import LIMIT_S, faults, probe
from cluster.jobs.ray_jobs import NAME_KEY, NUMBER_KEY, ClusterAway, Job, asking, check_name, jobs_named
from cluster.jobs.secret_files import Secrets
from cluster.jobs.wait import wait
from objgan.errors import InputError
from pipelines import command_line
from pipelines.command_line import option, repeated
from pipelines.redaction import redact

STOP_S = 150
"""Seconds from `stop` until Ray kills a job, for its checkpoint."""
_SHOWN = 5


@dataclass(frozen=True)
class Submission:
    """A job to submit."""

    name: str
    number: int
    command: Command
    variables: environment.Variables
    folder: str | None
    """Its folder on the cluster; None: the unpacked checkout, which Ray deletes afterwards."""
    location: str | None
    """Storage that all nodes must share."""
    resume: bool = False
    include: tuple[Path, ...] = ()
    """Files and folders to ship, although git does not track them."""

    @property
    def id(self) -> str:
        """Its submission id in Ray."""
        return self.name if self.number == 1 else f"{self.name}-{self.number}"

    def metadata(self) -> dict[str, str]:
        """Metadata of the job, and tags of its MLflow runs."""
        revision = _git("rev-parse", "HEAD") or "unknown"
        dirty = "unknown" if revision == "unknown" else str(bool(_git("status", "--porcelain"))).lower()
        facts = {
            "recipe": self.command.recipe,
            "user": command_line.user(),
            "git_revision": revision,
            "git_dirty": dirty,
        }
        facts = {f"objgan.{name}": value for name, value in facts.items()}
        return {NAME_KEY: self.name, NUMBER_KEY: str(self.number), "objgan.submission_id": self.id, **facts}

    def runtime(self, package: str) -> dict[str, Any]:
        """Ray's runtime environment: the checkout's URI or zip file, and variables."""
        own = {
            # The programs reject a run that exists already, unless this says to resume it.
            "OBJGAN_RUNS": "resume" if self.resume else "new",
            "OBJGAN_TAGS": json.dumps({name: value for name, value in self.metadata().items() if name != NUMBER_KEY}),
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S),
        }
        return {"working_dir": package, "env_vars": {**self.variables.values, **own}}


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: give seconds from 1 to 3600")
    return seconds


class SubmitOptions(ClusterOptions):
    """Ship this checkout to a Ray cluster and run a command of it there, after checks that take under a minute.

    examples:
      python -m cluster submit --storage /data --follow -- python -m pipelines run --recipe small --out runs/first
      python -m cluster submit --id first --resume --storage /data -- python -m pipelines run --out runs/first
      python -m cluster submit --dry-run --storage /data -- python -m tune boxes --data s3://bucket/coco
    """

    words: Sequence[str] = option(
        (),
        "job",
        "command after --: python -m pipelines ... or python -m tune ...",
        flag="COMMAND",
        nargs=argparse.REMAINDER,
    )
    id: str | None = option(
        None, "job", "name of the job, which can be used once (default: a name with the time)", metavar="NAME"
    )
    resume: bool = option(False, "job", "resume the job that was submitted under this name before")
    storage: str | None = option(
        None,
        "job",
        "folder or URI that all nodes share; the command runs in the folder, so its relative paths are in it "
        "(default: only absolute paths and URIs in the command)",
        metavar="LOCATION",
    )
    include: Sequence[Path] = repeated(
        "job",
        "ship this file or folder of the checkout, too (default: only files that git tracks; may be repeated)",
        command_line.local_path,
        metavar="PATH",
    )
    env: Sequence[str] = repeated(
        "job",
        "pass this environment variable, too; its value is never printed (default: variables of MLflow and storage; "
        "may be repeated)",
        str,
        metavar="NAME",
    )
    expose_secrets: bool = option(
        False,
        "job",
        "pass secrets named by --env, and ship files named by --include that look like secrets; everybody who reaches "
        "the cluster can read both",
    )
    wait: bool = option(False, "job", "wait until the job has ended; the exit code is the job's")
    follow: bool = option(False, "job", "as --wait, and print its log")
    dry_run: bool = option(False, "job", "print what would be shipped and run, and send nothing")
    check_timeout: float = option(
        LIMIT_S,
        "cluster",
        f"time for all checks before the job starts; a cluster that starts slowly needs more (default: {LIMIT_S:.0f})",
        _seconds,
        metavar="SECONDS",
    )


def submit(options: SubmitOptions) -> int:
    """Check, ship and start a job; then wait for its end if `--wait` or `--follow` is given."""
    end = time.monotonic() + options.check_timeout
    submission = _submission(options)
    ask = ask_of(submission.command)
    if options.dry_run:
        with packed(CHECKOUT, submission.include, _secrets(options)) as package:
            _describe(submission, package)
        return 0
    access = Access.of(options)
    with connected(access) as client:
        submission = _numbered(client, submission)
        with packed(CHECKOUT, submission.include, _secrets(options, access)) as package:
            _describe(submission, package)
            runtime = submission.runtime(str(package.path))
            _check(submission, ask, probe(client, runtime, submission.location, end))
            job = _start(client, submission, runtime)
    _print_next_commands(job, options)
    return wait(client, job, show=options.follow) if options.wait or options.follow else 0


def _submission(options: SubmitOptions) -> Submission:
    command = Command.of(options.words)
    environment.check_words([*command.words, options.storage or ""])
    variables = environment.choose(options.env, options.expose_secrets)
    folder = options.storage if options.storage and "://" not in options.storage else None
    if folder is not None and not Path(folder).is_absolute():
        raise InputError(f"--storage {folder}: give a URI, or a path from / as the cluster's nodes see it")
    relative = [place for place in command.places() or ["runs"] if "://" not in place and not Path(place).is_absolute()]
    if relative and folder is None:
        raise InputError(
            f"{relative[0]}: the job runs in a folder that Ray deletes: give --storage DIR that all nodes share "
            f"(relative paths are then in it), or give absolute paths or URIs in the command"
        )
    absolute = [place for place in command.places() if place not in relative]
    kind = command.words[3] if len(command.words) > 3 else "job"
    return Submission(
        name=check_name(options.id or f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"),
        number=1,
        command=command,
        variables=variables,
        folder=folder,
        location=options.storage or next(iter(absolute), None),
        resume=options.resume,
        # Below the checkout, also if the path leads through a link.
        include=tuple(path.parent.resolve() / path.name for path in options.include),
    )


def _secrets(options: SubmitOptions, access: Access | None = None) -> Secrets:
    """Texts that no shipped file may hold: the cluster's token, and secrets of this environment."""
    token = [] if access is None else [value.removeprefix("Bearer ") for value in access.headers.values()]
    return Secrets([*token, *environment.secret_values()], options.expose_secrets)


def _numbered(client: Any, submission: Submission) -> Submission:
    """The submission with its number.

    Raises:
        InputError: the name was used before, without `--resume`; or its job has not ended.
    """
    name, before = submission.name, jobs_named(client, submission.name)
    if not before:
        return submission
    last = before[-1]
    if not last.over:
        raise InputError(
            f"--id {name}: {last.id} is {last.state}: follow it (python -m cluster logs {name} --follow) or stop it "
            f"(python -m cluster stop {name}) first"
        )
    if not submission.resume:
        raise InputError(
            f"--id {name} was submitted before ({last.id}, {last.state}): add --resume to resume it, or choose another "
            f"name"
        )
    return replace(submission, number=last.number + 1)


def _check(submission: Submission, ask: Ask, facts: dict[str, Any]) -> None:
    *others, last = faults(facts, ask, submission.location) or [""]
    if last:
        for fault in others:
            print(redact(f"error: {fault}"), file=sys.stderr)
        raise InputError(last)
    kind, wanted, count = ask.of(facts["resources"])
    note = f"; it grows on demand, the command needs {wanted}" if ask.grows and wanted > count else ""
    shared = f", all of them share {submission.location.partition('?')[0]}" if submission.location else ""
    print(f"checked: {len(facts['nodes'])} nodes with {count} {kind}s{note}{shared}, same versions as here")


def _start(client: Any, submission: Submission, runtime: dict[str, Any]) -> Job:
    command = str(submission.command)
    metadata = {**submission.metadata(), "objgan.command": command}
    try:
        asking(
            lambda: client.submit_job(
                entrypoint=submission.command.shell(submission.folder),
                submission_id=submission.id,
                runtime_env=runtime,
                metadata=metadata,
            )
        )
    except ClusterAway:
        raise
    except RuntimeError as error:
        if "already exists" in str(error):
            raise InputError(
                f"--id {submission.name}: another process submitted {submission.id} at the same moment: follow that job"
            ) from None
        raise InputError(f"the cluster rejects the job ({' '.join(str(error).split())[-300:]})") from None
    return Job(submission.id, submission.name, submission.number, "pending", command, metadata)


def _describe(submission: Submission, package: Package) -> None:
    variables = submission.variables
    print(redact(f"job {submission.id}: {submission.command}"))
    print(f"  ships {package}; runs in {submission.folder or 'the unpacked checkout'}")
    if package.left:
        more = f" and {len(package.left) - _SHOWN} more" if len(package.left) > _SHOWN else ""
        print(f"  leaves {', '.join(package.left[:_SHOWN])}{more}: git does not track them; --include PATH ships them")
    print(f"  passes {', '.join(variables.values) or 'no variables'}")
    for name, why in variables.withheld.items():
        print(f"  not {name}: {why}")
    if "MLFLOW_TRACKING_URI" not in {*variables.values, *variables.withheld}:
        print(
            "  no MLFLOW_TRACKING_URI here: metrics go to runs/mlflow.db, unless the cluster's own processes have one"
        )
    sys.stdout.flush()


def _print_next_commands(job: Job, options: SubmitOptions) -> None:
    cluster = f" --address {options.address}" if options.address else ""
    cluster += f" --token-file {options.token_file}" if options.token_file else ""
    print(f"submitted {job.id}")
    print(f"  follow:  python -m cluster logs {job.name} --follow{cluster}")
    print(f"  stop:    python -m cluster stop {job.name}{cluster}")
    print(f"  resume:  the same command with --id {job.name} --resume", flush=True)


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
