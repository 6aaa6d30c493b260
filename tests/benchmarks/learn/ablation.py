"""Section `ablation`: the paper's claim in small. Full model against variants, equal parameters and minutes.

`python -m tests.benchmarks.learn.ablation RUN --out DIR [--minutes M]` does one run in a process of its own, as
`--parallel` does with several.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from objgan.files import read_json, write_atomically
from objgan.metrics.bootstrap import Interval, paired_difference
from pipelines.evaluation.judges import JUDGE, SECOND_ENCODERS
from pipelines.evaluation.protocols import FROM_CAPTIONS, FROM_LAYOUTS
from tests.benchmarks.learn.rows import Cell, Log, Options, Row, row_path
from tests.benchmarks.learn.sample_runs import EARLIER, SampleRuns, figures, per_image, timed
from tests.benchmarks.learn.variants import FULL, VARIANTS, sizes_of, variant_config

NAME = "ablation"
TITLE = "Ablation: what attention, object-wise discriminators and the layout are good for"
MINUTES = 8.0
REPOSITORY = Path(__file__).resolve().parents[3]

MEASURES = {
    f"{FROM_LAYOUTS}/object_accuracy": "objects",
    f"{FROM_LAYOUTS}/told_colour_accuracy": "stated colours",
    f"{FROM_LAYOUTS}/scene_accuracy": "backgrounds",
    f"{FROM_LAYOUTS}/r_precision": "R-precision",
    f"{FROM_CAPTIONS}/object_accuracy": "objects, captions alone",
    f"{FROM_CAPTIONS}/colour_accuracy": "colours, captions alone",
    f"{FROM_CAPTIONS}/scene_accuracy": "backgrounds, captions alone",
    f"{FROM_CAPTIONS}/r_precision": "R-precision, captions alone",
}
"""Shares over test images, the more the better; the first four from true layouts."""
DISTANCE = f"{FROM_LAYOUTS}/fd_encoder"
_CLAIM = f"{FROM_LAYOUTS}/object_accuracy"


@dataclass(frozen=True)
class Run:
    """One training."""

    variant: str
    seed: int

    @property
    def key(self) -> str:
        """Its cell's name."""
        return f"{self.variant}_{self.seed}"


def all_runs(seeds: int) -> list[Run]:
    """Seed by seed, so that what is there after any time can be compared."""
    return [Run(name, seed) for seed in range(seeds) for name in VARIANTS]


def cells(options: Options) -> list[Cell]:
    """A cell a run."""
    return [Cell(run.key, partial(_cell, options, run)) for run in all_runs(options.seeds)]


def measure(runs: SampleRuns, run: Run, minutes: float | None, folder: Path, log: Log) -> Row:
    """Train and evaluate; what is finished is kept in `folder`/result.json."""
    done = folder / "result.json"
    if done.exists():
        return dict(read_json(done, "result"))
    shared(runs, log)
    config = variant_config(run.variant, runs.config, runs.domain(log)).model_copy(update={"seed": run.seed})
    fitted = runs.images(config, folder, minutes, log)
    measured = runs.measure(config, fitted.checkpoint, folder, log)
    row = timed(fitted) | {
        "variant": run.variant,
        "seed": run.seed,
        "minutes": minutes,
        "parameters": asdict(sizes_of(config, runs.domain(log))),
        "figures": figures(measured),
        "samples": per_image(measured, tuple(MEASURES)),
    }
    write_atomically(done, json.dumps(row) + "\n")
    return row


def shared(runs: SampleRuns, log: Log) -> None:
    """What all runs share: data, earlier stages and judges."""
    for name in EARLIER:
        runs.stage(name, log)
    for name in (SECOND_ENCODERS, JUDGE):
        runs.judge(name, log)


