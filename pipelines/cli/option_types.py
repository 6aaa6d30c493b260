"""Options that several programs have, and values that are numbers: what is wrong is told before anything starts."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from objgan.errors import InputError
from pipelines import command_line
from pipelines.runtime import log_format


def add_settings(command: Any, example: str) -> None:
    """Options by which a tree of settings is told: a recipe, a file over it, single settings over both.

    command: an argparse parser, or a group of one
    example: of a single setting, for the help
    """
    command.add_argument("--recipe", default="tiny", metavar="NAME", help="tiny (default), small, paper or fast")
    command.add_argument(
        "--config", type=command_line.local_path, metavar="FILE", help="YAML settings over the recipe's"
    )
    command.add_argument(
        "--set",
        action=command_line.Assignments,
        default=[],
        metavar="NAME=VALUE",
        dest="assignments",
        help=f"one setting over both, for example {example}",
    )


def add_log_format(command: Any) -> None:
    """How a program's lines are told."""
    told = os.environ.get(log_format.VARIABLE, "")
    command.add_argument(
        "--log-format",
        choices=log_format.FORMATS,
        default=told if told in log_format.FORMATS else log_format.FORMATS[0],
        help=f"json: one object a line, for machines (default: {log_format.VARIABLE}, else text)",
    )


def count(text: str) -> int:
    """A whole number of at least 1."""
    return whole(text, 1)


def seed(text: str) -> int:
    """A whole number of at least 0."""
    return whole(text, 0)


def workers(text: str) -> tuple[int, int | None]:
    """N, or N-M: the least, and the most where it is told."""
    least, dash, most = text.partition("-")
    return whole(least, 1), whole(most, 1) if dash else None


def with_workers(assignments: Sequence[str], workers: Sequence[str]) -> list[str]:
    """The assignments of `--set`, and those that `--workers` stands for.

    Raises:
        InputError: both say how many workers there are.
    """
    given = {assignment.partition("=")[0] for assignment in assignments}
    if twice := given & {assignment.partition("=")[0] for assignment in workers}:
        raise InputError(f"--workers and --set {min(twice)} say the same thing: give one of them")
    return [*assignments, *workers]


def whole(text: str, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is under {least}")
    return value
