"""`python -m tune STAGE...`: a sweep over the settings of one or more stages.

What is done is in `tune.cli.commands`.
"""

import sys
from pathlib import Path

if not __package__:  # run as `python CHECKOUT/tune`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import importlib
import re
from collections.abc import Callable, Sequence

from pipelines import command_line

try:
    from objgan.config import STAGES
    from objgan.errors import nearest, unknown
    from pipelines.cli import options as cli_options
    from pipelines.runtime import console
    from pipelines.runtime.exit_codes import EPILOG, run_command
except ModuleNotFoundError as error:
    command_line.stop_without(error)

_OTHERS = """\
other commands:
  python -m tune space STAGE...   the default search space as YAML, to change and give back with --space
  python -m tune show RUN         trials, curves and the best settings of a sweep, running or not

"""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words and words[0] in ("show", "space") else "sweep"
    parser = {"show": _show, "space": _space, "sweep": sweep_parser}[name]()
    options = parser.parse_args(words if name == "sweep" else words[1:])
    if name == "sweep":
        _check_words(parser, options)
        console.choose(options.log_format, options.resume or options.run)
    long = name == "sweep" and not options.dry_run
    return run_command(lambda: _run(name, options), "sweep" if long else None)


def _run(name: str, options: argparse.Namespace) -> None:
    # A sweep imports torch, Ray and MLflow: --help, a typing error and a look should not wait for them.
    module = importlib.import_module("tune.cli.commands" if name == "sweep" else "tune.cli.show")
    command: Callable[[argparse.Namespace], None] = getattr(module, name)
    command(options)


def sweep_parser() -> argparse.ArgumentParser:
    """All options of a sweep."""
    parser = command_line.Parser(
        prog="python -m tune",
        description="Search the settings of one or more stages: every trial is an ordinary training run.",
        epilog=_OTHERS + EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "stages",
        nargs="*",
        metavar="STAGE",
        help="encoders, boxes, shapes, images, judge; several are trained in this order, the last one is measured",
    )
    _what(parser)
    _search(parser)
    _budget(parser)
    _where(parser)
    _afterwards(parser)
    return parser