def table(rows: dict[str, Row]) -> str:
    """Sizes, figures, differences to the full model, and the order that comes of them."""
    named = {name: _of(rows, name) for name in VARIANTS}
    parts = [_missing(named), _sizes(named), _figures(named), _differences(named), _order(named)]
    return "\n\n".join(part for part in parts if part)


def _cell(options: Options, run: Run, folder: Path, log: Log) -> Row:
    minutes = MINUTES if options.run_minutes is None else options.run_minutes
    runs = SampleRuns(options.out)
    if options.parallel > 1 and not (folder / "result.json").exists():
        shared(runs, log)
        _side_by_side(options, run, minutes, log)
    return measure(runs, run, minutes, folder, log)


def _side_by_side(options: Options, first: Run, minutes: float, log: Log) -> None:
    """This run and the next ones that are not done yet, each in a process and on a thread of its own."""
    runs = all_runs(options.seeds)
    to_do = [run for run in runs[runs.index(first) :] if not _is_done(options.out, run)][: options.parallel]
    log(f"{NAME}: {', '.join(run.key for run in to_do)} side by side")
    processes = {run.key: _start(options.out, run, minutes) for run in to_do}
    try:
        failed = [key for key, process in processes.items() if process.wait()]
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.terminate()
                process.wait()
    if failed:
        logs = ", ".join(str(options.out / NAME / key / "log.txt") for key in failed)
        raise RuntimeError(f"{NAME}: {', '.join(failed)} failed; see {logs}")


def _is_done(out: Path, run: Run) -> bool:
    return row_path(out, NAME, run.key).exists() or (out / NAME / run.key / "result.json").exists()


def _start(out: Path, run: Run, minutes: float) -> subprocess.Popen[bytes]:
    folder = out / NAME / run.key
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.benchmarks.learn.ablation", run.key]
    command += ["--out", str(out.resolve()), "--minutes", str(minutes), "--parent", str(os.getpid())]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def _of(rows: dict[str, Row], variant: str) -> dict[int, Row]:
    """A variant's rows by seed."""
    return {row["seed"]: row for row in rows.values() if row["variant"] == variant}


def _missing(named: dict[str, dict[int, Row]]) -> str:
    seeds = sorted({seed for rows in named.values() for seed in rows})
    lacking = [f"{name}_{seed}" for seed in seeds for name, rows in named.items() if seed not in rows]
    return f"Not there yet: {', '.join(lacking)}." if lacking else ""


def _sizes(named: dict[str, dict[int, Row]]) -> str:
    lines = ["| variant | seeds | minutes each | steps | generator | discriminators |", "|" + " --- |" * 6]
    for name, rows in named.items():
        if not rows:
            continue
        one = next(iter(rows.values()))
        minutes = np.mean([row["seconds"] for row in rows.values()]) / 60
        steps = round(float(np.mean([row["step"] for row in rows.values()])))
        sizes = [f"{one['parameters'][part] / 1e6:.2f} M" for part in ("generator", "discriminators")]
        lines.append(f"| {VARIANTS[name].title} | {len(rows)} | {minutes:.1f} | {steps} | {' | '.join(sizes)} |")
    return "\n".join(lines)


def _figures(named: dict[str, dict[int, Row]]) -> str:
    titles = [*MEASURES.values(), "FD (encoder)"]
    lines = [f"| variant | {' | '.join(titles)} |", "|" + " --- |" * (len(titles) + 1)]
    for name, rows in named.items():
        if rows:
            cells_ = [_mean_and_spread(rows, measure, 100.0) for measure in MEASURES]
            cells_.append(_mean_and_spread(rows, DISTANCE, 1.0))
            lines.append(f"| {VARIANTS[name].title} | {' | '.join(cells_)} |")
    note = "Mean over seeds (lowest to highest); shares in %; FD of the second encoders' features, the less the better."
    return "\n".join([*lines, "", note])


