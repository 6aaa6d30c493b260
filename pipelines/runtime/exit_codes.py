"""How a command ends: its last line and its exit code."""

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
from pipelines.storage.attempts import WorkerDied
from pipelines.storage.retry import RayAway, StorageAway, is_full, settled

EPILOG = "Exit codes: 0 done, 2 wrong input, 1 failure worth a retry, 130 interrupted, 143 terminated."


def run_command(command: Callable[[], None], long: str | None = None) -> int:
    """Run a command; the process's exit code. SIGTERM ends it by way of every `finally`.

    long: name of work that is worth a last line when it is done, too
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
        # Work that had advanced has settled its own errors.
        return ended(settled(error, advanced=False))
    if long is not None:
        took = timedelta(seconds=round(time.monotonic() - began))
        console.last_word("done", 0, f"{long} in {took}; nothing is left to do")
    return 0


def ended(error: BaseException) -> int:
    """Print how a command ended that did not end well: state, reason, how to resume. Returns the exit code.

    The type of the error decides: 2 for wrong input (`InputError`), 1 for everything else but a wish to stop. Whether
    storage that refuses is the one or the other was decided where it was met (`pipelines.storage.retry.settled`).
    """
    if isinstance(error, InputError):
        return _last("error", 2, str(error))
    if isinstance(error, ModuleNotFoundError) and (missing := command_line.missing_package(error)):
        return _last("error", 2, missing)
    if isinstance(error, RuntimeError) and "home directory" in str(error) and command_line.home() is None:
        return _last("error", 2, command_line.no_home())  # some libraries look for it when they are imported
    if isinstance(error, SystemExit):
        # A run that was asked to stop says where it left its checkpoint.
        where = "" if str(error) == str(error.code) else str(error)
        code = error.code if isinstance(error.code, int) else 1
        state = "failed" if code == 1 else "stopped"
        return _last(state, code, f"{where or 'terminated'}; the same command resumes")
    if isinstance(error, KeyboardInterrupt):
        return _last("interrupted", 130, "by the keyboard; the same command resumes from what is finished")
    if isinstance(error, StorageAway | RayAway | WorkerDied):
        return _last("failed", 1, f"{error}; the same command resumes")
    if isinstance(error, OSError) and is_full(error):
        return _last(
            "failed", 1, f"no space left ({error.filename or 'disk full'}); free some, the same command resumes"
        )
    # Infrastructure, or a bug of ours: those who look into it need the trace, and the last line should say it all.
    trace = redact("".join(traceback.format_exception(error)))
    print(console.line(trace, "error") if console.as_json() else trace, file=sys.stderr)
    return _last("failed", 1, f"{_in_a_line(error)}; the same command resumes from what is finished")


def _last(state: str, code: int, text: str) -> int:
    console.last_word(state, code, text)
    return code


def _in_a_line(error: BaseException) -> str:
    lines = redact(str(error)).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1].strip()[:300]}"


def _terminate(signum: int, frame: Any) -> None:
    """Leave by way of every `finally`: runs get their status, Ray its end."""
    raise SystemExit(128 + signum)
