"""`steps`: several commands one after the other, as the entrypoint of a Kubernetes RayJob.

KubeRay makes a new cluster for every job that FAILED, whatever its exit code. Wrong input (2) would fail again, so the
job is then asked to stop itself: STOPPED is final for KubeRay.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from cluster.errors import InputError

WRONG_INPUT, TERMINATED = 2, 143
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray tells a job's process who it is."""


def add_parser(commands: Any) -> None:
    """`steps` and its options."""
    text = "Commands one after the other, until one fails: what a RayJob runs. Separate them by a plus sign: A + B."
    command = commands.add_parser("steps", help=text, description=text)
    command.add_argument("words", nargs="+", metavar="COMMAND", help="after --")
    command.set_defaults(action=steps)


def steps(options: argparse.Namespace) -> int:
    """Run all; the first exit code that is not 0, else 0.

    SIGTERM is for the commands, which leave a checkpoint. Ray sends it to every process of a job; here it only keeps
    the next command from starting.
    """
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: told.set())
    code = _run_all(list(split(options.words)), told)
    if code == WRONG_INPUT and _stop_job():
        told.wait(60)
    return code


def split(words: Sequence[str]) -> Iterator[list[str]]:
    """The commands between the plus signs.

    Raises:
        InputError: one of them is empty.
    """
    command: list[str] = []
    for word in [*words, "+"]:
        if word != "+":
            command.append(word)
        elif command:
            yield command
            command = []
        else:
            raise InputError("steps: an empty command between two plus signs")


def _run_all(commands: Sequence[Sequence[str]], told: threading.Event) -> int:
    for number, command in enumerate(commands, start=1):
        print(f"step {number} of {len(commands)}: {shlex.join(command)}", flush=True)
        code = _run(command)
        if code:
            print(f"step {number} of {len(commands)} ended with exit code {code}", file=sys.stderr, flush=True)
            return code
        if told.is_set():
            return TERMINATED
    return 0


def _run(command: Sequence[str]) -> int:
    """Its exit code; 128 + n where signal n killed it."""
    program = sys.executable if command[0] == "python" else command[0]
    try:
        code = subprocess.Popen([program, *command[1:]]).wait()
    except OSError as error:
        raise InputError(f"steps: cannot run {command[0]} ({error.strerror})") from None
    return code if code >= 0 else 128 - code


def _stop_job() -> bool:
    """Ask Ray to stop the job that this process is; False where it is none, or Ray does not answer."""
    try:
        job = json.loads(os.environ.get(_JOB, "{}"))["metadata"]["job_submission_id"]
    except (ValueError, KeyError, TypeError):
        return False
    try:
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(os.environ.get("RAY_API_SERVER_ADDRESS", "auto"))
        print(f"wrong input: job {job} is stopped, so that it is not tried again", file=sys.stderr, flush=True)
        return bool(client.stop_job(job))
    except Exception as error:
        print(f"wrong input, but job {job} could not be stopped ({error}): KubeRay may try again", file=sys.stderr)
        return False
