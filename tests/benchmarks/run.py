"""`python -m tests.benchmarks.run [--only WORD]`: every benchmark, as a table and as JSON under runs/benchmarks.

A benchmark is a function `bench_*(scratch: Path) -> Iterable[Measurement]` in a module `bench_*.py` of this folder.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from objgan.files import write_atomically
from tests.benchmarks.measure import Measurement

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "ray", "mlflow")
Benchmark = Callable[[Path], Iterable[Measurement]]


def benchmarks(word: str = "") -> Iterator[tuple[str, Benchmark]]:
    """(name, function) of the benchmarks whose name contains `word`."""
    for path in sorted(HERE.glob("bench_*.py")):
        module = importlib.import_module(f"tests.benchmarks.{path.stem}")
        for name, function in vars(module).items():
            full = f"{path.stem.removeprefix('bench_')}.{name.removeprefix('bench_')}"
            if name.startswith("bench_") and callable(function) and word in full:
                yield full, function


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    return {
        "commit": commit.stdout.strip() or None,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "packages": {name: version(name) for name in PACKAGES},
    }


def row(measured: Measurement) -> str:
    """One line of the table."""
    rate = f"{measured.rate:,.1f} {measured.unit}/s"
    figures = f"{measured.name:<44}{1e3 * measured.seconds:>12.2f}{1e3 * measured.fastest:>12.2f}{rate:>24}"
    return f"{figures}  {measured.note}".rstrip()


def report(measurements: Iterable[Measurement], out: Path) -> None:
    """Print each as it comes, and write all into a file in `out`."""
    print(f"{'benchmark':<44}{'median ms':>12}{'fastest ms':>12}{'rate':>24}")
    measured: list[Measurement] = []
    for one in measurements:
        print(row(one), flush=True)
        measured.append(one)
    begun = datetime.now(UTC)
    figures = {"at": begun.isoformat(), **machine(), "measurements": [asdict(one) for one in measured]}
    path = out / f"{begun:%Y%m%d-%H%M%S}.json"
    write_atomically(path, json.dumps(figures, indent=1) + "\n")
    print(f"figures: {path}")


def _all(chosen: Iterable[tuple[str, Benchmark]]) -> Iterator[Measurement]:
    for _, function in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            yield from function(Path(scratch))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; 2 if there is no such benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="WORD", help="benchmarks whose name contains WORD")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmarks"), metavar="DIR", help="(default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    chosen = list(benchmarks(options.only))
    if not chosen:
        parser.error(f"no benchmark's name contains {options.only!r}")
    report(_all(chosen), options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
