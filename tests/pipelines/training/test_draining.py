"""SIGTERM to a node of a real cluster, as Kubernetes sends it before a drain, an upgrade or a preemption."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.cluster_bench import Bench, Jobs
from tests.tools.local_cluster import LocalCluster, Node, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]
DRAIN_S = 60
"""Half of what the manifests set; Ray's default is 30."""


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


def training(jobs: Jobs, bench: Bench, run: str, steps: int, workers: str) -> tuple[subprocess.Popen[str], list[str]]:
    """A job that has finished its fifth step, and what it says."""
    job, said = jobs.start(run, *bench.train(run, steps=steps, workers=workers)), []
    threading.Thread(target=lambda: said.extend(job.stdout or ()), daemon=True).start()
    wait_until(lambda: bench.step(bench.run(run)) > 5 or job.poll() is not None, 240, "the job's fifth step")
    assert job.poll() is None and not checkpoints(bench.run(run)), "".join(said)
    return job, said


def test_sigterm_to_the_head_leaves_a_checkpoint_and_the_run_resumes(cluster: LocalCluster, bench: Bench) -> None:
    cluster.start(2)
    assert cluster.head is not None
    jobs, folder = Jobs(cluster, bench.folder, {}), bench.run("drained")
    job, said = training(jobs, bench, "drained", 100_000, "2")
    terminate(cluster.head)
    wait_until(lambda: bool(checkpoints(folder)), DRAIN_S, "a checkpoint")
    (step,) = checkpoints(folder)
    wait_until(lambda: json.loads((folder / "status.json").read_text())["state"] == "preempted", 30, "the status")
    assert job.wait(180) == 143, "".join(said)
    assert f"terminated; checkpoint at step {step}" in "".join(said)
    cluster.head.process.wait(DRAIN_S + 60)
    cluster.close()
    cluster.workers.clear()
    cluster.start(2)
    again = jobs.start("drained", *bench.train("drained", steps=100_000, workers=2), resume=True, wait=())
    assert again.wait(180) == 0, again.communicate()[0]
    wait_until(lambda: bench.step(folder) > step, 240, "the step after the checkpoint")
    steps = [line["step"] for line in bench.lines(folder) if "values" in line]
    assert len(steps) == len(set(steps)), "a step was done twice"


def test_sigterm_to_a_worker_leaves_a_checkpoint_and_training_continues(cluster: LocalCluster, bench: Bench) -> None:
    cluster.start(2)
    jobs, folder = Jobs(cluster, bench.folder, {}), bench.run("preempted")
    job, said = training(jobs, bench, "preempted", 100_000, "1-2")
    gone, moment = cluster.workers.pop(0), time.time()
    terminate(gone)
    try:
        wait_until(lambda: bool(checkpoints(folder)), DRAIN_S, "a checkpoint")
        (step,) = checkpoints(folder)

        def continued() -> bool:
            lines = bench.lines(folder)
            starts = [place for place, line in enumerate(lines) if line["event"] == "began"]
            return len(starts) == 2 and any("values" in line for line in lines[starts[1] :])

        wait_until(continued, 400, "a step of the worker that is left")
    finally:
        gone.kill()
    code, stopped = jobs.ask("stop", "preempted")
    assert code == 0 and job.wait(120) == 143, stopped + "".join(said)[-3000:]
    events = [{**line, "time": round(line["time"] - moment, 1)} for line in bench.lines(folder)]
    told = [event for event in events if event["event"] not in ("logged", "validated")]
    began = [event for event in events if event["event"] == "began"]
    assert len(began) == 2 and began[1]["step"] == step and began[1]["workers"] == 1, told
    assert any("about to be taken away" in event.get("text", "") for event in events), told
    # Both workers go on until the machine is gone: none of them waits for the other.
    between = [event["step"] for event in events if event["event"] == "logged" and event["time"] < began[1]["time"]]
    assert max(between) > step + 5, told
