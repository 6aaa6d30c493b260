"""How a command ends: what it raised becomes one line and an exit code."""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from objgan.errors import InputError

EPILOG = "Exit codes: 0 done, 2 wrong input, 1 failure worth a retry, 130 interrupted, 143 terminated."


def guarded(command: Callable[[], None]) -> int:
    """Run a command; the process's exit code. SIGTERM ends it by way of every `finally`."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        command()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SystemExit as stopped:
        # A run that was asked to stop says where it left its checkpoint.
        where = "" if str(stopped) == str(stopped.code) else f" {stopped}"
        print(f"stopped:{where or ' terminated'}; the same command goes on", file=sys.stderr)
        return stopped.code if isinstance(stopped.code, int) else 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(
                f"failed: no space left ({error.filename or 'disk full'}); free some, the same command goes on",
                file=sys.stderr,
            )
            return 1
        # Not the user's mistake: whoever looks into it needs the trace, and the last line should say it all.
        traceback.print_exc()
        print(f"failed: {_in_a_line(error)}; the same command goes on from what is finished", file=sys.stderr)
        return 1
    return 0


def _in_a_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1].strip()[:300]}"


def _terminate(signum: int, frame: Any) -> None:
    """Leave by way of every `finally`: runs get their status, Ray its end."""
    raise SystemExit(128 + signum)
