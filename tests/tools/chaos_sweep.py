"""`python -m tests.tools.chaos_sweep [--kills 10] [--minutes M]`: kill -9 of a sweep's driver at random times.

Each row is a separate sweep. Its driver is killed once (with `--every S`, every S seconds) and started again until the
sweep has finished. Finished trials and all their measures must equal those of an undisturbed sweep. Each row is written
at once, and the same command resumes; after `--minutes` no row is started.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from objgan.files import write_atomically
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.sample import make_sample
from pipelines.recipes import resolve
from pipelines.workflow.run import sample_source
from tests.tools.logged import logged
from tune.engine.engine import run_sweep
from tune.space.space import Knob, Space
from tune.sweep.results import SweepResult
from tune.sweep.sweep import Budget, Goal, Sweep
from tune.sweep.trial_store import load_result

GOAL = Goal("label_nll", "min")
TRIALS, STEPS, EVERY = 4, 120, 20
SPACE = Space({
    "boxes.training.lr": Knob("log_uniform", 1e-4, 1e-2),
    "boxes.training.label_weight": Knob("uniform", 0.5, 2.0),
})  # fmt: skip


@dataclass
class Row:
    """The result of a sweep whose driver was killed.

    after:   seconds after the start of each process, when it was killed
    starts:  processes in all
    seconds: from the first start to the end
    """

    number: int
    after: list[float]
    starts: int
    seconds: float
    finished: int
    same: bool


class Bench:
    """Data and drivers of all sweeps, in a folder that stays."""

    def __init__(self, folder: Path, trials: int = TRIALS, steps: int = STEPS, every: int = EVERY) -> None:
        self.folder, self.trials, self.steps, self.every = folder, trials, steps, every
        if not (folder / "data" / "manifest.json").exists():
            make_sample(folder / "coco", 80, 0)
            prepare(sample_source(folder / "coco"), folder / "data", self._config(), run_here)

    def sweep(self, name: str) -> Sweep:
        """Random trials, none of which is stopped early: their results depend on nothing else."""
        return Sweep(
            name, ("boxes",), self._config(), self.folder / "data", str(self.folder / "runs"), SPACE, GOAL,
            Budget(self.trials), scheduler="none",
        )  # fmt: skip

    def start(self, name: str) -> subprocess.Popen[str]:
        """A driver that starts or resumes the sweep."""
        words = [sys.executable, "-m", "tests.tools.chaos_sweep", "--drive", name, "--out", str(self.folder)]
        words += ["--size", f"{self.trials},{self.steps},{self.every}"]
        repository = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            words, cwd=repository, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def result(self, name: str) -> SweepResult:
        """The results of a sweep."""
        result = load_result(self.sweep(name).store())
        assert result is not None
        return result

    def calm(self) -> tuple[SweepResult, float]:
        """The undisturbed sweep and its seconds."""
        place = self.folder / "calm.json"
        if not place.exists():
            began = time.monotonic()
            said, _ = (process := self.start("calm")).communicate(timeout=900)
            assert process.returncode == 0, said
            write_atomically(place, json.dumps(time.monotonic() - began) + "\n")
        return self.result("calm"), float(json.loads(place.read_text()))

    def _config(self) -> Any:
        values = {
            "steps": self.steps, "batch_size": 8, "group": 8, "checkpoint_every": self.every, "log_every": 10,
            "picture_every": self.steps, "validation_samples": 16,
        }  # fmt: skip
        settings = [f"boxes.training.{name}={value}" for name, value in values.items()]
        return resolve("tiny", None, [*settings, "boxes.text_encoder=own", "compute.threads=1"])


def disturbed(bench: Bench, number: int, draw: random.Random, every: float | None = None) -> Row:
    """A sweep whose first driver is killed at a random time (`every`: each driver, after this many seconds)."""
    calm, seconds = bench.calm()
    name, after, starts, began = f"killed_{number:02d}", [], 0, time.monotonic()
    shutil.rmtree(bench.folder / "runs" / name, ignore_errors=True)
    while True:
        process, starts, started = bench.start(name), starts + 1, time.monotonic()
        kill = starts == 1 or every is not None
        try:
            process.communicate(timeout=(every or draw.uniform(4.0, 0.95 * seconds)) if kill else 900)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            after.append(round(time.monotonic() - started, 1))
            continue
        break
    result = bench.result(name)
    ended = sum(trial.state == "finished" for trial in result.trials)
    same = process.returncode == 0 and compare(calm, result) is None
    return Row(number, after, starts, round(time.monotonic() - began, 1), ended, same)


def compare(calm: SweepResult, disturbed: SweepResult) -> str | None:
    """The first difference between two sweeps other than times; None: there is none."""
    if disturbed.state != "finished":
        return f"state {disturbed.state}"
    ours, theirs = (
        {trial.id: (trial.state, trial.settings, [(p.step, p.measures) for p in trial.points], trial.checkpoint)
         for trial in result.trials}
        for result in (calm, disturbed)
    )  # fmt: skip
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            return f"trial {name}: {ours.get(name)} and {theirs.get(name)}"
    one, other = (result.best(GOAL) for result in (calm, disturbed))
    return None if one is not None and other is not None and one.id == other.id else "the best trial"


def drive(bench: Bench, name: str) -> int:
    """Run a driver in this process."""
    sweep = bench.sweep(name)
    resume = (bench.folder / "runs" / name / "sweep.json").exists()
    with logged(lambda text: print(text, flush=True)):
        result = run_sweep(sweep, [], resume=resume)
    return {"interrupted": 130, "terminated": 143}.get(str(result.reason), 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill drivers; returns 1 if a sweep has another result."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.chaos_sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="sweeps, each killed once (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="start no row after this time (default: %(default)s)"
    )
    parser.add_argument("--every", type=float, metavar="S", help="kill every driver after S s, not only the first")
    parser.add_argument("--out", type=Path, default=Path("runs/chaos_sweep"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--drive", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--size", default=f"{TRIALS},{STEPS},{EVERY}", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.out.resolve(), *(int(one) for one in options.size.split(",")))
    if options.drive:
        return drive(bench, options.drive)
    place, end = bench.folder / "rows.json", time.monotonic() + 60 * options.minutes
    rows = [Row(**row) for row in json.loads(place.read_text())] if place.exists() else []
    print(f"undisturbed: {bench.calm()[1]:.0f} s")
    print(f"{'kill':>4} {'after s':<16}{'starts':>7}{'s in all':>9}{'finished':>9}  same")
    for number in range(options.kills):
        row = next((row for row in rows if row.number == number), None)
        if row is None and time.monotonic() < end:
            row = disturbed(bench, number, random.Random(number), options.every)
            rows.append(row)
            write_atomically(place, json.dumps([asdict(one) for one in rows], indent=1) + "\n")
        if row is not None:
            print(f"{row.number:>4} {' '.join(map(str, row.after)):<16}{row.starts:>7}{row.seconds:>9}"
                  f"{row.finished:>9}  {'yes' if row.same else 'NO'}", flush=True)  # fmt: skip
    return 0 if rows and all(row.same for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
