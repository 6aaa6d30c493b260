"""`python -m cluster submit ... -- COMMAND`: the checkout and a command as a Ray job, checked before it starts."""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import InputError
from cluster.jobs import auth, environment
from cluster.jobs.command import CHECKOUT, Ask, Command, ask_of
from cluster.jobs.package import Package, packed
from cluster.jobs.preflight import LIMIT_S, faults, probe
from cluster.jobs.ray_jobs import NAME_KEY, NUMBER_KEY, ClusterAway, Job, asking, check_name, jobs_named
from cluster.jobs.secret_files import Secrets
from cluster.jobs.wait import wait
from pipelines import command_line
from pipelines.redaction import redact

STOP_S = 150
"""Seconds that a job has after `stop` for a checkpoint."""
_SHOWN = 5


@dataclass(frozen=True)
class Submission:
    """What is submitted: name and number, and what goes with it."""

    name: str
    number: int
    command: Command
    variables: environment.Variables
    folder: str | None
    """Where it runs on the cluster; None: in the unpacked checkout, which Ray deletes afterwards."""
    location: str | None
    """Storage that all nodes must share."""
    resume: bool = False
    include: tuple[Path, ...] = ()
    """Files and folders that are shipped although git does not track them."""

    @property
    def id(self) -> str:
        """What Ray knows it by."""
        return self.name if self.number == 1 else f"{self.name}-{self.number}"

    def metadata(self) -> dict[str, str]:
        """For the job, and as tags of its MLflow runs."""
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


def add_parser(commands: Any) -> None:
    """The command's options."""
    text = "Ship this checkout to a Ray cluster and run a command of it there, after checks that take under a minute."
    then = "Exit codes: 0 accepted (with --wait or --follow: done), 2 refused, 1, 143: the job's own."
    command = commands.add_parser("submit", help=text, description=text, epilog=then)
    auth.add_options(command)
    command.add_argument(
        "--id", metavar="NAME", help="of the job; a name is used once (default: one with the time in it)"
    )
    command.add_argument("--resume", action="store_true", help="go on with what was submitted under this name before")
    command.add_argument("--wait", action="store_true", help="until the job has ended; the exit code is the job's")
    command.add_argument("--follow", action="store_true", help="as --wait, and print its log")
    command.add_argument(
        "--storage",
        metavar="LOCATION",
        help="folder or URI that all nodes share; the command runs in the folder, and its relative paths are there",
    )
    command.add_argument(
        "--env", action="append", default=[], metavar="NAME", help="pass this variable, too; its value is never shown"
    )
    command.add_argument(
        "--include",
        action="append",
        default=[],
        type=command_line.local_path,
        metavar="PATH",
        help="ship this file or folder of the checkout, too; without it, only what git tracks is shipped",
    )
    command.add_argument(
        "--expose-secrets",
        action="store_true",
        help="pass secrets named by --env, and ship files named by --include that look like secrets; everyone who "
        "reaches the cluster can read both",
    )
    command.add_argument(
        "--check-timeout",
        type=_seconds,
        default=LIMIT_S,
        metavar="SECONDS",
        help=f"for all checks before the job starts (default: {LIMIT_S:.0f}); more for a cluster that is slow to start",
    )
    command.add_argument("--dry-run", action="store_true", help="say what would be shipped and run, and ask nobody")
    command.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="python -m pipelines ...")
    command.set_defaults(action=run)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: should be seconds, from 1 to 3600")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Check, ship, start; then wait if asked to."""
    end = time.monotonic() + options.check_timeout
    what = _submission(options)
    if options.dry_run:
        with packed(CHECKOUT, what.include, _secrets(options)) as package:
            _describe(what, package)
        return 0
    way = auth.Access.of(options)
    client = auth.connect(way)
    try:
        job = _start(client, what, _secrets(options, way), end)
    except ClusterAway as error:
        raise InputError(f"--address {options.address}: the cluster stopped answering ({error}): try again") from None
    _say_how_to_go_on(job, options)
    return wait(client, job, show=options.follow) if options.wait or options.follow else 0


def _submission(options: argparse.Namespace) -> Submission:
    command = Command.of(options.words)
    environment.check_words([*command.words, options.storage or ""])
    chosen = environment.choose(options.env, options.expose_secrets)
    folder = options.storage if options.storage and "://" not in options.storage else None
    if folder is not None and not Path(folder).is_absolute():
        raise InputError(f"--storage {folder}: give a path from /, as the cluster's nodes see it, or a URI")
    loose = [place for place in command.places() or ["runs"] if "://" not in place and not Path(place).is_absolute()]
    if loose and folder is None:
        raise InputError(
            f"{loose[0]}: the job runs in a folder that Ray deletes: give --storage DIR that all nodes share (relative "
            f"paths are then in it), or name absolute paths or URIs in the command"
        )
    fixed = [place for place in command.places() if place not in loose]
    name = check_name(
        options.id or f"{command.words[3] if len(command.words) > 3 else 'job'}-{time.strftime('%Y%m%d-%H%M%S')}"
    )
    location = options.storage or next(iter(fixed), None)
    include = tuple(map(_included, options.include))
    return Submission(name, 1, command, chosen, folder, location, options.resume, include)


