"""SIGTERM to a node of a real cluster, as Kubernetes sends it before a drain, an upgrade or a preemption."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
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


def training(jobs: Jobs, bench: Bench, run: str, workers: str) -> tuple[subprocess.Popen[str], list[str]]:
    """A job whose two workers have finished five steps, and its lines."""
    job, lines = jobs.start(run, *bench.train(run, steps=100_000, workers=workers)), []
    threading.Thread(target=lambda: lines.extend(job.stdout or ()), daemon=True).start()

    def trained() -> bool:
        began = [line for line in bench.lines(bench.run(run)) if line["event"] == "began"]
        # With 1-2 workers a run may begin with one, and adds the other later.
        both = bool(began) and began[-1]["workers"] == 2 and bench.step(bench.run(run)) > began[-1]["step"] + 5
        return both or job.poll() is not None

    wait_until(trained, 300, "five steps of both workers")
    assert job.poll() is None, "".join(lines)
    return job, lines


def watched(cluster: LocalCluster) -> bool:
    """Whether Ray Train watches for nodes that are about to go."""
    answer = cluster.get("/api/v0/actors?limit=1000")
    actors = answer["data"]["result"]["result"] if answer else []
    return any(actor["class_name"] == "PreemptionWatcher" and actor["state"] == "ALIVE" for actor in actors)


def announced(cluster: LocalCluster) -> bool:
    """Whether Ray Train's watcher logged that a node is about to go; now and then it does not (Ray 2.60, busy machine).

    Prints what it logged instead.
    """
    logs = [path.read_text(errors="replace") for path in cluster.folder.glob("n*/session_2*/logs/worker-*")]
    print(*(log[-2000:] for log in logs if "PreemptionWatcher" in log), sep="\n")
    return any("preemption detected" in log for log in logs)


def test_sigterm_to_the_head_leaves_a_checkpoint_and_the_run_resumes(cluster: LocalCluster, bench: Bench) -> None:
    cluster.start(2)
    assert cluster.head is not None
    jobs, folder = Jobs(cluster, bench.folder, {}), bench.run("drained")
    job, said = training(jobs, bench, "drained", "2")
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
    job, said = training(jobs, bench, "preempted", "1-2")
    # Ray Train announces the end of a node only once its watcher has started, seconds after the first step.
    wait_until(partial(watched, cluster), 120, "Ray Train's watcher")
    before = checkpoints(folder)
    gone, moment = cluster.workers.pop(0), time.time()
    terminate(gone)

    def events() -> list[dict]:
        """What the run reported since the signal."""
        since = ({**line, "time": round(line["time"] - moment, 1)} for line in bench.lines(folder))
        return [event for event in since if event["time"] > 0]

    def continued() -> bool:
        kinds = [event["event"] for event in events()]
        return "began" in kinds and "logged" in kinds[kinds.index("began") :]

    try:
        try:
            wait_until(lambda: checkpoints(folder) != before, DRAIN_S, "a checkpoint")
        except AssertionError as error:
            if not announced(cluster):
                pytest.skip("Ray Train's watcher did not announce the end of the node")
            raise AssertionError(f"{error}: {bench.lines(folder)[-20:]}\n{''.join(said)[-3000:]}") from None
        assert announced(cluster)
        step = checkpoints(folder)[-1]
        wait_until(continued, 400, "a step of the worker that is left")
    finally:
        gone.kill()
    code, stopped = jobs.ask("stop", "preempted")
    assert code == 0 and job.wait(120) == 143, stopped + "".join(said)[-3000:]
    milestones = [event for event in events() if event["event"] not in ("logged", "validated")]
    (began,) = (event for event in milestones if event["event"] == "began")
    assert began["step"] == step and began["workers"] == 1, milestones
    assert any("about to be taken away" in event.get("text", "") for event in milestones), milestones
    # Both workers go on until the machine is gone: none of them waits for the other.
    between = [event["step"] for event in events() if event["event"] == "logged" and event["time"] < began["time"]]
    assert max(between) > step + 5, milestones
