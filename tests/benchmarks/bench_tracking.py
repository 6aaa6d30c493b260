"""MLflow with eight trials that write at once: nothing is lost, and how long it takes on sqlite and on PostgreSQL.

Each trial is a process with the tracker of a training worker. PostgreSQL needs its programs and the driver:

```
pip install 'psycopg[binary]'
apt-get download postgresql-15 && dpkg-deb -x postgresql-15_*.deb /tmp/postgresql
PATH=/tmp/postgresql/usr/lib/postgresql/15/bin:$PATH python -m tests.benchmarks.run --only tracking
```
"""

import contextlib
import importlib.util
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from objgan.config import flatten
from pipelines.recipes import resolve
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_client import mlflow_client, sqlite_uri
from pipelines.tracking.tracker import prepare_store, send_queued, tracked_run
from tests.benchmarks.measure import Measurement
from tests.tools.ports import free_port

WRITERS, INTERVALS, METRICS, CHECKPOINT = 8, 200, 15, 20
"""Trials; log intervals of each, with this many metrics; intervals between checkpoints, which flush the tracker."""
_UNLIKELY_S = 300.0


def bench_tracking(scratch: Path) -> Iterator[Measurement]:
    """Metrics of eight trials, as fast as they are logged; without PostgreSQL's programs, sqlite alone."""
    yield _measure("sqlite", sqlite_uri(scratch / "mlflow.db"), scratch / "sqlite")
    with _postgresql() as uri:
        if uri is None:
            print("no initdb in PATH, or no psycopg: PostgreSQL is not measured")
        else:
            yield _measure("postgresql", uri, scratch / "postgresql")


def _measure(name: str, uri: str, folder: Path) -> Measurement:
    prepare_store(uri)
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(WRITERS, timeout=_UNLIKELY_S)
    with ProcessPoolExecutor(WRITERS, context, initializer=_wait_at, initargs=(together,)) as pool:
        found = list(pool.map(_write, range(WRITERS), [uri] * WRITERS, [folder] * WRITERS))
    lost, twice = map(sum, zip(*(_check(uri, run) for run, _, _ in found), strict=True))
    seconds, waited = sorted(taken for _, taken, _ in found), sorted(waited for _, _, waited in found)
    note = f"{lost} values lost, {twice} twice; {INTERVALS // CHECKPOINT} checkpoints wait {waited[-1]:.1f} s in all"
    values = WRITERS * INTERVALS * METRICS
    return Measurement(f"tracking.{name}, {WRITERS} trials", seconds[-1], seconds[0], 1, values, "values", note)


_barriers: list[Any] = []


def _wait_at(barrier: Any) -> None:
    _barriers.append(barrier)


def _write(number: int, uri: str, folder: Path) -> tuple[str, float, float]:
    """One trial: its run, seconds until MLflow has everything, seconds in which the trial waited."""
    settings = flatten(resolve("tiny", None, ()))
    mlflow_client(uri).search_experiments()  # imports, and opens the store
    _barriers[0].wait()
    begin, waited = time.perf_counter(), 0.0
    storage = Storage(folder / str(number))
    with tracked_run(uri, f"trial-{number}", storage, {}) as tracking:
        tracker = tracking.tracker()
        tracker.parameters(settings)
        for step in range(INTERVALS):
            tracker.metrics({f"loss/{metric}": _value(step, metric) for metric in range(METRICS)}, step)
            if step % CHECKPOINT == CHECKPOINT - 1:
                flushed = time.perf_counter()
                tracker.flush()
                waited += time.perf_counter() - flushed
        tracker.close(_UNLIKELY_S)
    while send_queued(tracking, _UNLIKELY_S) is not None:
        assert time.perf_counter() - begin < _UNLIKELY_S, "MLflow does not take what is queued"
    return str(tracking.run), time.perf_counter() - begin, waited


def _value(step: int, metric: int) -> float:
    return step + metric / 100


def _check(uri: str, run: str) -> tuple[int, int]:
    """Values that the run lacks, and values that it has more than once."""
    client, lost, twice = mlflow_client(uri), 0, 0
    for metric in range(METRICS):
        history = [(point.step, point.value) for point in client.get_metric_history(run, f"loss/{metric}")]
        lost += len({(step, _value(step, metric)) for step in range(INTERVALS)} - set(history))
        twice += len(history) - len(set(history))
    return lost, twice


@contextlib.contextmanager
def _postgresql() -> Iterator[str | None]:
    """The URI of a server on loopback, for a block; None: its programs or the driver are missing."""
    initdb = shutil.which("initdb")
    if initdb is None or importlib.util.find_spec("psycopg") is None:
        yield None
        return
    # Its programs refuse to run as root.
    user: Any = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="objgan-postgresql-") as folder:
        if user:
            shutil.chown(folder, user["user"])
        data, programs = Path(folder) / "data", Path(initdb).resolve().parent
        quiet: Any = {"stdout": subprocess.DEVNULL, "cwd": folder, **user}
        begin: list[Any] = [programs / "initdb", "--auth=trust", "--username=mlflow", "-D", data]
        subprocess.run(begin, check=True, **quiet)
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder}"
        control: list[Any] = [programs / "pg_ctl", "-D", data, "-w", "-l", data / "log"]
        subprocess.run([*control, "-o", options, "start"], check=True, **quiet)
        try:
            yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, **quiet)
