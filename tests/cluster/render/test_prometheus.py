"""The alerts in a real Prometheus (Debian: package `prometheus`): its checks, its simulated time, and a scrape."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from cluster.render.alerts import ALERTS, rules
from pipelines.runtime.prometheus import BUCKETS
from tests.tools.ports import free_port

SERVER = """
global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}
rule_files: [alerts.yaml]
scrape_configs: [{{job_name: ray, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]
"""


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine (Debian: apt-get install prometheus)")
    return found


def promtool(*words: str | Path) -> str:
    done = subprocess.run([program("promtool"), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_committed_rules(repository: Path) -> None:
    said = promtool("check", "rules", repository / "cluster" / "manifests" / "alerts.yaml")
    assert f"SUCCESS: {len(ALERTS)} rules found" in said


def buckets(slow: float, count: str) -> dict[str, str]:
    """A histogram in which every checkpoint takes `slow` seconds. count: how many there are, minute by minute."""
    name, bounds = "objgan_checkpoint_seconds_bucket", [*map(str, BUCKETS), "+Inf"]
    return {f"{name} le={bound}": count if float(bound) >= slow else "0x999" for bound in bounds}


# Series minute by minute, in promtool's form, of a run for which the alert fires at a minute, and of one that is well.
CASES: dict[str, tuple[int, dict[str, str], dict[str, str]]] = {
    "ObjganNoProgress": (
        45,
        {"objgan_samples_total": "0+96x10 960x99", "objgan_step": "0+2x10 20x99", "objgan_steps_total": "100x99"},
        {"objgan_samples_total": "0+96x99", "objgan_step": "0+2x99", "objgan_steps_total": "100x99"},
    ),
    "ObjganVanished": (
        40,
        {"objgan_step": "0+10x10 _x99", "objgan_steps_total": "1000x10 _x99"},
        {"objgan_step": "0+100x10 _x99", "objgan_steps_total": "1000x10 _x99"},
    ),
    "ObjganCheckpointOld": (
        140,
        {"objgan_checkpoint_age_seconds": "0+60x200", "objgan_step": "5x200", "objgan_steps_total": "10x200"},
        {"objgan_checkpoint_age_seconds": "0+60x200", "objgan_step": "10x200", "objgan_steps_total": "10x200"},
    ),
    "ObjganRestarts": (60, {"objgan_restarts_total": "0+1x99"}, {"objgan_restarts_total": "0x29 2x99"}),
    "ObjganSkippedSteps": (60, {"objgan_skipped_steps_total": "0+1x99"}, {"objgan_skipped_steps_total": "0x29 2x99"}),
    "ObjganDataWait": (
        45,
        {"objgan_data_wait_seconds_total": "0+30x99"},
        {"objgan_data_wait_seconds_total": "0+6x99"},
    ),
    "ObjganSlowCheckpoints": (60, buckets(400, "0+1x99"), buckets(100, "0+1x99")),
    "ObjganSlower": (
        400,
        {"objgan_samples_per_second": "100x360 40x99"},
        {"objgan_samples_per_second": "100x360 60x99"},
    ),
    "ObjganRejectedRows": (60, {"objgan_rejected_rows_total": "0+10x99"}, {"objgan_rejected_rows_total": "0+1x99"}),
}


def simulated(alert: str, minute: int, runs: dict[str, dict[str, str]], firing: list[str]) -> dict[str, Any]:
    """One of promtool's tests: at a minute, the alert fires for exactly these runs."""
    series = []
    for run, values in runs.items():
        for name, text in values.items():
            metric, _, bound = name.partition(" le=")
            labels = {"run": run, "stage": "boxes", "SessionName": "s", **({"le": bound} if bound else {})}
            written = ",".join(f'{key}="{value}"' for key, value in labels.items())
            series.append({"series": f"ray_{metric}{{{written}}}", "values": text})
    rule = next(rule for rule in rules()["groups"][0]["rules"] if rule["alert"] == alert)
    stage = {} if alert == "ObjganRejectedRows" else {"stage": "boxes"}
    expected = [
        {"exp_labels": {"run": run, **stage, **rule["labels"]}, "exp_annotations": rule["annotations"]}
        for run in firing
    ]
    asked = {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": expected}
    return {"interval": "1m", "input_series": series, "alert_rule_test": [asked]}


def test_every_alert_has_a_case() -> None:
    assert list(CASES) == [alert.name for alert in ALERTS]


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_for_the_run_in_trouble_alone(repository: Path, tmp_path: Path, alert: str) -> None:
    minute, trouble, well = CASES[alert]
    cases = [simulated(alert, minute, {"trouble": trouble, "well": well}, ["trouble"])]
    if alert == "ObjganNoProgress":
        # Not in its first half hour without a sample, nor for a stage that is done.
        cases.append(simulated(alert, 30, {"trouble": trouble}, []))
        cases.append(simulated(alert, minute, {"done": trouble | {"objgan_step": "100x99"}}, []))
    committed = repository / "cluster" / "manifests" / "alerts.yaml"
    tests = {"rule_files": [str(committed)], "evaluation_interval": "1m", "tests": cases}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    promtool("test", "rules", tmp_path / "tests.yaml")


KINDS = {"objgan_samples_total": "counter", "objgan_step": "gauge", "objgan_steps_total": "gauge"}


class Exporter(BaseHTTPRequestHandler):
    """The page of a node on which run `busy` trains, `stalled` does not and `done` is at its end."""

    requests = 0

    def do_GET(self) -> None:
        Exporter.requests += 1
        lines = []
        for name, kind in KINDS.items():
            lines.append(f"# TYPE ray_{name} {kind}")
            for run in ("stalled", "busy", "done"):
                step = {"stalled": 7, "busy": Exporter.requests, "done": 1_000}[run]
                value = {"objgan_samples_total": 16 * step, "objgan_step": step, "objgan_steps_total": 1_000}[name]
                lines.append(f'ray_{name}{{run="{run}",stage="boxes",SessionName="s",WorkerId="{run}"}} {value}.0')
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(("\n".join(lines) + "\n").encode())

    def log_message(self, *words: object) -> None:
        """Not on the terminal."""


@contextmanager
def scraping(folder: Path, alerts: str) -> Iterator[str]:
    """A Prometheus that scrapes an exporter; its address."""
    exporter = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    Thread(target=exporter.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{free_port()}"
    (folder / "alerts.yaml").write_text(alerts)
    (folder / "prometheus.yaml").write_text(SERVER.format(port=exporter.server_port))
    words = ["--config.file=prometheus.yaml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([program("prometheus"), *words], cwd=folder, stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(30)
        exporter.shutdown()
        exporter.server_close()


def test_a_prometheus_that_scrapes_fires_for_the_stalled_run_alone(repository: Path, tmp_path: Path) -> None:
    program("prometheus")
    committed = (repository / "cluster" / "manifests" / "alerts.yaml").read_text()
    # A quarter of an hour in three seconds.
    quick = re.sub(r"\b15m\b", "3s", committed)
    assert quick != committed
    with scraping(tmp_path, quick) as address:
        end, states = time.monotonic() + 60, {}
        while states.get("stalled") != "firing":
            assert time.monotonic() < end, (states, (tmp_path / "log").read_text()[-2000:])
            time.sleep(0.3)
            try:
                with urlopen(f"{address}/api/v1/alerts", timeout=5) as answer:
                    alerts = json.load(answer)["data"]["alerts"]
            except OSError:
                continue  # it is about to start
            known = [alert for alert in alerts if alert["labels"]["alertname"] == "ObjganNoProgress"]
            states = {alert["labels"]["run"]: alert["state"] for alert in known}
    assert states == {"stalled": "firing"}  # `busy` and `done` are not even pending
