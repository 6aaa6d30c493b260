"""Pictures of a sweep: history, learning curves, parallel coordinates, importance. PNG by matplotlib; one HTML page."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tune.report.study import importances
from tune.report.tables import short_names, text
from tune.space.space import Knob, Space
from tune.sweep.results import Point, State, SweepResult, Trial
from tune.sweep.sweep import Goal, Sweep

_COLOURS: dict[State, str] = {
    "finished": "#1b6ca8",
    "stopped": "#e8a33d",
    "failed": "#c0392b",
    "diverged": "#c0392b",
    "crashed": "#8e44ad",
    "interrupted": "#7f8c8d",
    "running": "#27ae60",
    "pending": "#bdc3c7",
}
_BEST, _GREY = "#c2185b", "#9aa5b1"
_SCALE = mpl.colormaps["viridis"]


@dataclass(frozen=True)
class Drawn:
    """What the pictures are of: trials with a measure, by number, each with its best report."""

    title: str
    goal: Goal
    space: Space
    rows: tuple[tuple[Trial, Point], ...]
    best: Trial
    result: SweepResult

    def value(self, point: Point) -> float:
        """The measure of a report."""
        return point.measures[self.goal.metric]

    def share(self, value: float) -> float:
        """0 for the worst trial's measure, 1 for the best one's."""
        values = [self.value(point) for _, point in self.rows]
        low, high = min(values), max(values)
        share = (value - low) / ((high - low) or 1.0)
        return share if self.goal.mode == "max" else 1 - share


def draw_pictures(sweep: Sweep, result: SweepResult, folder: Path) -> list[Path]:
    """Write the pictures that these trials allow; the files written. None where no trial has a measure."""
    drawn = gather(sweep, result)
    if drawn is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    plots: dict[str, Callable[[Drawn], Figure | None]] = {
        "history": history,
        "curves": curves,
        "parallel_coordinates": parallel_coordinates,
        "importance": importance,
    }
    written = []
    for name, plot in plots.items():
        figure = plot(drawn)
        if figure is not None:
            figure.savefig(folder / f"{name}.png", dpi=130)
            written.append(folder / f"{name}.png")
    from tune.report.page import write_page

    return [*written, write_page(drawn, folder / "sweep.html")]


def gather(sweep: Sweep, result: SweepResult) -> Drawn | None:
    """What there is to draw; None: no trial has a measure."""
    goal = sweep.goal
    best = result.best(goal.metric, goal.mode)
    told = [(trial, trial.best(goal.metric, goal.mode)) for trial in result.trials]
    rows = tuple((trial, point) for trial, point in told if point is not None)
    return None if best is None else Drawn(sweep.run, goal, sweep.space, rows, best, result)


def history(drawn: Drawn) -> Figure:
    """Each trial's best measure by its number, how it ended, and the best so far."""
    figure, axes = _figure(drawn, "history", "each trial's best report")
    numbers = [trial.number for trial, _ in drawn.rows]
    values = [drawn.value(point) for _, point in drawn.rows]
    running = np.maximum.accumulate(values) if drawn.goal.mode == "max" else np.minimum.accumulate(values)
    axes.step(numbers, running, where="post", color=_GREY, linewidth=1.5, label="best so far", zorder=1)
    for state in dict.fromkeys(trial.state for trial, _ in drawn.rows):
        at = [i for i, (trial, _) in enumerate(drawn.rows) if trial.state == state]
        label = f"{state} ({len(at)})"
        x, y = [numbers[i] for i in at], [values[i] for i in at]
        axes.scatter(x, y, s=46, color=_COLOURS[state], label=label, zorder=2, edgecolor="white", linewidth=0.7)
    _ring(axes, drawn)
    without = [trial.number for trial in drawn.result.trials if all(trial.id != t.id for t, _ in drawn.rows)]
    if without:
        bottom = [0.03] * len(without)
        transform = axes.get_xaxis_transform()
        axes.scatter(without, bottom, marker="x", color=_COLOURS["failed"], transform=transform, label="no measure")
    axes.set_xlabel("trial")
    axes.set_ylabel(_measure(drawn.goal))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9)
    return figure


def curves(drawn: Drawn) -> Figure:
    """The measure over a trial's steps; the best trial stands out."""
    figure, axes = _figure(drawn, "learning curves", "every report of every trial")
    for trial, best in sorted(drawn.rows, key=lambda row: row[0].id == drawn.best.id):
        points = [point for point in trial.points if math.isfinite(point.measures.get(drawn.goal.metric, math.nan))]
        x, y = [point.step for point in points], [drawn.value(point) for point in points]
        chosen = trial.id == drawn.best.id
        colour = _BEST if chosen else _SCALE(0.9 * drawn.share(drawn.value(best)))
        label = f"trial {trial.number}, the best" if chosen else None
        size = 5 if chosen else 3
        axes.plot(x, y, color=colour, marker="o", markersize=size, linewidth=2.4 if chosen else 1.2, label=label)
        if trial.state == "stopped":
            axes.plot(x[-1], y[-1], marker="|", markersize=11, markeredgewidth=2, color=colour)
    axes.set_xlabel("step (a bar: stopped by the scheduler)")
    axes.set_ylabel(_measure(drawn.goal))
    axes.legend(frameon=False, fontsize=9)
    return figure


