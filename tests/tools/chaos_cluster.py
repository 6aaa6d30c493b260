"""`python -m tests.tools.chaos_cluster [--only WORD] [--out DIR]`: what jobs on a cluster survive, done for real.

Each scenario has a cluster of its own on this machine: a head without CPUs for workers, two nodes of one CPU, a token,
a shared folder, an MLflow server. Jobs go in by `python -m cluster submit`. A row is written as soon as it is found:
the same command goes on with those that are missing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from objgan.config import STAGES
from objgan.generation import ObjGAN
from objgan.stages import NETWORKS, build_network
from pipelines.recipes import resolve
from pipelines.training.job import OpenRun, TrainJob
from tests.tools import sweep_faults
from tests.tools.cluster_bench import Bench, Jobs, MLflowServer
from tests.tools.local_cluster import LocalCluster, wait_until
from tests.tools.training import last, same_weights

AWAY_S = 60.0
STEPS, EVERY = 400, 50


@dataclass
class Row:
    """What came of a scenario.

    lost:    what was done twice
    seconds: from the disturbance to the first work that had not been done before; None: nothing was disturbed
    code:    the job's exit code; two where the command was given again
    read:    what the user read
    """

    scenario: str
    lost: str
    seconds: float | None
    code: str
    read: str


class Site:
    """A cluster with everything around it."""

    def __init__(self, cluster: LocalCluster, bench: Bench, mlflow: MLflowServer) -> None:
        self.cluster, self.bench, self.mlflow = cluster, bench, mlflow
        self.jobs = Jobs(cluster, bench.folder, {"MLFLOW_TRACKING_URI": mlflow.uri})

    def begin(self, name: str, words: Sequence[str], resume: bool = False) -> "Following":
        """Submit and follow in the background."""
        return Following(self.jobs.start(name, *words, resume=resume))

    def reached(self, run: str, step: int, job: "Following") -> None:
        """Until a run has done a step."""
        folder = self.bench.run(run)
        wait_until(lambda: self.bench.step(folder) >= step or job.over, 240, f"step {step} of {run}")
        assert not job.over, job.text()

    def row(self, name: str, run: str, moment: float, codes: Sequence[int], said: str) -> Row:
        """Of a training run that was disturbed at `moment`, unix seconds."""
        told = [line for line in self.bench.lines(self.bench.run(run)) if "values" in line]
        steps = [line["step"] for line in told]
        lost = f"{len(steps) - len(set(steps))} steps replayed"
        return Row(name, lost, _wait_of(told, moment), " then ".join(map(str, codes)), _worth_reading(said))


class Following:
    """A `submit --follow` under way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self._said = process, []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def text(self) -> str:
        """What was said so far."""
        return "".join(self._said)

    def end(self, seconds: float = 700.0) -> int:
        """Its exit code."""
        code = self._process.wait(seconds)
        self._thread.join(10)
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.append(line)


def node_prepare(site: Site) -> Row:
    """A node killed while it converts."""
    out = site.bench.folder / "prepared"
    words = ["python", "-m", "pipelines", "prepare", "--out", str(out), "--set", "data.image_size=512"]
    coco = site.bench.folder / "many"
    from pipelines.data.sample import make_sample

    make_sample(coco, 5000, 1)
    words += ["--images", str(coco / "images"), "--instances", str(coco / "annotations" / "instances.json")]
    words += ["--captions", str(coco / "annotations" / "captions.json")]
    job = site.begin("prepare", words)
    receipts = out / ".work" / "receipts"
    wait_until(lambda: len(list(receipts.glob("*.json"))) >= 3 or job.over, 240, "three shards")
    assert not job.over, job.text()
    before, moment = len(list(receipts.glob("*.json"))), time.time()
    site.cluster.workers.pop().kill()
    wait_until(lambda: len(list(receipts.glob("*.json"))) > before or job.over, 240, "one more shard")
    seconds = time.time() - moment
    code = job.end()
    state = json.loads((out / "status.json").read_text())
    lost = f"no shard: {state['step']} of {state['steps']} ({before} were there)" if code == 0 else "the job"
    return Row("a node killed in prepare", lost, seconds, str(code), _worth_reading(job.text()))


