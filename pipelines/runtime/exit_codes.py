"""The last line and the exit code of a command."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from objgan.errors import InputError
from pipelines import command_line
from pipelines.redaction import redact
from pipelines.runtime import console
from pipelines.runtime.console import last_word
from pipelines.storage.attempts import WorkerDied
from pipelines.storage.retry import RayAway, StorageAway, is_full, settled

EPILOG = (
    "Exit codes: 0 success; 1 infrastructure failure or a bug, retrying resumes; 2 wrong input; "
    "3 `pipelines promote`: not promoted; 130 interrupted; 143 terminated."
)


class Declined(Exception):
    """A command has done its work, and the answer is no: exit code 3."""


def run_command(command: Callable[[], None], long: str | None = None) -> int:
    """Run a command and return the process's exit code. SIGTERM runs every `finally`.

    long: name of a long command, which prints a last line on success, too
    """
    signal.signal(signal.SIGTERM, _terminate)
    command_line.name_user()
    began = time.monotonic()
    try:
        command()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        # A command that had finished a step has classified its own errors.
        return ended(settled(error, advanced=False))
    if long is not None:
        took = timedelta(seconds=round(time.monotonic() - began))
        last_word("done", 0, f"{long} in {took}; nothing is left to do")
    return 0


def ended(error: BaseException) -> int:
    """Print the last line of a command that failed or stopped: state, reason, how to resume. Returns the exit code.

    The type of the error decides: 2 for wrong input (`InputError`), 1 for everything else but a request to stop. An
    error of storage was classified where it was raised (`pipelines.storage.retry.settled`).
    """
    if isinstance(error, InputError):
        return last_word("error", 2, str(error))
    if isinstance(error, Declined):
        return last_word("declined", 3, str(error))
    if isinstance(error, ModuleNotFoundError) and (missing := command_line.missing_package(error)):
        return last_word("error", 2, missing)
    if isinstance(error, RuntimeError) and "home directory" in str(error) and command_line.home() is None:
        return last_word("error", 2, command_line.no_home())  # some libraries need it at import
    if isinstance(error, SystemExit):
        # A run that was asked to stop names its checkpoint.
        where = "" if str(error) == str(error.code) else str(error)
        code = error.code if isinstance(error.code, int) else 1
        state = "failed" if code == 1 else "stopped"
        return last_word(state, code, f"{where or 'terminated'}; the same command resumes")
    if isinstance(error, KeyboardInterrupt):
        return last_word("interrupted", 130, "by the keyboard; the same command resumes")
    if isinstance(error, StorageAway | RayAway | WorkerDied):
        return last_word("failed", 1, f"{error}; the same command resumes")
    if isinstance(error, OSError) and is_full(error):
        return last_word(
            "failed", 1, f"no space left ({error.filename or 'disk full'}); free some space, the same command resumes"
        )
    # Infrastructure, or a bug of ours: the trace is for developers, the last line for everyone.
    trace = redact("".join(traceback.format_exception(error)))
    print(console.line(trace, "error") if console.as_json() else trace, file=sys.stderr)
    return last_word("failed", 1, f"{_in_a_line(error)}; the same command resumes")


def _in_a_line(error: BaseException) -> str:
    lines = redact(str(error)).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1].strip()[:300]}"


def _terminate(signum: int, frame: Any) -> None:
    """Exit through every `finally`: runs record their status, Ray shuts down."""
    raise SystemExit(128 + signum)
