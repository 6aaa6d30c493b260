"""`python -m cluster COMMAND`: the one parser. Options and commands are in the modules of the commands."""

import sys
from pathlib import Path

if not __package__:  # run as `python CHECKOUT/cluster`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

from pipelines import command_line

try:
    from cluster import run_steps
    from cluster.estimate import EstimateOptions, estimate
    from cluster.jobs import auth, manage, submit
    from cluster.render.render import RenderOptions, render
    from objgan.errors import InputError
    from pipelines.redaction import redact
except ModuleNotFoundError as error:
    command_line.stop_without(error)

_DESCRIPTION = "Render the files that a Ray cluster starts from; submit jobs to a cluster, follow and stop them."
_EPILOG = (
    "Exit codes: 0 success; 1 the job or the cluster failed; 2 wrong input; 130 interrupted; 143 terminated.\n"
    "`steps`, and `submit` and `logs` that follow a job, end with the exit code of the command or job."
)
COMMANDS: dict[str, tuple[type[command_line.OptionsClass], Callable[[Any], int]]] = {
    "render": (RenderOptions, render),
    "estimate": (EstimateOptions, estimate),
    "token": (auth.TokenOptions, auth.token),
    "submit": (submit.SubmitOptions, submit.submit),
    "status": (manage.StatusOptions, manage.status),
    "logs": (manage.LogsOptions, manage.logs),
    "stop": (manage.StopOptions, manage.stop),
    "steps": (run_steps.StepsOptions, run_steps.steps),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    namespace = parser().parse_args(arguments)
    kind, command = COMMANDS[namespace.command]
    try:
        return command(command_line.read_options(kind, namespace))
    except InputError as error:
        print(redact(f"error: {error}"), file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        command_line.stop_without(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    return command_line.commands_parser("python -m cluster", _DESCRIPTION, _EPILOG, COMMANDS)


if __name__ == "__main__":
    sys.exit(main())
