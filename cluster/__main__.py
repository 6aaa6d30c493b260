"""`python -m cluster COMMAND`: the one parser. A command is a module with `add_parser`, which sets `action`."""

import sys
from pathlib import Path

if not __package__:  # run as `python CHECKOUT/cluster`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import os
from collections.abc import Callable, Sequence

from pipelines import command_line

try:
    from cluster import estimate, run_steps
    from cluster.errors import InputError
    from cluster.jobs import auth, manage, submit
    from cluster.render import render
    from pipelines.redaction import redact
except ModuleNotFoundError as error:
    command_line.stop_without(error)

COMMANDS = (render, estimate, run_steps, submit, manage, auth)
"""Modules with `add_parser(commands)`: it adds a parser with `set_defaults(action=f)`, f(options) -> exit code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    options = parser().parse_args(arguments)
    action: Callable[[argparse.Namespace], int] = options.action
    try:
        return action(options)
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
    top = command_line.Parser(prog="python -m cluster", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
