"""Plots of a sweep: PNG files with matplotlib and one self-contained page with plotly."""

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from objgan.files import write_atomically
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

_HEIGHT = 440

_FEWEST = 5


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


def write_page(drawn: Any, path: Path) -> Path:
    """Write the page of `pictures.Drawn`."""
    import plotly.io

    parts = []
    for number, figure in enumerate(
        filter(None, (_parallel(drawn), _history(drawn), _curves(drawn), _importance(drawn)))
    ):
        figure.update_layout(
            template="plotly_white", height=_HEIGHT, margin={"l": 70, "r": 70, "t": 120 if number == 0 else 70, "b": 50}
        )
        script = "inline" if number == 0 else False
        parts.append(plotly.io.to_html(figure, full_html=False, include_plotlyjs=script, config={"displaylogo": False}))
    title = html.escape(f"Sweep {drawn.title}")
    style = "body{font:15px system-ui,sans-serif;margin:24px auto;max-width:1180px;color:#222}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
    write_atomically(path, f"{head}<h1>{title}</h1>{''.join(parts)}</html>\n")
    return path


def _parallel(drawn: Any) -> Any:
    """Axes to brush: drag along one, and the other trials fade."""
    import plotly.graph_objects as go

    short = short_names(list(drawn.space.knobs))
    values = [drawn.value(point) for _, point in drawn.rows]
    dimensions = [
        _dimension(short[name], knob, [trial.settings.get(name) for trial, _ in drawn.rows])
        for name, knob in drawn.space.knobs.items()
    ]
    dimensions.append({"label": drawn.goal.metric, "values": values})
    reverse = drawn.goal.mode == "min"
    line = {"color": values, "colorscale": "Viridis", "reversescale": reverse, "showscale": True}
    figure = go.Figure(go.Parcoords(line=line, dimensions=dimensions, labelfont={"size": 12}))
    return figure.update_layout(title="Parallel coordinates: drag along an axis to choose trials")


def _dimension(label: str, knob: Knob, values: list[Any]) -> dict[str, Any]:
    if knob.kind == "choice":
        known = [repr(value) for value in knob.values]
        at = [known.index(repr(value)) if repr(value) in known else None for value in values]
        ticks = {"tickvals": list(range(len(known))), "ticktext": [text(value) for value in knob.values]}
        return {"label": label, "values": at, "range": [0, len(known) - 1], **ticks}
    if knob.kind != "log_uniform":
        return {"label": label, "values": values, "range": [knob.low, knob.high]}
    low, high = math.log10(knob.low), math.log10(knob.high)
    marks = [knob.low * (knob.high / knob.low) ** (i / 4) for i in range(5)]
    ticks = {"tickvals": [math.log10(mark) for mark in marks], "ticktext": [f"{mark:.2g}" for mark in marks]}
    return {"label": label, "values": [math.log10(value) for value in values], "range": [low, high], **ticks}


def _history(drawn: Any) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    for state in dict.fromkeys(trial.state for trial, _ in drawn.rows):
        rows = [(trial, point) for trial, point in drawn.rows if trial.state == state]
        hover = ["<br>".join(f"{n}: {text(v)}" for n, v in trial.settings.items()) for trial, _ in rows]
        x, y = [trial.number for trial, _ in rows], [drawn.value(point) for _, point in rows]
        figure.add_scatter(x=x, y=y, mode="markers", marker={"size": 10}, name=state, text=hover)
    return figure.update_layout(
        title="History: each trial's best report", xaxis_title="trial", yaxis_title=drawn.goal.metric
    )


def _curves(drawn: Any) -> Any:
    import plotly.graph_objects as go

    figure, metric = go.Figure(), drawn.goal.metric
    for trial, _ in drawn.rows:
        points = [point for point in trial.points if math.isfinite(point.measures.get(metric, math.nan))]
        width = 4 if trial.id == drawn.best.id else 1.5
        figure.add_scatter(
            x=[point.step for point in points],
            y=[point.measures[metric] for point in points],
            mode="lines+markers",
            line={"width": width},
            name=f"trial {trial.number}",
        )
    return figure.update_layout(title="Learning curves", xaxis_title="step", yaxis_title=metric)


def _importance(drawn: Any) -> Any:
    import plotly.graph_objects as go

    found = importances(drawn.result, drawn.space, drawn.goal)
    if found is None:
        return None
    shares, step, trials = found
    ordered = sorted(shares.items(), key=lambda row: row[1])
    short = short_names(list(drawn.space.knobs))
    figure = go.Figure(
        go.Bar(x=[share for _, share in ordered], y=[short[name] for name, _ in ordered], orientation="h")
    )
    return figure.update_layout(title=f"Importance (fANOVA) at step {step}, {trials} trials", xaxis_tickformat=".0%")


def compared_step(result: SweepResult, goal: Goal) -> int | None:
    """The step at which trials are compared fairly: the latest one that three quarters of them reached.

    A trial that was stopped early has a worse best for want of steps, which says nothing of its settings.
    """
    told = [trial for trial in result.trials if trial.best(goal.metric, goal.mode) is not None]
    last = sorted((max(p.step for p in trial.points if _finite(p.measures, goal)) for trial in told), reverse=True)
    return last[-(-3 * len(last) // 4) - 1] if last else None


def value_at(trial: Trial, goal: Goal, step: int) -> float | None:
    """The best measure up to a step; None for a trial that did not get there."""
    points = [point for point in trial.points if _finite(point.measures, goal)]
    if not points or points[-1].step < step:
        return None
    values = [point.measures[goal.metric] for point in points if point.step <= step]
    return (max(values) if goal.mode == "max" else min(values)) if values else None


def importances(result: SweepResult, space: Space, goal: Goal) -> tuple[dict[str, float], int, int] | None:
    """How much each knob decides the measure, adding up to 1; at which step, over how many trials (fANOVA).

    None: too few trials got there, or all of them measure the same.
    """
    step = compared_step(result, goal)
    if step is None:
        return None
    rows = [(trial, value) for trial in result.trials if (value := value_at(trial, goal, step)) is not None]
    if len(rows) < _FEWEST or len({value for _, value in rows}) < 2:
        return None
    optuna = quiet_optuna()
    study = optuna.create_study(direction="maximize" if goal.mode == "max" else "minimize")
    spread = {name: knob for name, knob in space.knobs.items() if len({str(t.settings[name]) for t, _ in rows}) > 1}
    distributions = {name: distribution(knob) for name, knob in spread.items()}
    for trial, value in rows:
        settings = {name: trial.settings[name] for name in spread}
        study.add_trial(optuna.trial.create_trial(params=settings, distributions=distributions, value=value))
    # Of Optuna's three it told the two knobs that matter from six that do not best at 13 trials.
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError):
        return None
    return {name: float(share) for name, share in found.items()}, step, len(rows)


def distribution(knob: Knob) -> Any:
    """A knob as Optuna knows it."""
    kinds = quiet_optuna().distributions
    if knob.kind == "choice":
        return kinds.CategoricalDistribution(knob.values)
    if knob.kind == "integer":
        return kinds.IntDistribution(int(knob.low), int(knob.high))
    return kinds.FloatDistribution(knob.low, knob.high, log=knob.kind == "log_uniform")


def quiet_optuna() -> Any:
    """Optuna without its lines of its own."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def axis_names(space: Space) -> Mapping[str, str]:
    """Short names of the knobs, for axes."""
    return short_names(list(space.knobs))


def _finite(measures: Mapping[str, float], goal: Goal) -> bool:
    return math.isfinite(measures.get(goal.metric, math.nan))
