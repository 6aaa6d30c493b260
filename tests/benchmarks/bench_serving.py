"""The registered model in Python: seconds to the first picture, and pictures a second.

python -m tests.benchmarks.run --only serving                           a model without training
python -m tests.benchmarks.bench_serving --tracking URI --model URI     any version
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlflow.pyfunc

from pipelines.models.registry import register
from tests.benchmarks.measure import Measurement, time_calls
from tests.benchmarks.run import report
from tests.tools.untrained import write_model

BATCH = 16
CAPTION = "a kite above a boat on the sea"
FIRST = "import sys, mlflow; mlflow.pyfunc.load_model(sys.argv[1]).predict(sys.argv[2])"


def bench_serving(scratch: Path) -> Iterator[Measurement]:
    """A model without training, which takes as long as a trained one of its recipe."""
    tracking = f"sqlite:///{scratch / 'mlflow.db'}"
    yield from measure(register(write_model(scratch / "model"), tracking_uri=tracking).uri, tracking, CAPTION)


def measure(uri: str, tracking: str, caption: str) -> Iterator[Measurement]:
    """In a clean process, and in this one."""
    os.environ["MLFLOW_TRACKING_URI"] = tracking
    command = [sys.executable, "-I", "-c", FIRST, uri, caption]

    def first() -> None:
        subprocess.run(command, check=True, capture_output=True)

    yield time_calls("first picture in a clean process", first, 1, "pictures", 3, 1)
    model = mlflow.pyfunc.load_model(uri)
    yield time_calls("predict, one caption", lambda: model.predict(caption), 1, "pictures", 50)
    batch = [caption] * BATCH
    yield time_calls(f"predict, {BATCH} captions", lambda: model.predict(batch), BATCH, "pictures", 5)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, metavar="URI")
    parser.add_argument("--tracking", required=True, metavar="URI", help="MLflow's store or server")
    parser.add_argument("--caption", default=CAPTION, metavar="TEXT")
    options = parser.parse_args(arguments)
    report(measure(options.model, options.tracking, options.caption), Path("runs/benchmarks"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
