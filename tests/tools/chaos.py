"""`python -m tests.tools.chaos [--only WORD] [--minutes M]`: what training survives, done for real; a table and JSON.

Every scenario disturbs a run and compares its last checkpoint, bit for bit, with that of a run that nothing happened
to (where the number of workers changes on the way: to 1e-3, for sums come in another order). Rows are written as they
are found, so a call that is stopped leaves what it has; `--minutes` begins no scenario after that time.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import torch

from objgan.checkpoint import save_checkpoint
from objgan.config import Config
from objgan.files import write_atomically
from objgan.stages import build_stage
from objgan.train_state import TrainState
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.sample import make_sample
from pipelines.recipes import resolve
from pipelines.runtime.ray_session import ray_session
from pipelines.training.driver import train
from pipelines.training.job import OpenRun, TrainJob, needed_stages, open_run
from pipelines.workflow.run import sample_source
from tests.tools.logged import logged
from tests.tools.ports import free_port
from tests.tools.training import Command, last, lines, same_weights, training_workers, wait_until, weights

STAGES = ("encoders", "boxes", "shapes", "images")
KILLS, DRIVER_KILLS = 20, 5
AWAY_S = 60.0


@dataclass
class Row:
    """What came of a scenario.

    lost:    steps that were done twice
    seconds: from each disturbance to the next step that had not been done before, the longest
    """

    scenario: str
    disturbances: int
    lost: int
    seconds: float
    same: bool
    said: str


class Bench:
    """Data, settings and untrained encoders that all scenarios share, in a scratch folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        make_sample(folder / "coco", 80, 0)
        prepare(sample_source(folder / "coco"), self.data, self.config("shapes"), run_here)
        domain = OpenRun(self.job("encoders", "none")).domain()
        save_checkpoint(folder / "encoders", TrainState(build_stage("encoders", self.config("encoders"), domain, {})))

    def config(self, stage: str, steps: int = 60, every: int = 10, **compute: int) -> Config:
        """The recipe `tiny` in two groups, short."""
        values = {
            "steps": steps, "batch_size": 8, "group": 4, "checkpoint_every": every, "picture_every": steps,
            "log_every": 1, "validation_samples": 4, "max_failures": 100,
        }  # fmt: skip
        settings = [f"{stage}.training.{name}={value}" for name, value in values.items()]
        settings += [f"compute.{name}={value}" for name, value in {"threads": 1, "workers": 2, **compute}.items()]
        return resolve("tiny", None, settings)

    def job(self, stage: str, name: str, **settings: int) -> TrainJob:
        config = self.config(stage, **settings)
        needs = {need: self.folder / need for need in needed_stages(config, stage)}
        return TrainJob(stage, config, self.data, self.folder / name / stage, needs)


def kills(bench: Bench) -> Iterator[Row]:
    """20 kill -9 of random workers and 5 of the driver over one run of 2 workers."""
    draw, config = random.Random(0), bench.config("shapes", steps=900, every=10)
    thin = config.shapes.model_copy(update={"width": 8, "class_embedding": 4, "noise": 2, "discriminator_width": 8})
    config = config.model_copy(update={"shapes": thin})
    whole = Command(bench.folder / "whole", _repository(), config, bench.data)
    assert whole.run(timeout=900)[0] == 0
    broken = Command(bench.folder / "broken", _repository(), config, bench.data)
    order = ["driver"] * DRIVER_KILLS + ["worker"] * KILLS
    draw.shuffle(order)
    process, longest, codes = broken.start(), 0.0, []
    silence = threading.Thread(target=process.communicate, daemon=True)
    silence.start()
    for number, victim in enumerate(order):
        target = _step(broken.folder) + draw.randint(5, 30)
        wait_until(partial(_moved, broken.folder, target - 1, process), 300)
        if process.poll() is not None:
            codes.append(f"ended at kill {number}")
            break
        began, before = time.time(), _step(broken.folder)
        if victim == "driver":
            process.kill()
            process.wait()
            process = broken.start()
            threading.Thread(target=process.communicate, daemon=True).start()
        else:
            draw.choice(training_workers(process.pid) or [psutil.Process(process.pid)]).send_signal(signal.SIGKILL)
        wait_until(partial(_moved, broken.folder, before, process), 300)
        longest = max(longest, time.time() - began)
    process.wait(600)
    told = [line["step"] for line in lines(broken.folder) if "values" in line]
    same = same_weights(last(broken.folder), last(whole.folder))
    name, lost = f"{KILLS} workers and {DRIVER_KILLS} drivers killed", len(told) - len(set(told))
    yield Row(name, len(order), lost, longest, same, f"exit code {process.returncode} {' '.join(codes)}")


