"""Plots of a sweep, drawn by Optuna: PNG files with matplotlib and one self-contained page with plotly.

Optuna and the libraries it draws with are imported where they are used: together they take more than a second.
"""

import contextlib
import html
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from objgan.config import flatten
from objgan.files import write_atomically
from tune.report.tables import front_lines, short_names, text
from tune.space.space import Knob, Space
from tune.sweep.results import SweepResult, Trial
from tune.sweep.sweep import Goal, Sweep

_BEST, _RECIPE = "#e8a33d", "#c2185b"
_FEWEST = 5
"""Fewer trials are not compared for importance."""
_DRAWN = (2, 3)
"""Numbers of metrics of a front that Optuna draws."""


@dataclass(frozen=True)
class _Plotted:
    """A sweep as it is drawn. study: see `sweep_study`; recipe: values of the searched settings, by short name."""

    sweep: Sweep
    result: SweepResult
    study: Any
    knobs: dict[str, Knob]
    recipe: dict[str, Any]

    @property
    def trials(self) -> list[Any]:
        """The study's trials that have a value."""
        return [trial for trial in self.study.trials if trial.value is not None]

    @cached_property
    def important(self) -> list[str]:
        """The settings by importance (fANOVA), the most important first; none if it is not known."""
        import optuna

        compared = importance_study(self.result, self.sweep.space, self.sweep.goal)
        with contextlib.suppress(ValueError, RuntimeError):
            if compared is not None:
                fanova = optuna.importance.FanovaImportanceEvaluator(seed=0)
                return list(optuna.importance.get_param_importances(compared[0], evaluator=fanova))
        return []

    @property
    def best(self) -> Any:
        """The best trial; None: all break a requirement."""
        best = self.result.best(self.sweep.goal)
        return None if best is None else self.study.trials[best.number]

    def by_state(self) -> dict[str, list[Any]]:
        """These trials by how they ended, and whether they break a requirement."""
        states: dict[str, list[Any]] = {}
        for trial in self.trials:
            broken = any(violation > 0 for violation in trial.constraints.values())
            states.setdefault(trial.user_attrs["state"] + (", breaks --require" if broken else ""), []).append(trial)
        return states


def draw_pictures(sweep: Sweep, result: SweepResult, folder: Path) -> list[Path]:
    """Write the plots into `folder` and return their files: none if no trial has a value of the goal's metric."""
    sweep = replace(sweep, space=_shown(sweep.space, result))
    knobs, settings = sweep.space.knobs, flatten(sweep.config)
    short = short_names(list(knobs))
    plotted = _Plotted(
        sweep,
        result,
        sweep_study(result, sweep.space, replace(sweep.goal, others=())),
        {short[name]: knob for name, knob in knobs.items()},
        {short[name]: settings.get(name) for name in knobs},
    )
    if not plotted.trials:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    return [*_write_images(plotted, folder), _write_page(plotted, folder / "sweep.html")]


def _shown(space: Space, result: SweepResult) -> Space:
    """The settings that all trials have, with ranges that also contain values from outside of the search."""
    shown = {}
    for name, knob in space.knobs.items():
        if knob.when:
            continue
        others = [t.settings[name] for t in result.trials if name in t.settings and not knob.contains(t.settings[name])]
        if knob.kind == "choice":
            shown[name] = replace(knob, values=(*knob.values, *dict.fromkeys(others)))
            continue
        ends = [knob.low, knob.high]
        ends += [value for value in others if isinstance(value, int | float) and (value > 0 or not knob.log)]
        shown[name] = replace(knob, low=min(ends), high=max(ends))
    return Space(shown)


def _draw(visualization: Any, plotted: _Plotted) -> dict[str, tuple[str, Any]]:
    """Title and plot by name of the file, by `optuna.visualization` or by its twin for matplotlib."""
    import optuna

    sweep, study = plotted.sweep, plotted.study
    without = len(study.trials) - len(plotted.trials)
    note = f" ({without} without a value)" if without else ""
    history = visualization.plot_optimization_history(study, target_name=sweep.goal.metric)
    plots = {
        "history": (f"history, each trial's best report{note}", history),
        "curves": ("learning curves", visualization.plot_intermediate_values(study)),
    }
    if len(sweep.goal.objectives) in _DRAWN:
        names = [objective.metric for objective in sweep.goal.objectives]
        front = sweep_study(plotted.result, sweep.space, sweep.goal)
        plot = visualization.plot_pareto_front(front, target_names=names)
        plots["pareto_front"] = ("Pareto front", plot)
    if (compared := importance_study(plotted.result, sweep.space, sweep.goal)) is not None:
        study, step = compared
        hint = "; few, so only a hint" if len(study.trials) < 20 else ""
        title = f"importance of settings (fANOVA at step {step}, {len(study.trials)} trials{hint})"
        # Of Optuna's evaluators, fANOVA separated two settings that matter from six that do not best (13 trials). It
        # refuses values that its trees do not separate.
        fanova = optuna.importance.FanovaImportanceEvaluator(seed=0)
        with contextlib.suppress(ValueError, RuntimeError):
            plot = visualization.plot_param_importances(study, fanova, target_name=sweep.goal.metric)
            plots["importance"] = (title, plot)
    return plots