def parallel_coordinates(drawn: Drawn) -> Figure:
    """A line a trial through its settings, each axis on the scale that it was drawn from."""
    names = list(drawn.space.knobs)
    figure, axes = _figure(
        drawn, "parallel coordinates", "a line a trial, the best one on top", 2.0 + 1.35 * len(names)
    )
    values = [drawn.value(point) for _, point in drawn.rows]
    low, high = min(values), max(values)
    faint = 0.35 if len(values) <= 20 else 0.15
    for trial, point in sorted(drawn.rows, key=lambda row: drawn.share(drawn.value(row[1]))):
        heights = [place(drawn.space.knobs[name], trial.settings.get(name)) for name in names]
        heights.append((drawn.value(point) - low) / ((high - low) or 1.0))
        chosen, share = trial.id == drawn.best.id, drawn.share(drawn.value(point))
        colour = _BEST if chosen else _SCALE(0.9 * share)
        axes.plot(heights, color=colour, linewidth=2.6 if chosen else 1.3, alpha=1.0 if chosen else faint + 0.5 * share)
    for at, name in enumerate(names):
        _axis(axes, at, _ends(drawn.space.knobs[name]))
    _axis(axes, len(names), [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")])
    short = short_names(names)
    axes.set_xticks(range(len(names) + 1), [*(_wrap(short[name]) for name in names), drawn.goal.metric], fontsize=9)
    axes.set_xlim(-0.25, len(names) + 0.45)
    axes.set_ylim(-0.06, 1.06)
    axes.set_yticks([])
    axes.grid(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="x", length=0, pad=10)
    return figure


def importance(drawn: Drawn) -> Figure | None:
    """How much each setting decides the measure; None where too few trials can be compared."""
    found = importances(drawn.result, drawn.space, drawn.goal)
    if found is None:
        return None
    shares, step, trials = found
    note = f"fANOVA at step {step}, {trials} trials{'; few: a hint, no more' if trials < 20 else ''}"
    figure, axes = _figure(drawn, "importance of settings", note)
    short = short_names(list(drawn.space.knobs))
    ordered = sorted(shares.items(), key=lambda row: row[1])
    bars = axes.barh([short[name] for name, _ in ordered], [share for _, share in ordered], color=_COLOURS["finished"])
    axes.bar_label(bars, [f"{share:.0%}" for _, share in ordered], padding=4, fontsize=9)
    axes.set_xlim(0, 1.12 * max(*shares.values(), 0.01))
    axes.set_xticks([])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    return figure


def place(knob: Knob, value: Any) -> float:
    """Where a value stands on its knob's axis, 0 to 1; the same place for values that a later setting moved out."""
    if value is None:
        return 0.5
    if knob.kind == "choice":
        known = [repr(each) for each in knob.values]
        return known.index(repr(value)) / (len(known) - 1) if repr(value) in known else 0.5
    low, high, at = knob.low, knob.high, float(value)
    if knob.kind == "log_uniform":
        low, high, at = math.log(low), math.log(high), math.log(max(at, 1e-300))
    return min(1.0, max(0.0, (at - low) / (high - low)))


def _ends(knob: Knob) -> list[tuple[float, str]]:
    if knob.kind == "choice":
        return [(place(knob, value), text(value)) for value in knob.values]
    middle = math.sqrt(knob.low * knob.high) if knob.kind == "log_uniform" else (knob.low + knob.high) / 2
    return [(place(knob, value), f"{value:.2g}") for value in (knob.low, middle, knob.high)]


def _axis(axes: Axes, at: int, marks: list[tuple[float, str]]) -> None:
    axes.plot([at, at], [0, 1], color="#39424e", linewidth=1, zorder=3)
    for height, label in marks:
        axes.plot([at - 0.03, at + 0.03], [height, height], color="#39424e", linewidth=1, zorder=3)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
        axes.text(at + 0.06, height, label, fontsize=7.5, va="center", color="#39424e", zorder=4, bbox=box)


def _figure(drawn: Drawn, what: str, note: str, width: float = 8.0) -> tuple[Figure, Axes]:
    """A figure that belongs to nobody else: pyplot's are the process's."""
    figure = Figure(figsize=(max(8.0, width), 4.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{drawn.title}: {what}", loc="left", fontsize=12, fontweight="bold", pad=20)
    axes.text(0, 1.02, note, transform=axes.transAxes, fontsize=9, color="#5b6673")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#e6e9ed")
    axes.set_axisbelow(True)
    return figure, axes


def _ring(axes: Axes, drawn: Drawn) -> None:
    point = drawn.best.best(drawn.goal.metric, drawn.goal.mode)
    assert point is not None
    value = drawn.value(point)
    axes.scatter([drawn.best.number], [value], s=150, facecolor="none", edgecolor=_BEST, linewidth=2, zorder=3)
    label = f"trial {drawn.best.number}: {value:.4g}"
    axes.annotate(label, (drawn.best.number, value), xytext=(9, 7), textcoords="offset points", color=_BEST, fontsize=9)


def _measure(goal: Goal) -> str:
    return f"{goal.metric} ({'more' if goal.mode == 'max' else 'less'} is better)"


def _wrap(name: str) -> str:
    """Long names over two lines."""
    words = name.split("_")
    if len(name) < 13 or len(words) < 2:
        return name
    half = (len(words) + 1) // 2
    return "_".join(words[:half]) + "_\n" + "_".join(words[half:])
