"""Sweeps: what a trial costs beside its training, whether sixteen find better settings, and what ASHA saves.

`python -m tests.benchmarks.bench_sweep [overhead|boxes|asha ...] --minutes M`: each part goes on where it was, and
its figures are rows of OUT/figures.json. `make bench` runs a small form of the first part.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from objgan.config import Config
from objgan.files import write_atomically
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.data.sample import make_sample
from pipelines.recipes import resolve
from pipelines.runtime.ray_session import ray_session
from pipelines.storage.lease import Lease
from pipelines.storage.storage import Storage
from pipelines.training.driver import train
from pipelines.training.job import TrainJob, open_run
from pipelines.workflow.run import sample_source
from tests.benchmarks.asha_orders import Times, savings
from tests.benchmarks.measure import Measurement
from tests.tools.logged import logged
from tests.tools.training import lines
from tune.confirm.result import load as load_confirmed
from tune.engine.engine import run_sweep
from tune.space.default_space import default_space
from tune.sweep.results import SweepResult, Trial
from tune.sweep.spec_file import load_sweep
from tune.sweep.sweep import Budget, Goal, Scheduler, Sweep
from tune.sweep.trial_store import ENDED, load_result

REPOSITORY = Path(__file__).resolve().parents[2]
COCO = REPOSITORY.parent / "shared" / "coco" / "annotations"
PARTS = ("overhead", "boxes", "asha")
ARMS: tuple[Scheduler, ...] = ("asha", "none")
SETTINGS = (
    "data.max_objects=10",
    "boxes.training.checkpoint_every=100",
    "boxes.training.picture_every=900",
    "boxes.training.validation_samples=500",
)
"""Over recipe `tiny`: all of a validation split of COCO's captions and boxes, nine reports in 900 steps."""


def bench_sweep(scratch: Path) -> Iterator[Measurement]:
    """A trial against the same training alone, on drawn data, 3 trials of 60 steps."""
    make_sample(scratch / "coco", 200, 0)
    config = resolve("tiny", None, ("boxes.training.steps=60", "boxes.training.checkpoint_every=20"))
    prepare(sample_source(scratch / "coco"), scratch / "data", config, run_here)
    found = overhead(scratch, scratch / "data", config, trials=3)
    alone, trial = found["alone_seconds"], found["trial_seconds"]
    yield Measurement("boxes, tiny: training alone", alone, alone, 3, 60, "steps")
    note = f"{found['overhead_seconds']:.1f} s more than alone; {found['share_outside_steps']:.0%} of it outside steps"
    yield Measurement("boxes, tiny: a trial", trial, trial, 3, 60, "steps", note)


def overhead(out: Path, data: Path, config: Config, trials: int = 4) -> dict[str, Any]:
    """Seconds of a trial, one at a time, with its share of what a sweep does besides, against `train` with one worker.

    alone_seconds: of `train` in a Ray that runs, median of 3; trial_seconds: of the sweep without the start of Ray, a
    trial; two_at_once: of the sweep with two trials at once, on as many threads in all.
    """
    done = _rows(out / "overhead.json")
    config = config.model_copy(update={"compute": config.compute.model_copy(update={"threads": 1})})
    with ray_session():
        for number in range(3):
            if f"alone_{number}" not in done:
                done[f"alone_{number}"] = _alone(out, data, config, number)
                _keep(out / "overhead.json", done)
        for name, at_once in (("one", 1), ("two", 2)):
            if name not in done:
                done[name] = _timed_sweep(out, f"overhead-{name}", data, config, (trials, at_once))
                _keep(out / "overhead.json", done)
    alone = statistics.median(done[f"alone_{number}"]["seconds"] for number in range(3))
    steps = statistics.median(done[f"alone_{number}"]["steps_seconds"] for number in range(3))
    each = done["one"]["seconds"] / trials
    return {
        "alone_seconds": alone,
        "alone_outside_steps": 1 - steps / alone,
        "trial_seconds": each,
        "overhead_seconds": each - alone,
        "share_outside_steps": 1 - done["one"]["steps_seconds"] / done["one"]["seconds"],
        "two_at_once_seconds": done["two"]["seconds"] / trials,
        "two_at_once_share_outside_steps": 1 - done["two"]["steps_seconds"] / (2 * done["two"]["seconds"]),
    }


def _alone(out: Path, data: Path, config: Config, number: int) -> dict[str, float]:
    folder = out / f"alone-{number}" / "boxes"
    began = time.perf_counter()
    train(open_run(TrainJob("boxes", config, data, folder)))
    return {"seconds": time.perf_counter() - began, "steps_seconds": _steps_seconds(folder)}


