"""Dashboard and alerts: only metrics that exist, a layout that Grafana takes, the README's table."""

import re
from itertools import combinations
from pathlib import Path

import promql_parser
import pytest
import yaml

from cluster.render.alerts import ALERTS, rules, table
from cluster.render.dashboard import dashboard
from pipelines.runtime.prometheus import BUCKETS, COUNTERS, GAUGES, HISTOGRAMS

SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
METRICS = dict.fromkeys(COUNTERS, "counter") | dict.fromkeys(GAUGES, "gauge") | dict.fromkeys(HISTOGRAMS, "histogram")
SERIES = {f"ray_{name}{suffix}": kind for name, kind in METRICS.items() for suffix in SUFFIXES[kind]}
FUNCTIONS = {
    "sum", "max", "avg", "rate", "increase", "deriv", "histogram_quantile", "avg_over_time", "last_over_time",
    "by", "and", "unless",
}  # fmt: skip

PANELS = dashboard()["panels"]
EXPRESSIONS = {alert.name: alert.expression for alert in ALERTS} | {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]
}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_expressions_use_existing_metrics_by_their_kind(expression: str) -> None:
    promql_parser.parse(expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\"[^\"]*\"", "", expression)
    names = set(re.findall(r"[a-zA-Z_][a-zA-Z0-9_:]*", bare))
    assert names - FUNCTIONS - {"run", "stage", "le"} <= set(SERIES), names
    assert names & set(SERIES)
    for counted in re.findall(r"(?:rate|increase)\(\s*(\w+)", expression):
        assert SERIES[counted] in ("counter", "histogram"), counted
    for gauged in re.findall(r"(?:deriv|avg_over_time|last_over_time)\(\s*(\w+)", expression):
        assert SERIES[gauged] == "gauge", gauged
    for name, kind in SERIES.items():
        if kind == "counter" and name in names:
            assert re.search(rf"(rate|increase)\(\s*{name}\b", expression), f"{name} grows for ever"


def test_every_metric_is_on_the_dashboard() -> None:
    expected = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    assert [name for name in METRICS if f"ray_{name}" not in expected] == []


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    places = [panel["gridPos"] for panel in PANELS]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 and p["h"] > 0 for p in places)
    for a, b in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (a, b)


def test_variables_are_declared_before_they_are_used() -> None:
    made = dashboard()
    names = [variable["name"] for variable in made["templating"]["list"]]
    used = set(re.findall(r"\$\{?(\w+)", str(made["panels"])))
    assert used == set(names)
    assert names[0] == "source"
    assert all(panel["datasource"] == {"type": "prometheus", "uid": "${source}"} for panel in made["panels"])


def test_alerts_have_different_names_and_an_action() -> None:
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)
    for alert in ALERTS:
        assert re.fullmatch(r"\d+[smh]", alert.hold)
        assert alert.severity in ("page", "ticket")
        assert alert.meaning
        assert alert.action


def test_quantiles_can_exceed_their_thresholds() -> None:
    thresholds = {
        alert.name: float(alert.expression.rpartition(" > ")[2]) for alert in ALERTS if "_quantile" in alert.expression
    }
    assert thresholds
    assert all(value < max(BUCKETS) for value in thresholds.values()), thresholds


def test_rules_are_in_the_file_and_in_the_manifest(repository: Path) -> None:
    folder = repository / "cluster" / "manifests"
    assert yaml.safe_load((folder / "alerts.yaml").read_text()) == rules()
    documents = yaml.safe_load_all((folder / "raycluster.yaml").read_text())
    assert [d["spec"] for d in documents if d["kind"] == "PrometheusRule"] == [rules()]


def test_the_readme_lists_the_same_alerts(repository: Path) -> None:
    assert table() in (repository / "cluster" / "README.md").read_text()
