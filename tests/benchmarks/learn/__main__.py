"""`python -m tests.benchmarks.learn`: does it learn? Against baselines, with seeds, time and intervals.

Finished rows are kept under `--out`; the same command goes on, also in the middle of a training run.
`python -m tests.benchmarks.learn page` makes docs/results.md and its pictures from what there is.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from objgan.errors import InputError
from objgan.files import write_atomically
from tests.benchmarks.learn.rows import Log, Options, Section, load_rows, row_path, save_row

HERE = Path(__file__).resolve().parent
SECTIONS = (
    *("real_boxes", "stated_prompts", "real_masks", "encoders", "box_discriminator", "sample_images", "ablation"),
    "speed_designs",
)
RESULTS = HERE.parent / "RESULTS.md"
DEFAULT_OUT = Path("runs/learn")


def section(name: str) -> Section:
    """The module of a section."""
    return cast(Section, importlib.import_module(f"tests.benchmarks.learn.{name}"))


def work(names: Sequence[str], options: Options, until: float, log: Log) -> bool:
    """Do the cells that have no row yet; False if time ran out first (a begun cell is finished)."""
    for name in names:
        for cell in section(name).cells(options):
            if row_path(options.out, name, cell.key).exists():
                continue
            if time.monotonic() >= until:
                log(f"time is up before {name}/{cell.key}; the same command goes on")
                return False
            log(f"{name}/{cell.key}")
            row = cell.run(options.out / name / cell.key, log)
            save_row(options.out, name, cell.key, row)
    return True


def render(out: Path, before: str = "") -> str:
    """RESULTS.md from the rows that there are and from the notes on what was tried.

    A section without rows under `out` stays as it was in the page `before`: rows need not all be on one machine. So do
    the sections at the end that others write.
    """
    old = {text.split("\n", 1)[0]: text for text in before.split("\n## ")[1:]}
    parts = ["# Does it learn?", "", "Made by `make bench-learn`. Intervals are 95 % bootstrap intervals.", ""]
    for name in SECTIONS:
        module, rows = section(name), load_rows(out, name)
        if not rows and module.TITLE in old:
            parts.append(f"## {old[module.TITLE].rstrip()}\n")
            continue
        parts += [f"## {module.TITLE}", "", module.table(rows) if rows else "Not measured yet.", ""]
        tried = HERE / f"tried_{name}.md"
        if tried.exists():
            parts += ["### What was tried", "", tried.read_text().strip(), ""]
    ours = {section(name).TITLE for name in SECTIONS}
    parts += [f"## {text.rstrip()}\n" for title, text in old.items() if title not in ours]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, keep, render."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.learn", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("measure", "page", "table"), default="measure")
    parser.add_argument("--only", action="append", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--minutes", type=float, default=float("inf"), metavar="M", help="begin no cell after M")
    parser.add_argument("--run-minutes", type=float, metavar="M", help="training minutes of a time-limited run")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="runs side by side, one thread each")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="(default: %(default)s)")
    parser.add_argument(
        "--coco", type=Path, default=Path("../shared/coco"), metavar="DIR", help="(default: %(default)s)"
    )
    asked = parser.parse_args(arguments)
    options = Options(asked.out, asked.seeds, asked.run_minutes, asked.parallel, asked.coco)
    try:
        if asked.what == "page":
            from tests.benchmarks.learn.page import make_page

            make_page(options, _say)
            return 0
        if asked.what == "measure":
            work(asked.only or SECTIONS, options, time.monotonic() + 60 * asked.minutes, _say)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # Trials with rows of their own leave the published table alone.
    path = RESULTS if options.out == DEFAULT_OUT else options.out / RESULTS.name
    text = render(options.out, path.read_text() if path.exists() else "")
    write_atomically(path, text)
    print(text)
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
