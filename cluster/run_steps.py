"""`steps`: several commands one after the other, as the entrypoint of a Kubernetes RayJob.

KubeRay ignores exit codes: with `job.new_clusters` it creates a new cluster for every job that FAILED. So commands are
retried here, and after wrong input (2) or a refused promotion (3) the job stops itself: STOPPED is final for KubeRay.
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

from objgan.errors import InputError
from pipelines.command_line import OptionsClass, option
from pipelines.redaction import redact

WRONG_INPUT, DECLINED, INTERRUPTED, TERMINATED = 2, 3, 130, 143
FINAL = (0, WRONG_INPUT, DECLINED, INTERRUPTED, TERMINATED)
"""Exit codes after which a command is not retried. All others are infrastructure failures, or bugs."""
PAUSE_S = 30.0
"""Pause before a retry: the lease of a killed driver expires in this time."""
HEAD_END_S = 180.0
"""Longer than a head lives after SIGTERM (`pods.TERMINATION_SECONDS`)."""
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray passes the id of a job to its process in this variable."""


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 4:
        raise argparse.ArgumentTypeError(f"{text}: should be a whole number from 0 to 9999")
    return int(text)


class StepsOptions(OptionsClass):
    """Run commands one after the other until one fails: the entrypoint of a RayJob.

    examples:
      python -m cluster steps --retries 2 -- python -m pipelines prepare + python -m pipelines train encoders
    """

    words: Sequence[str] = option(
        (), "inputs", "commands after --, separated by a plus sign: A + B", flag="COMMAND", nargs="+"
    )
    retries: int = option(0, "inputs", "retries of a command after an infrastructure failure", _count, metavar="N")


def steps(options: StepsOptions) -> int:
    """Run all commands. Returns the first exit code that is not 0, else 0.

    Ray sends SIGTERM to every process of a job. The running command writes a checkpoint; here it only prevents the
    next command from starting.
    """
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    code = _run_all(list(split(options.words)), options.retries, terminated)
    if code in (WRONG_INPUT, DECLINED) and _stop_job(f"exit code {code}"):
        terminated.wait(60)
    if code == TERMINATED and not terminated.is_set() and _JOB in os.environ:
        _outlive_head(terminated)
    return code


def _outlive_head(terminated: threading.Event) -> None:
    """Wait until a draining head has shut down.

    The command stopped because its head is draining. KubeRay counts a job that ended as FAILED and gives up; a job
    that is lost with its head is submitted to the next head.
    """
    print("the head is shutting down: waiting for its end, so that KubeRay submits this job again", flush=True)
    terminated.wait(HEAD_END_S)


def split(words: Sequence[str]) -> Iterator[list[str]]:
    """Commands between the plus signs.

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


def _run_all(commands: Sequence[Sequence[str]], retries: int, terminated: threading.Event) -> int:
    for number, command in enumerate(commands, start=1):
        step = f"step {number} of {len(commands)}"
        print(redact(f"{step}: {shlex.join(command)}"), flush=True)
        code = _run_with_retries(command, step, retries, terminated)
        if code:
            print(f"{step} ended with exit code {code}", file=sys.stderr, flush=True)
            return code
        if terminated.is_set():
            return TERMINATED
    return 0


def _run_with_retries(command: Sequence[str], step: str, retries: int, terminated: threading.Event) -> int:
    for retry in range(retries + 1):
        code = _run(command)
        if code in FINAL or retry == retries:
            break
        print(
            f"{step}: exit code {code}; retry {retry + 1} of {retries} in {PAUSE_S:.0f} s", file=sys.stderr, flush=True
        )
        if terminated.wait(PAUSE_S):
            return TERMINATED
    return code


def _run(command: Sequence[str]) -> int:
    """The exit code of a command; 128 + n if signal n killed it."""
    program = sys.executable if command[0] == "python" else command[0]
    try:
        code = subprocess.Popen([program, *command[1:]]).wait()
    except OSError as error:
        raise InputError(f"steps: cannot run {command[0]} ({error.strerror})") from None
    return code if code >= 0 else 128 - code


def _stop_job(why: str) -> bool:
    """Stop this process's own Ray job. False: it is no job, or Ray does not answer."""
    try:
        job = json.loads(os.environ.get(_JOB, "{}"))["metadata"]["job_submission_id"]
    except (ValueError, KeyError, TypeError):
        return False
    try:
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(os.environ.get("RAY_API_SERVER_ADDRESS", "auto"))
        print(f"{why}: job {job} is stopped, so that KubeRay does not retry it", file=sys.stderr, flush=True)
        return bool(client.stop_job(job))
    except Exception as error:
        print(f"{why}, but job {job} could not be stopped ({error}): KubeRay may retry it", file=sys.stderr)
        return False