def node_training(site: Site) -> Row:
    """One of two nodes killed in training; a new one comes, as an autoscaler would start it."""
    job = site.begin("train", site.bench.train("train", STEPS, workers=2, every=EVERY))
    site.reached("train", EVERY + 10, job)
    moment = time.time()
    site.cluster.workers.pop().kill()
    site.cluster.add_node()
    code = job.end()
    row = site.row("a node killed in training, another comes", "train", moment, [code], job.text())
    calm = site.jobs.submit("calm", *site.bench.train("calm", STEPS, workers=2, every=EVERY))
    same = code == calm[0] == 0 and same_weights(last(site.bench.run("train")), last(site.bench.run("calm")))
    row.lost += "; the same weights as undisturbed" if same else "; OTHER WEIGHTS than undisturbed"
    return row


def node_evaluation(site: Site) -> Row:
    """A node killed while it generates."""
    bench = Bench(site.bench.folder / "evaluation", images=900)
    model, out = _model(bench), bench.folder / "measured"
    words = ["python", "-m", "pipelines", "evaluate", "--model", str(model), "--data", str(bench.data)]
    job = site.begin("evaluate", [*words, "--out", str(out), "--workers", "2"])
    wait_until(lambda: _standing(out).get("step", 0) >= 1 or job.over, 240, "the first batch")
    assert not job.over, job.text()
    before, moment = _standing(out)["step"], time.time()
    site.cluster.workers.pop().kill()
    wait_until(lambda: _standing(out).get("step", 0) > before or job.over, 240, "one more batch")
    seconds = time.time() - moment
    code = job.end()
    lost = "the batches under way on that node" if code == 0 else "the job"
    return Row("a node killed in evaluation", lost, seconds, str(code), _worth_reading(job.text()))


def elastic(site: Site) -> Row:
    """One worker, then a node comes."""
    site.cluster.workers.pop().kill()
    wait_until(lambda: site.cluster.alive() == 2, 120, "the node's death to be known")
    words = [*site.bench.train("grow", 1500, workers="1-2", every=100), "--set=compute.resize_every=5"]
    job = site.begin("grow", words)
    site.reached("grow", 110, job)
    moment = time.time()
    site.cluster.add_node()
    code = job.end()
    row = site.row("1-2 workers: a node comes", "grow", moment, [code], job.text())
    row.lost += f"; ended with {_standing(site.bench.run('grow'))['workers']} workers"
    return row


def driver(site: Site) -> Row:
    """SIGKILL to the driver; the same command with --resume."""
    words = site.bench.train("driver", STEPS, every=EVERY)
    job = site.begin("driver", words)
    site.reached("driver", EVERY + 10, job)
    pid = json.loads((site.bench.run("driver") / "lease.json").read_text())["pid"]
    moment = time.time()
    os.kill(pid, signal.SIGKILL)
    first = job.end()
    again = site.begin("driver", words, resume=True)
    second = again.end()
    return site.row("the driver killed", "driver", moment, [first, second], job.text() + again.text())


def head(site: Site) -> Row:
    """The head killed, and with it the cluster; a new one, the same command."""
    words = site.bench.train("head", STEPS, every=EVERY)
    job = site.begin("head", words)
    site.reached("head", EVERY + 10, job)
    moment = time.time()
    site.cluster.close()
    site.cluster.workers.clear()
    site.cluster.start(2)
    first = job.end()
    again = site.begin("head", words, resume=True)
    second = again.end()
    return site.row("the head killed, a new one started", "head", moment, [first, second], job.text() + again.text())


def stop(site: Site) -> Row:
    """`cluster stop`, then --resume."""
    words = site.bench.train("stop", STEPS, every=100_000)
    job = site.begin("stop", words)
    site.reached("stop", 60, job)
    moment = time.time()
    site.jobs.ask("stop", "stop")
    first = job.end()
    again = site.begin("stop", words, resume=True)
    second = again.end()
    return site.row("the job stopped, then resumed", "stop", moment, [first, second], job.text() + again.text())