def nodes(bench: Bench) -> Iterator[Row]:
    """A node killed in the middle of each stage; another one joins."""
    for stage in STAGES:
        with ray_session():
            train(open_run(bench.job(stage, "calm")))
        with _cluster(cpus=(1, 1)) as (cluster, workers):

            def disturb(folder: Path, cluster: Any = cluster, workers: list[Any] = workers) -> None:
                cluster.remove_node(workers.pop(), allow_graceful=False)
                workers.append(cluster.add_node(num_cpus=1))

            yield _disturbed(bench, stage, f"a node killed during {stage}", disturb)


def elastic(bench: Bench) -> Iterator[Row]:
    """1 to 2 workers: a node joins, another dies."""
    with ray_session():
        train(open_run(bench.job("shapes", "calm-elastic", steps=400)))
    with _cluster(cpus=(1,)) as (cluster, workers):

        def disturb(folder: Path) -> None:
            workers.append(cluster.add_node(num_cpus=1))
            wait_until(
                lambda: (
                    len([line for line in lines(folder) if line.get("checkpoint") and line["event"] == "began"]) > 0
                ),
                200,
            )
            time.sleep(5)
            cluster.remove_node(workers.pop(0), allow_graceful=False)

        job = bench.job("shapes", "elastic", steps=400, workers=1, max_workers=2, resize_every=5)
        yield _run_disturbed(
            job, "1-2 workers: a node joins, one dies", disturb, bench.folder / "calm-elastic" / "shapes"
        )


def preemption(bench: Bench) -> Iterator[Row]:
    """Ray's notice that a node is about to be taken away; then it is."""
    with ray_session():
        train(open_run(bench.job("shapes", "calm-preemption", steps=400, every=350)))
    with _cluster(cpus=(1, 1)) as (cluster, workers):

        def disturb(folder: Path) -> None:
            node = workers.pop()
            ray = str(Path(sys.executable).parent / "ray")
            words = ["drain-node", "--address", cluster.address, "--node-id", node.node_id, "--reason"]
            words += ["DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds", "20"]
            subprocess.run([ray, *words], check=True, capture_output=True)
            wait_until(lambda: any("taken away" in str(line.get("warning")) for line in lines(folder)), 60)
            wait_until(lambda: bool(list(folder.glob("step_*"))), 30)
            workers.append(cluster.add_node(num_cpus=1))
            cluster.remove_node(node, allow_graceful=False)

        job = bench.job("shapes", "preemption", steps=400, every=350)
        yield _run_disturbed(
            job, "a preemption notice, then the node gone", disturb, bench.folder / "calm-preemption" / "shapes"
        )


def mlflow(bench: Bench) -> Iterator[Row]:
    """The MLflow server killed for a minute in the middle of a run."""
    from mlflow.tracking import MlflowClient

    port, home = free_port(), bench.folder / "mlflow"
    home.mkdir()
    server = _mlflow_server(home, port)
    uri = f"http://127.0.0.1:{port}"
    os.environ["MLFLOW_TRACKING_URI"] = uri
    config = bench.config("shapes", steps=1500, every=100, workers=1)
    command = Command(bench.folder / "away", _repository(), config, bench.data)
    try:
        process = command.start()
        threading.Thread(target=process.communicate, daemon=True).start()
        wait_until(lambda: _step(command.folder) > 20, 300)
        server.kill()
        at, began = _step(command.folder), time.time()
        time.sleep(AWAY_S)
        went_on = _step(command.folder) - at
        server = _mlflow_server(home, port)
        away = time.time() - began
        code = process.wait(900)
        (experiment,) = MlflowClient(uri).search_experiments(filter_string="name = 'objgan'")
        (run,) = MlflowClient(uri).search_runs([experiment.experiment_id])
        told = [m.step for m in MlflowClient(uri).get_metric_history(run.info.run_id, "generator/overlap")]
        whole = told == list(range(1, 1501))
        text = f"{went_on} steps while it was away, status {run.info.status}, exit code {code}"
        yield Row(f"MLflow away for {away:.0f} s", 1, len(told) - len(set(told)), 0.0, whole, text)
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
        server.kill()