def _what(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is trained")
    cli_options.add_data(group)
    cli_options.add_settings(group, "boxes.training.steps=300; a trial's settings go over all of them")
    group.add_argument(
        "--encoders",
        type=command_line.local_path,
        metavar="DIR",
        help="checkpoint of stage encoders, for stages that are built on it",
    )


def _search(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the search")
    group.add_argument(
        "--space", type=command_line.local_path, metavar="FILE", help="YAML search space (default: the stages' own)"
    )
    group.add_argument(
        "--search",
        choices=("random", "optuna"),
        default="random",
        help="how settings are chosen: at random, or by Optuna's model of what is known (default: %(default)s)",
    )
    group.add_argument(
        "--scheduler",
        choices=("asha", "median", "pbt", "none"),
        default="asha",
        help="which trials end early: asha (successive halving), median (worse than the median), none; pbt ends none, "
        "but lets bad ones go on from good ones' weights with changed settings (default: %(default)s)",
    )
    group.add_argument("--metric", metavar="NAME", help="held-out measure (default: the last stage's objective)")
    group.add_argument("--mode", choices=("min", "max"), help="whether less or more of it is better (default: known)")
    group.add_argument("--seed", type=cli_options.seed, default=0, metavar="S", help="of the search (default: 0)")


def _budget(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the budget: the sweep ends at the first of these")
    group.add_argument("--trials", type=cli_options.count, metavar="N", help="settings to try (default: 16)")
    group.add_argument(
        "--max-concurrent",
        type=cli_options.count,
        metavar="M",
        help="trials at once (default: what there is room for)",
    )
    group.add_argument("--time-budget", type=duration, metavar="TIME", help="90s, 15m, 2h or 1d, of the whole sweep")
    group.add_argument(
        "--gpu-hours", type=_hours, metavar="H", help="GPUs x hours over all trials (CPUs, where there is no GPU)"
    )

    group.add_argument(
        "--trial-retries",
        type=_retries,
        metavar="N",
        help="how often a trial runs again after an infrastructure failure: workers that did not start, a lost node, "
        "storage away (default: 2); one that fails more often is left for --resume",
    )


def _where(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where it lives and runs")
    cli_options.add_log_format(group)
    group.add_argument("--run", metavar="ID", help="the sweep is STORAGE/ID (default: sweep-STAGE)")
    group.add_argument(
        "--storage",
        type=command_line.location_text,
        default="runs",
        metavar="LOCATION",
        help="folder, mount or URI (s3://, gs://); all machines must see it (default: %(default)s)",
    )
    group.add_argument(
        "--resume", metavar="RUN", help="continue a sweep with the options it began with; its budget may be raised"
    )
    group.add_argument(
        "--workers", type=cli_options.count, metavar="N", help="training workers of each trial (default: 1)"
    )
    group.add_argument("--address", metavar="URL", help="Ray cluster (default: Ray on this machine alone)")
    group.add_argument(
        "--dry-run", action="store_true", help="print space, trials, cost and whether there is room, and stop"
    )


def _afterwards(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with the best trial")
    group.add_argument(
        "--confirm",
        type=_confirm,
        default=0,
        metavar="N",
        help="train its settings and the recipe's with N other seeds each, and say whether they differ (default: 0)",
    )
    group.add_argument(
        "--export-recipe", type=command_line.local_path, metavar="FILE", help="write all its settings, for --config"
    )
    group.add_argument(
        "--register",
        metavar="NAME",
        help="register it as challenger: a whole model NAME, where all stages are there, else NAME-STAGE",
    )
    group.add_argument("--rest", metavar="RUN", help="take the stages that the sweep does not train from STORAGE/RUN")


def _show() -> argparse.ArgumentParser:
    parser = command_line.Parser(prog="python -m tune show", description="A sweep's trials and what came of them.")
    parser.add_argument("run", metavar="RUN", help="the sweep's ID")
    parser.add_argument(
        "--storage",
        type=command_line.location_text,
        default="runs",
        metavar="LOCATION",
        help="where it lives (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--export-recipe", type=command_line.local_path, metavar="FILE", help="write the best settings, for --config"
    )
    parser.add_argument("--pictures", action="store_true", help="draw them (again), as the sweep does at its end")
    return parser


def _space() -> argparse.ArgumentParser:
    parser = command_line.Parser(prog="python -m tune space", description="A default search space as YAML.")
    parser.add_argument("stages", nargs="+", metavar="STAGE", help="encoders, boxes, shapes, images, judge")
    parser.add_argument(
        "--out", type=command_line.local_path, metavar="FILE", help="where to write it (default: print it)"
    )
    return parser


def _check_words(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    commands = (*STAGES, "judge", "show", "space")
    if options.stages and nearest(options.stages[0], commands) in ("show", "space"):
        parser.error(str(unknown("stage or command", options.stages[0], commands)))
    if options.resume is None and not options.stages:
        parser.error("say which STAGE, or --resume RUN")
    if options.resume is not None and options.stages:
        parser.error("--resume goes on with the stages of its sweep: leave STAGE out")


def duration(text: str) -> float:
    """`90s`, `15m`, `2h`, `1d` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip().lower())
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time: write 90s, 15m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours") from None
    if not 0 < hours < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} hours are no budget")
    return hours


def _retries(text: str) -> int:
    return cli_options.whole(text, 0)


def _confirm(text: str) -> int:
    if (seeds := cli_options.whole(text, 0)) == 1:
        raise argparse.ArgumentTypeError("one seed has no interval: use 2 or more")
    return seeds


if __name__ == "__main__":
    sys.exit(main())
