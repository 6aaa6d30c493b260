"""`python -m tune STAGE...`: a sweep over the settings of one or more stages.

Options are in `tune.cli.arguments`, the commands beside them.
"""

import sys
from pathlib import Path

if not __package__:  # run as `python CHECKOUT/tune`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from pipelines import command_line

try:
    from objgan.config import STAGES
    from objgan.errors import nearest, unknown
    from pipelines.cli.options import Options, log_format
    from pipelines.runtime import console
    from pipelines.runtime.exit_codes import EPILOG, run_command
    from tune.cli.arguments import ShowOptions, SpaceOptions, SweepOptions
except ModuleNotFoundError as error:
    command_line.stop_without(error)

COMMANDS: dict[str, type[Options]] = {"sweep": SweepOptions, "show": ShowOptions, "space": SpaceOptions}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words.pop(0) if words and words[0] in ("show", "space") else "sweep"
    options = parse(name, words)
    form = log_format(options) if name == "sweep" else "text"
    console.choose(form, getattr(options, "resume", None) or getattr(options, "run", None))
    long = name == "sweep" and not options.dry_run
    return run_command(lambda: _run(name, options), "sweep" if long else None)


def parse(name: str, words: Sequence[str]) -> Any:
    """The options of a command, of the class that COMMANDS names."""
    command = parser(name)
    options = command_line.read_options(COMMANDS[name], command.parse_args(words))
    if isinstance(options, SweepOptions):
        _check_words(command, options)
    return options


def parser(name: str) -> argparse.ArgumentParser:
    """The options of a command."""
    made = command_line.Parser(prog="python -m tune" if name == "sweep" else f"python -m tune {name}")
    command_line.add_options(made, COMMANDS[name], EPILOG)
    return made


def _run(name: str, options: Any) -> None:
    # A sweep imports torch, Ray and MLflow: --help, a typing error and a look should not wait for them.
    module = importlib.import_module("tune.cli.commands" if name == "sweep" else "tune.cli.show")
    command: Callable[[Any], None] = getattr(module, name)
    command(options)


def _check_words(command: argparse.ArgumentParser, options: SweepOptions) -> None:
    names = (*STAGES, "judge", "show", "space")
    if options.stages and nearest(options.stages[0], names) in ("show", "space"):
        command.error(str(unknown("stage or command", options.stages[0], names)))
    if options.resume is None and not options.stages:
        command.error("give a STAGE, or --resume RUN")
    if options.resume is not None and options.stages:
        command.error("--resume continues the stages of its sweep: leave out STAGE")


if __name__ == "__main__":
    sys.exit(main())
