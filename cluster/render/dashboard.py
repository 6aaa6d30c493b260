"""The Grafana dashboard, from the metrics of `cluster.render.alerts`."""

from dataclasses import dataclass
from typing import Any

Panel = dict[str, Any]

_WHERE = '{run=~"$run", stage=~"$stage"}'
_BY = "by (run, stage)"


@dataclass(frozen=True)
class Chart:
    """A panel: title, description, unit, queries (expression, legend), width of 24 columns, kind."""

    title: str
    text: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int = 8
    kind: str = "timeseries"


def _m(name: str) -> str:
    return f"ray_objgan_{name}{_WHERE}"


def _quantile(q: float, name: str) -> str:
    return f"histogram_quantile({q}, sum by (run, stage, le) (rate({_m(name + '_bucket')}[5m])))"


_LEGEND = "{{run}} {{stage}}"

CHARTS: tuple[Chart, ...] = (
    Chart(
        "Done",
        "Share of the stage's steps",
        "percentunit",
        ((f"max {_BY} ({_m('step')}) / max {_BY} ({_m('steps_total')})", _LEGEND),),
        kind="bargauge",
    ),
    Chart(
        "Time left",
        "At the speed of the last half hour",
        "s",
        (
            (
                f"(max {_BY} ({_m('steps_total')}) - max {_BY} ({_m('step')})) "
                f"/ (max {_BY} (deriv({_m('step')}[30m])) > 0)",
                _LEGEND,
            ),
        ),
        kind="stat",
    ),
    Chart(
        "Age of the last checkpoint",
        "What would be lost now",
        "s",
        ((f"max {_BY} ({_m('checkpoint_age_seconds')})", _LEGEND),),
        kind="stat",
    ),
    Chart(
        "Speed",
        "Samples a second, over all workers",
        "short",
        (
            (f"max {_BY} ({_m('samples_per_second')})", _LEGEND),
            (f"sum {_BY} (rate({_m('samples_total')}[5m]))", _LEGEND + " (5 min)"),
        ),
        width=12,
    ),
    Chart(
        "Step time",
        "Half of the steps, and 95 % of them, take less",
        "s",
        ((_quantile(0.5, "step_seconds"), _LEGEND + " 50 %"), (_quantile(0.95, "step_seconds"), _LEGEND + " 95 %")),
        width=12,
    ),
    Chart(
        "Waiting for data",
        "Share of a worker's time",
        "percentunit",
        ((f"avg {_BY} (rate({_m('data_wait_seconds_total')}[5m]))", _LEGEND),),
    ),
    Chart(
        "Writing checkpoints",
        "Beside training; half, and 90 %, take less",
        "s",
        (
            (_quantile(0.5, "checkpoint_seconds"), _LEGEND + " 50 %"),
            (_quantile(0.9, "checkpoint_seconds"), _LEGEND + " 90 %"),
        ),
    ),
    Chart("Step", "Falls back after a restart: what is replayed", "short", ((f"max {_BY} ({_m('step')})", _LEGEND),)),
    Chart(
        "Restarts",
        "Of the worker group, in an hour",
        "short",
        ((f"sum {_BY} (increase({_m('restarts_total')}[1h]))", _LEGEND),),
    ),
    Chart(
        "Skipped steps",
        "Loss or gradient not finite, in an hour",
        "short",
        ((f"sum {_BY} (increase({_m('skipped_steps_total')}[1h]))", _LEGEND),),
    ),
    Chart(
        "Rejected rows",
        "Left out by prepare, in an hour",
        "short",
        ((f"sum by (run) (increase({_m('rejected_rows_total')}[1h]))", "{{run}}"),),
    ),
)


def dashboard() -> dict[str, Any]:
    """Grafana's JSON; the data source is chosen at the top of the page."""
    return {
        "uid": "objgan",
        "title": "objgan",
        "tags": ["objgan", "ray"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_source(), _variable("run"), _variable("stage")]},
        "annotations": {"list": []},
        "panels": _panels(),
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": f"label_values(ray_objgan_step, {name})", "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
        "hide": 0,
    }


_DATASOURCE = {"type": "prometheus", "uid": "${source}"}


def _panels() -> list[Panel]:
    panels, x, y, height = [], 0, 0, 8
    for number, chart in enumerate(CHARTS, start=1):
        if x + chart.width > 24:
            x, y = 0, y + height
        panels.append(_panel(number, chart, {"x": x, "y": y, "w": chart.width, "h": height}))
        x += chart.width
    return panels


def _panel(number: int, chart: Chart, place: dict[str, int]) -> Panel:
    targets = [
        {"refId": chr(ord("A") + i), "expr": expression, "legendFormat": legend, "datasource": _DATASOURCE}
        for i, (expression, legend) in enumerate(chart.queries)
    ]
    panel: Panel = {
        "id": number,
        "type": chart.kind,
        "title": chart.title,
        "description": chart.text,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": chart.unit, "min": 0}, "overrides": []},
        "options": _options(chart.kind),
        "targets": targets,
    }
    if chart.title == "Done":
        panel["fieldConfig"]["defaults"]["max"] = 1
    return panel


def _options(kind: str) -> dict[str, Any]:
    if kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "orientation": "horizontal"}