def _of_settings(visualization: Any, plotted: _Plotted) -> dict[str, tuple[str, Any]]:
    """Slices, contours and the distribution of the values, as `_draw`: for matplotlib, a plot may be many axes."""
    study, metric = plotted.study, plotted.sweep.goal.metric
    # A contour needs two settings with two values each.
    varied = [name for name in sorted(plotted.knobs) if len({str(t.params.get(name)) for t in plotted.trials}) > 1]
    plots = {
        "edf": (
            "share of trials whose best report is at most a value",
            visualization.plot_edf(study, target_name=metric),
        )
    }
    if varied:
        plots["slice"] = ("each setting alone", visualization.plot_slice(study, varied, target_name=metric))
    if len(varied) > 1:
        # The two that matter most; the first two, if importance is not known.
        pair = list(dict.fromkeys([*(name for name in plotted.important if name in varied), *varied]))[:2]
        title = f"{pair[0]} and {pair[1]} together"
        plots["contour"] = (title, visualization.plot_contour(study, pair, target_name=metric))
    return plots


def _write_images(plotted: _Plotted, folder: Path) -> list[Path]:
    import matplotlib as mpl
    import optuna
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    with mpl.rc_context({"figure.figsize": (9, 5)}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls these functions experimental.
        visualization = optuna.visualization.matplotlib
        # First, because the other functions change the style.
        parallel = visualization.plot_parallel_coordinate(plotted.study, target_name=plotted.sweep.goal.metric)
        _mark_parallel(parallel, plotted)
        plots = {"parallel_coordinates": ("parallel coordinates", parallel), **_draw(visualization, plotted)}
        _mark_history(plots["history"][1], plotted)
        _mark_curves(plots["curves"][1], plotted)
        if "importance" in plots:
            plots["importance"][1].get_legend().remove()
        for name, (title, axes) in (plots | _of_settings(visualization, plotted)).items():
            first = np.ravel(axes)[0]
            first.figure.suptitle("")
            first.set_title("")
            first.set_title(f"{plotted.sweep.run}: {title}", loc="left", fontsize=12, pad=14)
            if name == "slice":
                first.figure.set_size_inches(3 + 2.5 * np.size(axes), 4)
            first.figure.savefig(folder / f"{name}.png", dpi=130, bbox_inches="tight")
            plots[name] = (title, axes)
        pyplot.close("all")
    return [folder / f"{name}.png" for name in plots]


def _mark_history(axes: Any, plotted: _Plotted) -> None:
    """A colour for each state instead of one for all, and a ring around the best trial."""
    for points in list(axes.collections):
        points.remove()
    axes.set_prop_cycle(color=["tab:blue", "tab:green", "tab:purple", "tab:gray", "tab:brown"])
    for state, trials in plotted.by_state().items():
        numbers, values = [trial.number for trial in trials], [trial.value for trial in trials]
        axes.scatter(numbers, values, label=f"{state} ({len(trials)})", zorder=3)
    if (best := plotted.best) is not None:
        ring = {"facecolor": "none", "edgecolor": _BEST, "linewidth": 2, "zorder": 4}
        axes.scatter([best.number], [best.value], s=150, label=f"trial {best.number}: {best.value:.4g}", **ring)
    axes.set_ylabel(_axis_title(plotted.sweep.goal))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(bbox_to_anchor=(1.02, 1.0), loc="upper left")


def _mark_curves(axes: Any, plotted: _Plotted) -> None:
    """The best trial stands out. A legend of all trials would be longer than the plot."""
    best = None if plotted.best is None else plotted.best.number
    for line in axes.get_lines():
        line.set_linewidth(1.2)
        if line.get_label() == f"Trial{best}":
            line.set(color=_BEST, linewidth=3, alpha=1, zorder=3)
            axes.legend([line], [f"trial {best}, the best"])
    axes.set_ylabel(_axis_title(plotted.sweep.goal))


def _mark_parallel(axes: Any, plotted: _Plotted) -> None:
    """Lines for the recipe's own settings and for the best trial. Optuna sorts the settings by name."""
    best, names, metric = plotted.best, sorted(plotted.knobs), plotted.sweep.goal.metric
    # Optuna's first axis shows the metric, the second one is the colour bar.
    scales = dict(zip(names, axes.figure.axes[2:], strict=True))
    ends = axes.get_ylim()
    lines = [("recipe", math.nan, plotted.recipe, _RECIPE)]
    if best is not None:
        top = (best.value - ends[0]) / (ends[1] - ends[0])
        lines.append((f"trial {best.number}, the best", top, best.params, _BEST))
    for label, first, settings, colour in lines:
        heights = [first, *(_height(scales[name], plotted.knobs[name], settings.get(name)) for name in names)]
        style = {"color": colour, "marker": "D", "linewidth": 2, "clip_on": False}
        axes.plot(range(len(heights)), heights, label=label, transform=axes.get_xaxis_transform(), **style)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncol=2, frameon=False)
    axes.set_xticks(range(len(names) + 1), [metric, *names], rotation=20, ha="right")
    axes.figure.set_size_inches(4 + 1.2 * len(names), 5)
    for scale in scales.values():
        for label in scale.get_yticklabels(which="both"):
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5})