SCENARIOS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "kills": kills, "nodes": nodes, "elastic": elastic, "preemption": preemption, "mlflow": mlflow,
}  # fmt: skip


def _disturbed(bench: Bench, stage: str, name: str, disturb: Callable[[Path], None]) -> Row:
    return _run_disturbed(bench.job(stage, "disturbed"), name, disturb, bench.folder / "calm" / stage)


def _run_disturbed(job: TrainJob, name: str, disturb: Callable[[Path], None], calm: Path) -> Row:
    """Run `job`, call `disturb` once a checkpoint (or some steps) is there, compare with the calm run."""
    said: list[str] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with logged(said.append):
                train(open_run(job))
        except BaseException as error:
            failed.append(error)

    # Nodes can be added by the main thread alone.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    few = job.training.checkpoint_every > 100
    wait_until(lambda: _step(job.folder) > 5 if few else bool(list(job.folder.glob("step_*"))), 200)
    moment = time.time()
    disturb(job.folder)
    thread.join(500)
    if failed:
        return Row(name, 1, -1, -1.0, False, str(failed[0])[:300])
    told = [line for line in lines(job.folder) if "values" in line]
    steps = [line["step"] for line in told]
    same = same_weights(last(job.folder), last(calm))
    if not same and job.config.compute.max_workers:
        same = _near(last(job.folder), last(calm))
    events = [line for line in said if "goes on" in line or "warning" in line]
    return Row(name, 1, len(steps) - len(set(steps)), _longest_wait(told, moment), same, "; ".join(events)[:300])


def _longest_wait(told: list[dict], moment: float) -> float:
    """Seconds between two steps that had not been done before, from `moment` on."""
    times, highest = [], 0
    for line in told:
        if line["step"] > highest:
            highest = line["step"]
            times.append(line["time"])
    return max((after - before for before, after in pairwise(times) if after > moment), default=-1.0)


def _near(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    names = [name for name in a if name.startswith("averages")]
    return all(torch.allclose(a[name], b[name], rtol=1e-2, atol=1e-3) for name in names)


@contextmanager
def _cluster(cpus: Sequence[int]) -> Iterator[tuple[Any, list[Any]]]:
    """A head without CPUs for workers, and a node for each of `cpus`; this process is connected to it."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        workers = [cluster.add_node(num_cpus=count) for count in cpus]
        with ray_session(cluster.address):
            yield cluster, workers
    finally:
        ray.shutdown()
        cluster.shutdown()


def _mlflow_server(home: Path, port: int) -> subprocess.Popen[bytes]:
    from urllib.request import urlopen

    words = ["-m", "mlflow", "server", "--port", str(port), "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"]
    words += ["--artifacts-destination", str(home / "artifacts"), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    server = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip

    def answers() -> bool:
        try:
            return bool(urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200)
        except OSError:
            return False

    wait_until(answers, 90)
    server.kill = lambda: os.killpg(server.pid, signal.SIGKILL)  # type: ignore[method-assign]
    return server


def _step(folder: Path) -> int:
    """The last step that a run told."""
    if not (folder / "progress.jsonl").exists():
        return 0
    return max((line["step"] for line in lines(folder) if "values" in line), default=0)


def _moved(folder: Path, before: int, process: subprocess.Popen[str]) -> bool:
    """Whether a run has gone beyond a step, or has ended."""
    return _step(folder) > before or process.poll() is not None


def _repository() -> Path:
    return Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios; 1 if one of them lost something."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="WORD", help=f"of {', '.join(SCENARIOS)}: those with WORD")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="begin no scenario after that (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"), metavar="DIR", help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    end, rows = time.monotonic() + 60 * options.minutes, []
    print(f"{'scenario':<48}{'times':>6}{'steps lost':>12}{'s to go on':>12}  {'same':<6}what was said")
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch))
        for name, scenario in SCENARIOS.items():
            if options.only not in name or time.monotonic() > end:
                continue
            for row in scenario(bench):
                rows.append(row)
                print(f"{row.scenario:<48}{row.disturbances:>6}{row.lost:>12}{row.seconds:>12.1f}  "
                      f"{'yes' if row.same else 'NO':<6}{row.said[:160]}", flush=True)  # fmt: skip
                text = json.dumps([asdict(one) for one in rows], indent=1)
                write_atomically(options.out / f"chaos{'-' + options.only if options.only else ''}.json", text + "\n")
    return 0 if rows and all(row.same for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
