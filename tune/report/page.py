"""One self-contained page of a sweep: plotly's figures to hover over, brush and zoom, without a network."""

import html
import math
from pathlib import Path
from typing import Any

from objgan.files import write_atomically
from tune.report.study import importances
from tune.report.tables import short_names, text
from tune.space.space import Knob

_HEIGHT = 440


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
