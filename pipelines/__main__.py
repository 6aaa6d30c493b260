"""`python -m pipelines COMMAND`: the one parser. Options are in `pipelines.cli.options`, commands beside them."""

import sys
from pathlib import Path

if not __package__:  # run as `python CHECKOUT/pipelines`: modules of this folder would hide those of the library
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from pipelines import command_line

try:
    from pipelines.cli import options
    from pipelines.runtime import console
    from pipelines.runtime.exit_codes import EPILOG, run_command
except ModuleNotFoundError as error:
    command_line.stop_without(error)

_DESCRIPTION = "Prepare data, train the stages of a text-to-image model on Ray, evaluate, generate and register it."
# Command -> the class of its options, and the module in which a function of its name does the work.
COMMANDS: dict[str, tuple[type[options.Options], str]] = {
    "sample": (options.SampleOptions, "cli.commands"),
    "prepare": (options.PrepareOptions, "cli.commands"),
    "verify": (options.VerifyOptions, "cli.datasets"),
    "inspect": (options.InspectOptions, "cli.datasets"),
    "train": (options.TrainOptions, "cli.commands"),
    "judges": (options.JudgesOptions, "cli.commands"),
    "run": (options.RunOptions, "cli.commands"),
    "demo": (options.DemoOptions, "cli.commands"),
    "evaluate": (options.EvaluateOptions, "cli.commands"),
    "generate": (options.GenerateOptions, "cli.generate"),
    "studio": (options.StudioOptions, "cli.studio"),
    "register": (options.RegisterOptions, "cli.commands"),
    "promote": (options.PromoteOptions, "cli.promote"),
    "runs": (options.RunsOptions, "cli.runs"),
    "check-mlflow": (options.CheckMlflowOptions, "cli.runs"),
    "settings": (options.ShowSettingsOptions, "cli.commands"),
    "explain": (options.ExplainOptions, "cli.explain"),
}
_LONG = {"demo", "run", "prepare", "train", "evaluate", "judges", "generate", "promote"}
_PRINTS_NO_LOG = {"runs", "settings", "explain"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    command, given = parse(arguments)
    run = getattr(given, "run", None) or getattr(given, "out", None)
    form = "text" if command in _PRINTS_NO_LOG else options.log_format(given)
    console.choose(form, run and Path(run).name, aside=getattr(given, "json", False))  # stdout has the JSON
    long = command in _LONG and not getattr(given, "dry_run", False)
    long = long and getattr(given, "makes_shards", True)
    return run_command(lambda: _run_command(command, given), command if long else None)


def parse(arguments: Sequence[str] | None = None) -> tuple[str, Any]:
    """The command and its options, of the class that COMMANDS names."""
    namespace = parser().parse_args(arguments)
    return namespace.command, command_line.read_options(COMMANDS[namespace.command][0], namespace)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    return command_line.commands_parser("python -m pipelines", _DESCRIPTION, EPILOG, COMMANDS)


def _run_command(command: str, given: options.Options) -> None:
    # Most commands import torch, Ray and MLflow: --help, a typing error and a look should not wait for them.
    module = importlib.import_module(f"pipelines.{COMMANDS[command][1]}")
    action: Callable[[options.Options], None] = getattr(module, command.replace("-", "_"))
    action(given)


if __name__ == "__main__":
    sys.exit(main())