def mlflow(site: Site) -> Row:
    """The MLflow server away for a minute."""
    steps = 2500
    job = site.begin("mlflow", site.bench.train("mlflow", steps, every=500))
    site.reached("mlflow", 20, job)
    folder, moment = site.bench.run("mlflow"), time.time()
    site.mlflow.kill()
    at = site.bench.step(folder)
    time.sleep(AWAY_S)
    on = site.bench.step(folder) - at
    site.mlflow.start()
    code = job.end(900)
    row = site.row(f"MLflow killed for {AWAY_S:.0f} s", "mlflow", moment, [code], job.text())
    from mlflow.tracking import MlflowClient

    (run,) = site.mlflow.runs()
    told = [one.step for one in MlflowClient(site.mlflow.uri).get_metric_history(run.info.run_id, "generator/overlap")]
    whole = "all" if told == list(range(1, steps + 1)) else f"{len(told)}"
    row.lost = f"nothing: {on} steps meanwhile, {whole} of {steps} in MLflow, {run.info.status}"
    return row


def two(site: Site) -> Row:
    """Two submits of one id at the same moment."""
    words = site.bench.train("two", 50)
    both = [site.begin("two", words) for _ in range(2)]
    codes = [one.end() for one in both]
    refused = next((one.text() for one, code in zip(both, codes, strict=True) if code == 2), "nobody was refused")
    told = [line["step"] for line in site.bench.lines(site.bench.run("two")) if "values" in line]
    lost = "nothing" if told == list(range(1, 51)) else f"{len(told)} steps for 50"
    return Row(
        "two submits of one id at once", lost, None, " and ".join(map(str, sorted(codes))), _worth_reading(refused)
    )


def sweep_node(site: Site) -> Row:
    """One of two nodes killed in a sweep of two trials at once; another comes."""

    def disturb() -> None:
        site.cluster.workers.pop().kill()
        site.cluster.add_node()

    return _sweep(site, "a node killed in a sweep, another comes", disturb, again=False)


def sweep_driver(site: Site) -> Row:
    """SIGKILL to the driver of a sweep; the same command with --resume."""
    return _sweep(site, "the driver of a sweep killed", lambda: sweep_faults.kill_driver(site, "sweep"), again=True)


def sweep_head(site: Site) -> Row:
    """The head killed in a sweep; a new one, the same command with --resume."""

    def disturb() -> None:
        site.cluster.close()
        site.cluster.workers.clear()
        site.cluster.start(2)

    return _sweep(site, "the head killed in a sweep, a new one started", disturb, again=True)


def _sweep(site: Site, scenario: str, disturb: Callable[[], None], again: bool) -> Row:
    """Disturb a sweep, give the command again if that is what one does, and hold it against an undisturbed one."""
    words = sweep_faults.words(site, "sweep")
    job = site.begin("sweep", words)
    sweep_faults.reached(site, "sweep", job)
    moment = time.time()
    disturb()
    codes, said = [job.end()], job.text()
    if again:
        second = site.begin("sweep", words, resume=True)
        codes.append(second.end())
        said += second.text()
    if codes[-1]:
        return Row(scenario, "the sweep", None, " then ".join(map(str, codes)), _worth_reading(said))
    assert site.jobs.submit("calm", *sweep_faults.words(site, "calm"))[0] == 0
    came = sweep_faults.outcome(site, "sweep", moment, "calm")
    same = "trials and measures as undisturbed" if came.difference is None else f"DIFFERENT: {came.difference}"
    lost = f"{came.replayed} steps replayed; {came.finished} of {came.trials} trials finished; {same}"
    return Row(scenario, lost, came.seconds, " then ".join(map(str, codes)), _worth_reading(said))


