"""SIGTERM to a node of a real cluster, as Kubernetes sends it before a drain, an upgrade or a preemption."""

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cluster.bench import Bench, Jobs
from tests.cluster.local_cluster import LocalCluster, Node, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
DRAIN_S = 60
"""As the manifests set it, but half as long; Ray's default is 30."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with tempfile.TemporaryDirectory(prefix="og") as short:
        environment = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(DRAIN_S), "RAY_JOB_STOP_WAIT_TIME_S": "120"}
        with LocalCluster(Path(short), environment) as cluster:
            yield cluster


def terminate(node: Node) -> None:
    """What a container's first process gets, and no other."""
    os.kill(node.process.pid, signal.SIGTERM)


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.rsplit("_", 1)[-1]) for path in folder.glob("step_*"))


def test_sigterm_to_the_head_leaves_a_checkpoint_and_the_run_resumes(cluster: LocalCluster, bench: Bench) -> None:
    cluster.start(2)
    jobs, folder = Jobs(cluster, bench.folder, {}), bench.run("drained")
    job = jobs.start("drained", *bench.train("drained", steps=100_000, workers=2))
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(job.stdout or ()), daemon=True)
    reader.start()
    wait_until(lambda: bench.step(folder) > 5 or job.poll() is not None, 180, "the job's fifth step")
    assert job.poll() is None, "".join(said)
    assert cluster.head is not None and not checkpoints(folder)
    began = time.monotonic()
    terminate(cluster.head)
    wait_until(lambda: bool(checkpoints(folder)), DRAIN_S, "a checkpoint")
    wait_until(lambda: json.loads((folder / "status.json").read_text())["state"] == "preempted", 30, "the status")
    cluster.head.process.wait(DRAIN_S + 30)
    assert time.monotonic() - began < DRAIN_S + 30
    (step,) = checkpoints(folder)
    assert step > 5
    job.wait(180)
    print("".join(said)[-2500:], job.returncode, time.monotonic() - began)
    cluster.close()
    cluster.workers.clear()
    cluster.start(2)
    again = jobs.start("drained", *bench.train("drained", steps=100_000, workers=2), resume=True, wait=())
    assert again.wait(120) == 0, again.communicate()[0]
    wait_until(lambda: bench.step(folder) > step, 180, "the step after the checkpoint")
    steps = [line["step"] for line in bench.lines(folder) if "values" in line]
    assert len(steps) == len(set(steps))


def test_sigterm_to_a_worker_leaves_a_checkpoint_and_training_continues(cluster: LocalCluster, bench: Bench) -> None:
    cluster.start(2)
    jobs, folder = Jobs(cluster, bench.folder, {}), bench.run("preempted")
    job = jobs.start("preempted", *bench.train("preempted", steps=400, workers="1-2"))
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(job.stdout or ()), daemon=True)
    reader.start()
    wait_until(lambda: bench.step(folder) > 5 or job.poll() is not None, 180, "the job's fifth step")
    assert job.poll() is None, "".join(said)
    terminate(cluster.workers[0])
    gone, moment = cluster.workers.pop(0), time.time()
    try:
        wait_until(lambda: bool(checkpoints(folder)), DRAIN_S, "a checkpoint")
        assert job.wait(400) == 0, "".join(said)[-3000:]
    finally:
        gone.kill()
    for line in bench.lines(folder):
        if "values" not in line:
            print(round(line["time"] - moment, 1), {k: v for k, v in line.items() if k != "measures"})
    told = [line for line in bench.lines(folder) if "values" in line]
    for before, after in pairwise(told):
        if after["time"] - before["time"] > 3:
            print(
                "gap",
                round(before["time"] - moment, 1),
                before["step"],
                round(after["time"] - moment, 1),
                after["step"],
            )
