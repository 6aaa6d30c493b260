"""`python -m pipelines COMMAND`: the one parser. What a command does is in `pipelines.cli.commands`."""

import sys
from pathlib import Path

if not __package__:  # run as `python CHECKOUT/pipelines`: modules of this folder would hide those of the library
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import importlib
from collections.abc import Callable, Sequence

from pipelines import command_line

try:
    from pipelines.cli import options as cli_options
    from pipelines.runtime import console
    from pipelines.runtime.exit_codes import EPILOG, run_command
except ModuleNotFoundError as error:
    command_line.stop_without(error)

_LIGHT = {
    "explain": "cli.explain",
    "verify": "cli.datasets",
    "inspect": "cli.datasets",
    "runs": "cli.runs",
    "check-mlflow": "cli.runs",
}
_LONG = {"demo", "run", "prepare", "train", "evaluate", "judges"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    options = parser().parse_args(arguments)
    run = getattr(options, "run", None) or getattr(options, "out", None)
    # What these two print is no log.
    console.choose(
        "text" if options.command in ("runs", "settings", "explain") else options.log_format, run and Path(run).name
    )
    long = options.command in _LONG and not getattr(options, "dry_run", False)
    return run_command(lambda: _run_command(options), options.command if long else None)


def _run_command(options: argparse.Namespace) -> None:
    # Most commands import torch, Ray and MLflow: --help, a typing error and a look should not wait for them.
    commands = importlib.import_module(f"pipelines.{_LIGHT.get(options.command, 'cli.commands')}")
    command: Callable[[argparse.Namespace], None] = getattr(commands, options.command.replace("-", "_"))
    command(options)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = command_line.Parser(prog="python -m pipelines", description=__doc__, epilog=EPILOG)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, epilog=EPILOG)
        cli_options.add_log_format(command)
        return command

    _demo(add("demo", "Sample data to a registered model, and pictures for four captions."))
    _run(add("run", "All steps: prepare, train the four stages, assemble, evaluate, register."))
    _sample(add("sample", "Draw the embedded data set in COCO format."))
    _prepare(add("prepare", "Turn COCO images, instances and captions into Arrow shards."))
    cli_options.add_verify(add("verify", "Read prepared data again, all of it, and tell everything that is wrong."))
    cli_options.add_inspect(add("inspect", "What prepared data hold: a table, and a page with plots and samples."))
    _train(add("train", "Train one stage with Ray Train, or go on with a run."))
    _evaluate(add("evaluate", "Measure a finished model on held-out data."))
    _judges(add("judges", "Train what evaluate judges images by, on true images alone."))
    _register(add("register", "Put a finished model into the MLflow registry."))
    _generate(add("generate", "Caption to boxes, shapes and image, each of them written out."))
    _explain(add("explain", "Explain settings: type, default, description and the values of each recipe."))
    _show_settings(add("settings", "Print the settings that a command has with these options, and check no more."))
    _check_mlflow(add("check-mlflow", "See that MLflow answers, before hours of work depend on it."))
    _runs(add("runs", "What the runs are doing; tidy up after killed ones; send what MLflow missed."))
    return top


def _demo(command: argparse.ArgumentParser) -> None:
    _out(command, "runs/demo")
    command.add_argument(
        "--images", type=cli_options.count, default=None, metavar="N", help="pictures to draw and learn from"
    )
    _settings(command)
    _wait(command)
    _cluster(command)


def _run(command: argparse.ArgumentParser) -> None:
    cli_options.add_source(command)
    _out(command, "runs/run")
    command.add_argument("--name", default="objgan", help="registered model (default: %(default)s)")
    command.add_argument("--alias", default="challenger", help="alias of the new version (default: %(default)s)")
    _judged(command)
    _settings(command)
    _wait(command)
    _cluster(command)


def _sample(command: argparse.ArgumentParser) -> None:
    _out(command, "data/sample-coco")
    command.add_argument(
        "--images", type=cli_options.count, default=2000, metavar="N", help="pictures (default: %(default)s)"
    )
    command.add_argument(
        "--seed", type=cli_options.seed, default=0, metavar="S", help="same seed, same bytes (default: 0)"
    )
    command.add_argument("--dry-run", action="store_true", help="say what would be done, and stop")


def _prepare(command: argparse.ArgumentParser) -> None:
    cli_options.add_source(command)
    cli_options.add_prepare(command)
    _out(command, "data/prepared")
    _settings(command)
    _wait(command)
    _cluster(command, workers=False)


def _train(command: argparse.ArgumentParser) -> None:
    command.add_argument("stage", metavar="STAGE", help="encoders, boxes, shapes, images, or judge")
    cli_options.add_data(command)
    command.add_argument(
        "--run",
        default="default",
        metavar="ID",
        help="runs/ID/STAGE; the same ID goes on with it (default: %(default)s)",
    )
    command.add_argument(
        "--encoders",
        type=command_line.location,
        metavar="LOCATION",
        help="checkpoint of stage encoders: folder or URI (default: that of the same run)",
    )
    command.add_argument(
        "--storage",
        type=command_line.location_text,
        default="runs",
        metavar="LOCATION",
        help="folder, mount or URI (s3://, gs://) under which the run lives as ID/STAGE (default: %(default)s)",
    )
    command.add_argument(
        "--init-from",
        type=command_line.location,
        metavar="LOCATION",
        help="start a new run from the weights of this checkpoint of the same stage: folder or URI",
    )
    _wait(command)
    command.add_argument(
        "--replay",
        type=command_line.location,
        metavar="LOCATION",
        help="re-run a skipped training step and report where it became non-finite",
    )
    command.add_argument(
        "--profile", action="store_true", help="a few steps in this process: a trace, and the ten largest costs"
    )
    _settings(command)
    _cluster(command)