def refusals(site: Site) -> Iterator[Row]:
    """What is refused before anything starts."""
    from tests.tools.local_cluster import write_token

    asks: dict[str, Callable[[], tuple[int, str]]] = {
        "no token": lambda: site.jobs.ask("status", token=None),
        "wrong token": lambda: site.jobs.ask("status", token=write_token(site.bench.folder / "other")),
        "more workers than CPUs": lambda: site.jobs.submit("a", *site.bench.train("a", 5, workers=5)),
        "storage not shared": lambda: site.jobs.submit("b", *site.bench.train("b", 5), storage="/proc/self/cwd/apart"),
    }
    for name, ask in asks.items():
        began = time.monotonic()
        code, said = ask()
        yield Row(name, "nothing was begun", round(time.monotonic() - began, 1), str(code), _worth_reading(said))


SCENARIOS: dict[str, Callable[[Site], Any]] = {
    "node_prepare": node_prepare, "node_training": node_training, "node_evaluation": node_evaluation,
    "elastic": elastic, "driver": driver, "head": head, "stop": stop, "mlflow": mlflow, "two": two,
    "sweep_node": sweep_node, "sweep_driver": sweep_driver, "sweep_head": sweep_head,
    "refusals": refusals,
}  # fmt: skip


@contextmanager
def _site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="og") as short, tempfile.TemporaryDirectory(prefix="ogs") as shared:
        bench = Bench(Path(shared))
        with MLflowServer(bench.folder / "mlflow") as server, LocalCluster(Path(short)) as cluster:
            yield Site(cluster.start(2), bench, server)


def _model(bench: Bench) -> Path:
    """A model of weights as they are drawn, for the data of the bench."""
    config, folder = resolve("tiny", None, []), bench.folder / "model"
    domain = OpenRun(TrainJob(STAGES[0], config, bench.data, bench.folder / "none")).domain()
    ObjGAN(config, domain, {name: build_network(name, config, domain) for name in NETWORKS}).save(folder)
    return folder


def _standing(folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return facts


def _wait_of(told: list[dict], moment: float) -> float | None:
    """The longest wait between two steps that had not been done before, from `moment` on; seconds."""
    times, highest = [], 0
    for line in told:
        if line["step"] > highest:
            highest = line["step"]
            times.append(line["time"])
    waits = [after - before for before, after in pairwise(times) if after > moment]
    return round(max(waits), 1) if waits else None


def _worth_reading(said: str) -> str:
    """Of all that was said, the lines on what happened."""
    marks = (
        "error:",
        "failed",
        "stopped",
        "restarted",
        "resuming from",
        "does not answer",
        "warning:",
        "no longer knows",
    )
    found = [line.strip() for line in said.splitlines() if any(mark in line for mark in marks)]
    return " | ".join(line[:200] for line in found if "INFO" not in line and "(raylet)" not in line)[:900]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; 1 if a scenario broke."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.chaos_cluster", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--only", default="", metavar="WORD", help=f"of {', '.join(SCENARIOS)}: those with WORD")
    parser.add_argument("--again", action="store_true", help="do what was done before, too")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/chaos-cluster"), metavar="DIR", help="(default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    options.out.mkdir(parents=True, exist_ok=True)
    broken = 0
    for name, scenario in SCENARIOS.items():
        place = options.out / f"{name}.json"
        if options.only not in name or (place.exists() and not options.again):
            continue
        try:
            with _site() as site:
                made = scenario(site)
                rows = [made] if isinstance(made, Row) else list(made)
            place.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
        except Exception as error:  # the other scenarios are worth a look all the same
            broken += 1
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    print(_table(options.out))
    return 1 if broken else 0


def _table(folder: Path) -> str:
    rows = [row for name in SCENARIOS for row in _rows(folder / f"{name}.json")]
    lines = [
        "| what happens | lost | seconds until work went on | exit code | what the user read |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.0f}"
        read = row["read"].replace("|", "/")
        lines.append(f"| {row['scenario']} | {row['lost']} | {seconds} | {row['code']} | {read} |")
    return "\n".join(lines)


def _rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found


if __name__ == "__main__":
    sys.exit(main())
