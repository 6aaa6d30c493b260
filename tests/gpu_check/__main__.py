"""`python -m tests.gpu_check`: do training steps compute on a GPU what they compute on a CPU, and how fast?

Every stage of a recipe, on random batches with random weights: losses and gradients by term in every number type and
memory format and compiled, no wait of the host for the GPU, a checkpoint written while training goes on, the loader
beside the steps, and time, memory and rate of a step; of stage `images` beside the published step.

Needs torch 2.9 or newer, torchvision, numpy, Pillow, safetensors and pydantic alone. On a CPU it checks what a CPU can,
and names what needs a GPU.

Exit code: 0 all checks hold, 1 a check failed, 2 wrong options.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import torch

from objgan.errors import InputError
from objgan.train_state import TrainState
from pipelines.recipes import RECIPES, resolve
from tests.gpu_check import report
from tests.gpu_check.checks import all_checks, on_a_gpu
from tests.gpu_check.drawn import STAGES, Case, Pace, as_it_is
from tests.gpu_check.timing import matrix_rates


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--recipe, --stage and --set may be repeated. A CPU is timed on --samples, a GPU on the recipe's batch.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--recipe", action="append", choices=list(RECIPES), help="(default: paper and small; on a CPU tiny)")
    add("--stage", action="append", choices=STAGES, help="(default: all)")
    add("--quick", action="store_true", help="nothing compiled, and a few steps are timed")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one (default)")
    add("--samples", type=_samples, default=4, metavar="N", help="of a compared batch, from 2 (default: 4)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting over the recipe; needs PyYAML")
    add("--out", type=Path, metavar="FILE", help="JSON (default: runs/gpu_check/TIME.json)")
    return parser


def main(arguments: Sequence[str] | None = None, spoil: Callable[[TrainState], None] = as_it_is) -> int:
    """Check, print, write. `spoil`: changes each state that is made, for tests of this program."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    name = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    try:
        cases = list(_cases(options, device, spoil))
    except InputError as error:
        parser.error(str(error))
    print(f"{report.machine(device)['device']}, torch {torch.__version__}\n{report.HEADER}")
    rates = matrix_rates(device)
    findings = []
    every = (finding for case in cases for finding in all_checks(case, not options.quick, rates))
    for finding in chain(every, on_a_gpu() if device.type == "cpu" else ()):
        print(report.line(finding), flush=True)
        findings.append(finding)
    path = options.out or Path("runs/gpu_check") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    report.write(path, device, findings)
    failed = [finding.name for finding in findings if finding.verdict == "FAILED"]
    print(f"figures: {path}")
    if failed:
        print("\n".join(["failed:", *(f"  {name}" for name in failed)]), file=sys.stderr)
    return 1 if failed else 0


def _cases(options: argparse.Namespace, device: torch.device, spoil: Callable[[TrainState], None]) -> Iterator[Case]:
    gpu = device.type == "cuda"
    if gpu:
        pace = Pace(3, 4, None) if options.quick else Pace(5, 16, None)
    else:
        pace = Pace(1 if options.quick else 3, 1, options.samples)
    for recipe in options.recipe or (["paper", "small"] if gpu else ["tiny"]):
        config = resolve(recipe, None, options.set)
        for stage in options.stage or STAGES:
            yield Case(recipe, stage, config, device, options.samples, pace, spoil)


def _samples(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 2 on")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