def _evaluate(command: argparse.ArgumentParser) -> None:
    _model(command)
    cli_options.add_data(command)
    command.add_argument(
        "--protocol",
        default="test",
        metavar="NAME",
        help="which images, and how many: test, quick, validation, 1k or 30k (default: %(default)s)",
    )
    _judged(command)
    command.add_argument(
        "--inception", type=command_line.local_path, metavar="FILE", help="Inception weights, for FID, KID and IS"
    )
    command.add_argument(
        "--detector", type=command_line.local_path, metavar="FILE", help="weights of a COCO detector, for SOA"
    )
    command.add_argument("--seed", type=cli_options.seed, default=0, metavar="S", help="(default: 0)")
    _out(command, "runs/evaluation")
    _wait(command)
    _cluster(command)


def _judges(command: argparse.ArgumentParser) -> None:
    cli_options.add_data(command)
    _out(command, "runs/judges")
    _settings(command)
    _wait(command)
    _cluster(command)


def _register(command: argparse.ArgumentParser) -> None:
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=command_line.model, metavar="LOCATION", help="a model folder, or the URI of one")
    what.add_argument("--run", metavar="ID", help="the four stages trained under runs/ID")
    command.add_argument("--name", default="objgan", help="registered model (default: %(default)s)")
    command.add_argument("--alias", default="challenger", help="alias of the new version (default: %(default)s)")


def _generate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "caption", nargs="?", metavar="CAPTION", help='for example "two red kites above a boat on the sea"'
    )
    command.add_argument(
        "--captions", type=command_line.local_path, metavar="FILE", help="a text file, one caption a line"
    )
    _model(command)
    _out(command, "runs/generated")
    command.add_argument("--n", type=cli_options.count, default=1, metavar="N", help="pictures a caption (default: 1)")
    command.add_argument(
        "--seed", type=cli_options.seed, default=0, metavar="S", help="same seed, same bytes (default: 0)"
    )
    command.add_argument(
        "--layout",
        type=command_line.local_path,
        metavar="FILE",
        help="boxes (and shapes) to use instead of generated ones: a .json that generate wrote, edited or not",
    )


def _check_mlflow(command: argparse.ArgumentParser) -> None:
    command.add_argument("--run", metavar="ID", help="a run that began before goes on without MLflow")
    command.add_argument(
        "--storage",
        type=command_line.location_text,
        default="runs",
        metavar="LOCATION",
        help="folder, mount or URI under which the run lives (default: %(default)s)",
    )


def _runs(command: argparse.ArgumentParser) -> None:
    what = "a table (default); all about one; remove leftovers of killed writers; send a run's backlog"
    command.add_argument("action", nargs="?", choices=("list", "status", "gc", "send"), default="list", help=what)
    command.add_argument("run", nargs="?", metavar="RUN", help="ID or ID/STAGE, for status and send")
    command.add_argument(
        "--storage",
        type=command_line.location_text,
        default="runs",
        metavar="LOCATION",
        help="where the runs are (default: runs)",
    )
    command.add_argument("--json", action="store_true", help="for programs (list, status)")
    command.add_argument("--dry-run", action="store_true", help="say what gc would do, and do nothing")


def _explain(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", nargs="?", default="", metavar="NAME", help="a setting or a section (default: all)")
    command.add_argument("--markdown", action="store_true", help="print the page docs/settings.md")


def _show_settings(command: argparse.ArgumentParser) -> None:
    cli_options.add_settings(command, "images.training.generator_lr=1e-4")
    _workers(command)


def _settings(command: argparse.ArgumentParser) -> None:
    cli_options.add_settings(command, "images.training.generator_lr=1e-4")
    command.add_argument(
        "--dry-run", action="store_true", help="print the settings, check all that the command would check, and stop"
    )


def _cluster(command: argparse.ArgumentParser, workers: bool = True) -> None:
    command.add_argument("--address", metavar="URL", help="Ray cluster (default: Ray on this machine alone)")
    if workers:
        _workers(command)


def _workers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        type=cli_options.workers,
        metavar="N",
        help="training workers; 1-4: as many as the cluster has, from 1 to 4, at any time",
    )


def _wait(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--wait", type=float, metavar="SECONDS", help="wait up to SECONDS for another driver to release the run"
    )


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model",
        type=command_line.model,
        default="models:/objgan@challenger",
        metavar="LOCATION",
        help="a model: folder, URI (s3://, gs://), models:/NAME@ALIAS or runs:/ID/PATH (default: %(default)s)",
    )


def _out(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "--out",
        type=command_line.local_path,
        default=Path(default),
        metavar="DIR",
        help="folder on this machine or a mount (default: %(default)s)",
    )


def _judged(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--judges",
        type=command_line.location,
        metavar="LOCATION",
        help="output folder of `judges`, or its URI; without it, image metrics are skipped",
    )


if __name__ == "__main__":
    sys.exit(main())