def _height(scale: Any, knob: Knob, value: Any) -> float:
    """The place of a value on an axis of Optuna's plot, 0 to 1, at an end if it lies beyond; NaN: it has none."""
    if knob.kind == "choice":
        labels = [label.get_text() for label in scale.get_yticklabels()]
        value = scale.get_yticks()[labels.index(str(value))] if str(value) in labels else None
    if value is None:
        return math.nan
    pixels = scale.transData.transform((0, value))
    return float(np.clip(scale.transAxes.inverted().transform(pixels)[1], 0, 1))


def _write_page(plotted: _Plotted, path: Path) -> Path:
    import optuna
    import plotly.io

    title = "parallel coordinates: drag along an axis to select trials"
    plots = {"parallel_coordinates": (title, _brushable(plotted)), **_draw(optuna.visualization, plotted)}
    plots |= _of_settings(optuna.visualization, plotted)
    history, curves = plots["history"][1], plots["curves"][1]
    history.update_traces(visible=False, selector={"mode": "markers"})
    for state, trials in plotted.by_state().items():
        hover = ["<br>".join(f"{name}: {text(value)}" for name, value in trial.params.items()) for trial in trials]
        points = {"x": [trial.number for trial in trials], "y": [trial.value for trial in trials], "text": hover}
        history.add_scatter(mode="markers", marker_size=10, name=state, **points)
    if plotted.best is not None:
        curves.update_traces(line_width=4, selector={"name": f"Trial{plotted.best.number}"})
    curves.update_layout(yaxis_title=_axis_title(plotted.sweep.goal), showlegend=True)
    parts: list[str] = []
    for title, figure in plots.values():
        margin = {"l": 70, "r": 70, "t": 70 if parts else 120, "b": 50}
        figure.update_layout(title={"text": title}, template="plotly_white", height=440, margin=margin)
        script = False if parts else "inline"
        parts.append(plotly.io.to_html(figure, full_html=False, include_plotlyjs=script, config={"displaylogo": False}))
    heading = html.escape(f"Sweep {plotted.sweep.run}")
    style = "body{font:15px system-ui,sans-serif;margin:24px auto;max-width:1180px;color:#222}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{heading}</title><style>{style}</style>'
    write_atomically(path, f"{head}<h1>{heading}</h1>{_front(plotted)}{''.join(parts)}</html>\n")
    return path


def _front(plotted: _Plotted) -> str:
    """The trials of the Pareto front as a table."""
    goal = plotted.sweep.goal
    if not goal.others:
        return ""
    lines = "\n".join(front_lines(plotted.result, goal))
    return f"<h2>Pareto front</h2><pre>{html.escape(lines)}</pre>"


def _brushable(plotted: _Plotted) -> Any:
    """Parallel coordinates in which dragging along an axis selects trials. Optuna's version cannot do this."""
    import plotly.graph_objects

    trials, goal = plotted.trials, plotted.sweep.goal
    values = [trial.value for trial in trials]
    dimensions = [
        _dimension(name, knob, [trial.params.get(name) for trial in trials], plotted.recipe[name])
        for name, knob in plotted.knobs.items()
    ]
    dimensions.append({"label": goal.metric, "values": values})
    line = {"color": values, "colorscale": "Viridis", "reversescale": goal.mode == "min", "showscale": True}
    lines = plotly.graph_objects.Parcoords(line=line, dimensions=dimensions, labelfont={"size": 12})
    return plotly.graph_objects.Figure(lines)


