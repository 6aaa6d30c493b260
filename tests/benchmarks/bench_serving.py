"""The registered model: the first picture, pictures a second, REST under 16 clients, memory.

python -m tests.benchmarks.run --only serving                     a model without training, 10 s of REST
python -m tests.benchmarks.bench_serving --seconds 60 [--tracking URI --model URI]
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import psutil

from pipelines.models.registry import register
from tests.benchmarks.measure import Measurement, time_calls
from tests.benchmarks.run import report
from tests.tools.ports import free_port
from tests.tools.untrained import write_model

CLIENTS, BATCH = 16, 16
CAPTION = "a kite above a boat on the sea"
FIRST = "import sys, mlflow; mlflow.pyfunc.load_model(sys.argv[1]).predict(sys.argv[2])"


def bench_serving(scratch: Path) -> Iterator[Measurement]:
    """A model without training, which takes as long as a trained one of its recipe."""
    tracking = f"sqlite:///{scratch / 'mlflow.db'}"
    yield from measure(register(write_model(scratch / "model"), tracking_uri=tracking).uri, tracking, CAPTION, 10)


def measure(uri: str, tracking: str, caption: str, seconds: float) -> Iterator[Measurement]:
    """In a clean process, in this one, and over REST for `seconds`; p50 and p99 of REST also as ratios to this one."""
    os.environ["MLFLOW_TRACKING_URI"] = tracking
    command = [sys.executable, "-I", "-c", FIRST, uri, caption]

    def first() -> None:
        subprocess.run(command, check=True, capture_output=True)

    yield time_calls("first picture in a clean process", first, 1, "pictures", 3, 1)
    model = mlflow.pyfunc.load_model(uri)
    single = time_calls("predict, one caption", lambda: model.predict(caption), 1, "pictures", 50)
    yield single
    batch = [caption] * BATCH
    yield time_calls(f"predict, {BATCH} captions", lambda: model.predict(batch), BATCH, "pictures", 5)
    yield rest(uri, caption, seconds, single.seconds)


def rest(uri: str, caption: str, seconds: float, single: float) -> Measurement:
    """`mlflow models serve`, and clients that each send the next request when they have the answer.

    single: seconds of `predict` in process
    """
    with _served(uri) as (port, server):
        _send(port, caption)
        before = _memory(server.pid)
        times, errors = _load(port, caption, seconds)
        after = _memory(server.pid)
    p50, p99 = (float(np.percentile(times, share)) for share in (50, 99))
    rate = len(times) / seconds
    note = (
        f"{rate * single:.2f} x in process; {len(errors)} errors; "
        f"p50 {p50:.3f} s ({p50 / single:.1f} x), p99 {p99:.3f} s ({p99 / single:.1f} x); "
        f"memory {before} MB before, {after} MB after" + "".join(f"; {error}" for error in sorted(set(errors))[:3])
    )
    return Measurement(f"REST, {CLIENTS} clients", seconds, seconds, 1, len(times), "pictures", note)


@contextlib.contextmanager
def _served(uri: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Port and process of a server that answers.

    Raises:
        RuntimeError: it ended, or does not answer; with the end of its log.
    """
    port = free_port()
    options = ["--env-manager", "local", "--model-uri", uri, "--port", str(port)]
    # `mlflow models serve` starts `uvicorn` from PATH, where an environment that is not activated does not have it.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "mlflow", "models", "serve", *options]
        server = subprocess.Popen(command, stderr=log, stdout=log, env={**os.environ, "PATH": path})
        try:
            if not _answers(server, f"http://127.0.0.1:{port}/ping"):
                log.seek(0)
                raise RuntimeError(f"no server (exit code {server.poll()}): {log.read()[-2000:].decode()}")
            yield port, server
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in psutil.Process(server.pid).children(recursive=True):
                    process.terminate()
            server.terminate()
            server.wait(30)


def _load(port: int, caption: str, seconds: float) -> tuple[list[float], list[str]]:
    """Seconds of each request, and the errors of those that failed."""
    times: list[float] = []
    failed: list[str] = []
    end = time.perf_counter() + seconds

    def client() -> None:
        while (begin := time.perf_counter()) < end:
            try:
                _send(port, caption)
                times.append(time.perf_counter() - begin)
            except (OSError, ValueError, KeyError) as error:
                failed.append(str(error))

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, failed


def _send(port: int, caption: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps({"inputs": [caption]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        (row,) = json.load(answer)["predictions"]
        if not row["image_png"]:
            raise ValueError(row["error"])


def _answers(server: subprocess.Popen[bytes], address: str) -> bool:
    end = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return True
        except OSError:
            time.sleep(0.5)
    return False


def _memory(pid: int) -> int:
    """MB of a process and of those that it started."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)]) // 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", metavar="URI", help="with --tracking (default: a model without training)")
    parser.add_argument("--tracking", metavar="URI", help="MLflow's store or server")
    parser.add_argument("--caption", default=CAPTION, metavar="TEXT")
    parser.add_argument("--seconds", type=float, default=60, help="of REST (default: %(default)s)")
    options = parser.parse_args(arguments)
    if (options.model is None) != (options.tracking is None):
        parser.error("give both of --model and --tracking, or neither")
    with tempfile.TemporaryDirectory() as scratch:
        uri, tracking = options.model, options.tracking
        if uri is None:
            tracking = f"sqlite:///{scratch}/mlflow.db"
            uri = register(write_model(Path(scratch) / "model"), tracking_uri=tracking).uri
        report(measure(uri, tracking, options.caption, options.seconds), Path("runs/benchmarks"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