def _secrets(options: argparse.Namespace, way: auth.Access | None = None) -> Secrets:
    """What no file that is shipped may hold: the cluster's token, and secrets of this environment."""
    token = [] if way is None else [value.removeprefix("Bearer ") for value in way.headers.values()]
    return Secrets([*token, *environment.secret_values()], options.expose_secrets)


def _included(path: Path) -> Path:
    """As a path below the checkout, however its folder was named."""
    return path.parent.resolve() / path.name


def _start(client: Any, what: Submission, secrets: Secrets, end: float) -> Job:
    what = _numbered(client, what)
    # Reading the settings here takes as long as the cluster's answer.
    with packed(CHECKOUT, what.include, secrets) as package, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask_of, what.command)
        _describe(what, package)
        runtime = what.runtime(str(package.path))
        facts = probe(client, runtime, what.location, end)
        _check(what, asked.result(), facts)
        return _submit(client, what, runtime)


def _numbered(client: Any, what: Submission) -> Submission:
    """The submission with its number.

    Raises:
        InputError: the name was used before, and nobody said to go on; or it is still at work.
    """
    before = jobs_named(client, what.name)
    if not before:
        return what
    last = before[-1]
    if not last.over:
        raise InputError(
            f"--id {what.name}: {last.id} is {last.state}: follow it (python -m cluster logs {what.name} --follow) or "
            f"stop it (python -m cluster stop {what.name}) first"
        )
    if not what.resume:
        raise InputError(
            f"--id {what.name} was submitted before ({last.id}, {last.state}): add --resume to go on with it, or "
            f"choose another name"
        )
    return Submission(**{**vars(what), "number": last.number + 1})


def _check(what: Submission, ask: Ask, facts: dict[str, Any]) -> None:
    wrong = faults(facts, ask, what.location)
    if wrong:
        raise InputError("\nerror: ".join(wrong))
    kind, wanted, there = ask.of(facts["resources"])
    note = f"; it grows by itself, {wanted} are asked for" if ask.grows and wanted > there else ""
    shared = f", all of them share {what.location.partition('?')[0]}" if what.location else ""
    print(f"checked: {len(facts['nodes'])} nodes with {there} {kind}s{note}{shared}, same versions as here")


def _submit(client: Any, what: Submission, runtime: dict[str, Any]) -> Job:
    metadata = {**what.metadata(), "objgan.command": str(what.command)}
    try:
        asking(
            lambda: client.submit_job(
                entrypoint=what.command.shell(what.folder),
                submission_id=what.id,
                runtime_env=runtime,
                metadata=metadata,
            )
        )
    except ClusterAway:
        raise
    except RuntimeError as error:
        if "already exists" in str(error):
            raise InputError(
                f"--id {what.name}: somebody submitted {what.id} at the same moment: follow that one"
            ) from None
        raise InputError(f"the cluster refuses the job ({' '.join(str(error).split())[-300:]})") from None
    return Job(what.id, what.name, what.number, "pending", str(what.command), metadata)


def _describe(what: Submission, package: Package) -> None:
    chosen = what.variables
    print(redact(f"job {what.id}: {what.command}"))
    print(f"  ships {package}; runs in {what.folder or 'the unpacked checkout'}")
    if package.left:
        more = f" and {len(package.left) - _SHOWN} more" if len(package.left) > _SHOWN else ""
        print(f"  leaves {', '.join(package.left[:_SHOWN])}{more}: git does not track them; --include PATH ships them")
    print(f"  passes {', '.join(chosen.values) or 'no variables'}")
    for name, why in chosen.withheld.items():
        print(f"  not {name}: {why}")
    if "MLFLOW_TRACKING_URI" not in {*chosen.values, *chosen.withheld}:
        print(
            "  no MLFLOW_TRACKING_URI here: unless the cluster's own processes have one, numbers go to runs/mlflow.db"
        )
    sys.stdout.flush()


def _say_how_to_go_on(job: Job, options: argparse.Namespace) -> None:
    where = f" --address {options.address}" if options.address else ""
    where += f" --token-file {options.token_file}" if options.token_file else ""
    print(f"submitted {job.id}")
    print(f"  follow:  python -m cluster logs {job.name} --follow{where}")
    print(f"  stop:    python -m cluster stop {job.name}{where}")
    print(f"  resume:  the same command with --id {job.name} --resume", flush=True)


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