def _steps_seconds(folder: Path) -> float:
    """Seconds inside training steps, of a run's own lines."""
    told, last, seconds = [line for line in lines(folder) if "values" in line], 0, 0.0
    for line in told:
        seconds += line["values"]["seconds_per_step"] * (line["step"] - last)
        last = line["step"]
    return seconds


def _timed_sweep(out: Path, run: str, data: Path, config: Config, size: tuple[int, int]) -> dict[str, float]:
    """All trials to their end, with the settings almost as they are: their times are to be compared."""
    sweep = _sweep(out, run, data, config, Budget(size[0], size[1]), "none")
    began = time.perf_counter()
    result = run_sweep(sweep, [], resume=load_sweep(sweep.store()) is not None)
    ended = [trial for trial in result.trials if trial.state == "finished"]
    if len(ended) < size[0]:
        raise RuntimeError(f"{run}: only {len(ended)} of {size[0]} trials finished")
    return {"seconds": time.perf_counter() - began, "steps_seconds": sum(trial.training_s for trial in ended)}


def boxes(out: Path, minutes: float) -> dict[str, Any]:
    """32 trials on COCO's captions and boxes, ASHA, both cores, 30 minutes; then 3 other seeds for each arm."""
    data, began = coco_data(out), time.monotonic()
    words = [sys.executable, "-m", "tune", "boxes", "--data", str(data), "--run", "boxes", "--storage", str(out)]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    words += ["--trials", "32", "--time-budget", f"{min(minutes, 30):g}m", "--confirm", "3"]
    words += ["--export-recipe", str(out / "best.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MLFLOW_TRACKING_URI": f"sqlite:///{out / 'mlflow.db'}"}
    code = subprocess.run(words, env=environment, cwd=out, check=False).returncode
    store = Storage(out / "boxes")
    result, confirmed = load_result(store), load_confirmed(store)
    found: dict[str, Any] = {"exit_code": code, "seconds_with_confirmation": time.monotonic() - began}
    if result is not None:
        found |= {"state": result.state, "sweep_seconds": result.seconds, **_outcome(result, Goal("label_f1", "max"))}
    if confirmed is not None:
        found |= {"outcome": confirmed.outcome, "verdict": confirmed.verdict(), "table": confirmed.text().splitlines()}
    return found


def asha(out: Path, minutes: float, trials: int = 16, steps: int = 900, seeds: int = 3) -> dict[str, Any]:
    """The same settings under ASHA and without, for each seed: seconds to the best measure that both reach.

    How soon the best settings are drawn is luck: so several seeds, and each seed's trials replayed in other orders.
    """
    data, config = coco_data(out), resolve("tiny", None, (*SETTINGS, f"boxes.training.steps={steps}"))
    until, found = time.monotonic() + 60 * minutes, {}
    for seed in range(seeds):
        found[f"seed_{seed}"] = _arms(out, data, config, (trials, seed), until)
    whole = [row for row in found.values() if "target" in row]
    return found | _sums(whole) if whole else found


def _arms(out: Path, data: Path, config: Config, size: tuple[int, int], until: float) -> dict[str, Any]:
    """Both arms of a seed, gone on with as long as there is time; their comparison once both are whole."""
    (trials, seed), found = size, {}
    for arm in ARMS:
        name, left = _arm_name(arm, seed), until - time.monotonic()
        if left > 60:
            sweep = _sweep(out, name, data, config, Budget(trials, seconds=left), arm)
            _arm(replace(sweep, seed=seed))
        reached = _told(out / name / "told.jsonl")
        result = load_result(Storage(out / name))
        if result is not None and reached:
            whole = all(trial.state in ENDED for trial in result.trials)
            done = whole and len(result.trials) == trials
            found[arm] = {"whole": done, "seconds": result.seconds, "best": max(v for _, v in reached)}
    if len(found) == 2 and all(row["whole"] for row in found.values()):
        best, whole = min(row["best"] for row in found.values()), found["none"]["seconds"]
        found |= _ratio(out, seed, best) | {"other_orders": _orders(out / _arm_name("none", seed), whole)}
    return found


def _orders(folder: Path, whole: float) -> dict[str, Any]:
    """What the sweep without ASHA tells of all orders of its trials."""
    rows = _json_lines(folder / "told.jsonl")
    trials = {name: [row for row in rows if row["trial"] == name] for name in {row["trial"] for row in rows}}
    gaps = [b["seconds"] - a["seconds"] for told in trials.values() for a, b in pairwise(told)]
    curves = {name: [(row["step"], row["value"]) for row in told] for name, told in trials.items()}
    return savings(curves, Times.of(curves, whole, statistics.fmean(gaps)))


def _arm_name(arm: str, seed: int) -> str:
    return f"arm-{arm}-{seed}" if seed else f"arm-{arm}"


def _sums(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    to_target = {arm: sum(row[f"{arm}_seconds"] for row in rows) for arm in ARMS}
    in_all = {arm: sum(row[arm]["seconds"] for row in rows) for arm in ARMS}
    return {
        "seeds": len(rows),
        "none_over_asha_to_target": to_target["none"] / to_target["asha"],
        "none_over_asha_whole_sweep": in_all["none"] / in_all["asha"],
    }


def _arm(sweep: Sweep) -> None:
    store = sweep.store()
    before = load_result(store)
    with Lease.acquire(store) as lease:
        ears = _Ears(store.local / "told.jsonl", sweep.goal.metric, 0.0 if before is None else before.seconds)  # type: ignore[operator]
        with logged(print):
            run_sweep(_with_more_time(sweep, before), [ears], resume=before is not None, lease=lease)


def _with_more_time(sweep: Sweep, before: SweepResult | None) -> Sweep:
    """A budget counts a sweep's seconds from its beginning."""
    if before is None or sweep.budget.seconds is None:
        return sweep
    return replace(sweep, budget=replace(sweep.budget, seconds=sweep.budget.seconds + before.seconds))


class _Ears:
    """Observer that writes down when each report came, in seconds of the sweep."""

    def __init__(self, path: Path, metric: str, before: float) -> None:
        self._path, self._metric, self._before, self._began = path, metric, before, time.monotonic()
        self._known = {(row["trial"], row["step"]) for row in _json_lines(path)}

    def trial(self, trial: Trial) -> None:
        for point in trial.points:
            if (trial.id, point.step) not in self._known:
                self._known.add((trial.id, point.step))
                seconds = self._before + time.monotonic() - self._began
                row = {"seconds": seconds, "trial": trial.id, "step": point.step, "value": point.measures[self._metric]}
                with self._path.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def _ratio(out: Path, seed: int, target: float) -> dict[str, float]:
    first = {
        arm: min(s for s, value in _told(out / _arm_name(arm, seed) / "told.jsonl") if value >= target) for arm in ARMS
    }
    ratio = first["none"] / first["asha"]
    return {"target": target, "asha_seconds": first["asha"], "none_seconds": first["none"], "none_over_asha": ratio}


def _told(path: Path) -> list[tuple[float, float]]:
    return [(row["seconds"], row["value"]) for row in _json_lines(path)]


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines: a kill may have cut the last one."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def _outcome(result: SweepResult, goal: Goal) -> dict[str, Any]:
    best = result.best(goal)
    point = None if best is None else best.best(goal)
    states = [trial.state for trial in result.trials]
    slots = sum(trial.seconds for trial in result.trials)
    return {
        "trials": len(states),
        "states": {state: states.count(state) for state in dict.fromkeys(states)},
        "best": None if point is None else point.measures[goal.metric],
        "settings": {} if best is None else best.settings,
        "share_outside_steps": 1 - sum(trial.training_s for trial in result.trials) / slots if slots else None,
    }


def coco_data(out: Path) -> Path:
    """COCO's captions and boxes, prepared once."""
    source = CocoSource(None, COCO / "boxes.json", COCO / "boxes_captions.json")
    prepare(source, out / "data", resolve("tiny", None, SETTINGS), run_here)
    return out / "data"


def _sweep(out: Path, run: str, data: Path, config: Config, budget: Budget, scheduler: Scheduler) -> Sweep:
    goal = Goal("label_f1", "max")
    space = default_space(("boxes",), config)
    return Sweep(run, ("boxes",), config, data, str(out), space, goal, budget, "random", scheduler, 0)


def _rows(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _keep(path: Path, rows: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(rows, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the parts that are asked for, and keep their figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_sweep", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=30.0, metavar="M", help="of each part (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/sweep"), metavar="DIR")
    parser.add_argument("--trials", type=int, default=16, help="of part asha (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="of part asha (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=900, help="of parts overhead and asha (default: %(default)s)")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for part in options.parts or PARTS:
        if part == "overhead":
            config = resolve("tiny", None, (*SETTINGS, f"boxes.training.steps={options.steps}"))
            found = overhead(out, coco_data(out), config)
        elif part == "boxes":
            found = boxes(out, options.minutes)
        else:
            found = asha(out, options.minutes, options.trials, options.steps, options.seeds)
        figures = _rows(out / "figures.json") | {part: found}
        _keep(out / "figures.json", figures)
        print(json.dumps({part: found}, indent=1), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