def _mean_and_spread(rows: dict[int, Row], measure: str, factor: float) -> str:
    values = [value * factor for row in rows.values() if (value := _value(row, measure)) is not None]
    if not values:
        return "–"
    digits = 1 if factor == 100 else 3
    spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def _value(row: Row, measure: str) -> float | None:
    one = row["figures"].get(measure)
    return None if one is None else one["value"]


def _differences(named: dict[str, dict[int, Row]]) -> str:
    others = [name for name, rows in named.items() if name != FULL and set(rows) & set(named[FULL])]
    if not others:
        return ""
    lines = [
        f"| full model less | {' | '.join(MEASURES.values())} |",
        "|" + " --- |" * (len(MEASURES) + 1),
    ]
    for name in others:
        found = [difference(named[FULL], named[name], measure) for measure in MEASURES]
        lines.append(f"| {VARIANTS[name].title} | {' | '.join(map(_signed, found))} |")
    note = (
        "Points of %, of each test image's mean over the seeds that both have; 95 % interval over test images, which "
        "says nothing of other seeds: for these see the spread above."
    )
    return "\n".join([*lines, "", note])


def difference(ours: dict[int, Row], theirs: dict[int, Row], measure: str) -> Interval | None:
    """Of a measure's mean over test images, ours - theirs, each image averaged over the seeds that both have."""
    seeds = sorted(set(ours) & set(theirs))
    pairs = [(ours[s]["samples"].get(measure), theirs[s]["samples"].get(measure)) for s in seeds]
    both = [(a, b) for a, b in pairs if a is not None and b is not None and a["ids"] == b["ids"]]
    if not both:
        return None
    first, second = (np.array([pair[side]["values"] for pair in both], np.float64).mean(0) for side in (0, 1))
    return paired_difference(first, second)


def _signed(found: Interval | None) -> str:
    if found is None or np.isnan(found.value):
        return "–"
    bounds = "" if np.isnan(found.low) else f" [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{100 * found.value:+.1f}{bounds}"


def _order(named: dict[str, dict[int, Row]]) -> str:
    """The variants from best to worst by each measure, and where the claim holds for every seed."""
    lines = []
    for measure, title in MEASURES.items():
        means = {
            name: float(np.mean(values))
            for name, rows in named.items()
            if (values := [value for row in rows.values() if (value := _value(row, measure)) is not None])
        }
        if len(means) > 1:
            ranked = sorted(means, key=lambda name: -means[name])
            lines.append(f"- {title}: " + ", ".join(f"{_short(name)} {100 * means[name]:.1f}" for name in ranked))
    wins = _wins(named)
    return "\n".join(["Best to worst:", "", *lines, *(["", *wins] if wins else [])]) if lines else ""


def _wins(named: dict[str, dict[int, Row]]) -> list[str]:
    """By objects from true layouts: with how many seeds the full model is ahead of each variant."""
    found = []
    for name, rows in named.items():
        pairs = [
            (_value(named[FULL][s], _CLAIM), _value(rows[s], _CLAIM)) for s in sorted(set(rows) & set(named[FULL]))
        ]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if name != FULL and known:
            found.append(f"{sum(a > b for a, b in known)} of {len(known)} seeds against {_short(name)}")
    return [f"By objects from true layouts the full model is ahead with {', '.join(found)}."] if found else []


def _short(name: str) -> str:
    return VARIANTS[name].title.split(" ")[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """One run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="VARIANT_SEED")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--parent", type=int, help="end when this process, which started it, is gone")
    asked = parser.parse_args(arguments)
    variant, _, seed = asked.run.rpartition("_")
    run = Run(variant, int(seed))

    def say(text: str) -> None:
        # Killed, the parent leaves its runs behind; its next start would have two of each in one folder.
        if asked.parent is not None and os.getppid() != asked.parent:
            sys.exit(f"{asked.run}: the process that started it is gone")
        print(text, flush=True)

    measure(SampleRuns(asked.out), run, asked.minutes, asked.out / NAME / run.key, say)


if __name__ == "__main__":
    main()