def _dimension(name: str, knob: Knob, values: list[Any], recipe: Any) -> dict[str, Any]:
    """An axis over the knob's whole range, extended to the recipe's value, which has a tick of its own."""
    spaced = np.geomspace if knob.log else np.linspace
    ticks = knob.values if knob.kind == "choice" else [float(value) for value in spaced(knob.low, knob.high, 5)]
    labels = {_place(knob, value): text(value) for value in ticks}
    at, low, high = _place(knob, recipe), min(labels), max(labels)
    if math.isfinite(at):
        low, high = min(low, at), max(high, at)
        near = 0.06 * (high - low)
        labels = {place: label for place, label in labels.items() if abs(place - at) > near}
        labels[at] = f"{text(recipe)} (recipe)"
    places = [_place(knob, value) for value in values]
    ends = {"range": [low, high], "tickvals": list(labels), "ticktext": list(labels.values())}
    return {"label": name, "values": places, **ends}


def _place(knob: Knob, value: Any) -> float:
    """The place of a value on its axis; NaN: it has none."""
    if knob.kind == "choice":
        known = [repr(each) for each in knob.values]
        return float(known.index(repr(value))) if repr(value) in known else math.nan
    if value is None or (knob.log and value <= 0):
        return math.nan
    return math.log10(value) if knob.log else float(value)


def sweep_study(result: SweepResult, space: Space, goal: Goal) -> Any:
    """Optuna's study of all trials, each under its number; those without a value of the goal's metric are FAIL."""
    trials = {trial.number: trial for trial in result.trials}
    nothing = Trial("", 0, {})
    return _study([trials.get(number, nothing) for number in range(max(trials, default=-1) + 1)], space, goal)


def importance_study(result: SweepResult, space: Space, goal: Goal) -> tuple[Any, int] | None:
    """A study of the trials that can be compared, with their values at one step, and this step.

    Settings with a single value are left out. So are requirements and further metrics, because they do not change what
    matters for the first one. None: fewer than `_FEWEST` trials, or all values are equal.
    """
    goal = replace(goal, requires=(), others=())
    step = compared_step(result, goal)
    if step is None:
        return None
    reached = [trial for trial in result.trials if max(_reports(trial, goal), default=-1) >= step]
    trials = [replace(trial, points=tuple(point for point in trial.points if point.step <= step)) for trial in reached]
    trials = [trial for trial in trials if _reports(trial, goal)]
    varied = {name: knob for name, knob in space.knobs.items() if len({str(t.settings.get(name)) for t in trials}) > 1}
    study = _study(trials, Space(varied), goal)
    return (study, step) if len(trials) >= _FEWEST and len({trial.value for trial in study.trials}) > 1 else None


def compared_step(result: SweepResult, goal: Goal) -> int | None:
    """The step at which trials are compared: the latest one that three quarters of them reached.

    A trial that was stopped early has a worse best value because it had fewer steps, not because of its settings.
    """
    last = sorted((max(reports) for trial in result.trials if (reports := _reports(trial, goal))), reverse=True)
    return last[-(-3 * len(last) // 4) - 1] if last else None


def _reports(trial: Trial, goal: Goal) -> dict[int, float]:
    """The finite values of the goal's metric, by step."""
    values = {point.step: point.measures.get(goal.metric, math.nan) for point in trial.points}
    return {step: value for step, value in values.items() if math.isfinite(value)}


def _study(trials: Iterable[Trial], space: Space, goal: Goal) -> Any:
    """Trials with settings by short name, reports, and the best report as value."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=goal.directions)
    short = short_names(list(space.knobs))
    distributions = {short[name]: _distribution(knob) for name, knob in space.knobs.items()}
    for trial in trials:
        inside = {short[n]: trial.settings[n] for n, k in space.knobs.items() if k.contains(trial.settings.get(n))}
        facts: dict[str, Any] = {"state": optuna.trial.TrialState.FAIL}
        if (report := trial.report(goal)) is not None:
            facts = {
                "values": goal.values(report.measures),
                "constraints": goal.violations(report.measures),
                "intermediate_values": _reports(trial, goal),
                "params": inside,
                "distributions": {name: distributions[name] for name in inside},
                "user_attrs": {"state": trial.state},
            }
        study.add_trial(optuna.trial.create_trial(**facts))
    return study


def _distribution(knob: Knob) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if knob.kind == "choice":
        return CategoricalDistribution(knob.values)
    if knob.whole:
        return IntDistribution(int(knob.low), int(knob.high), log=knob.log)
    return FloatDistribution(knob.low, knob.high, log=knob.log)


def _axis_title(goal: Goal) -> str:
    return f"{goal.metric} ({'more' if goal.mode == 'max' else 'less'} is better)"
