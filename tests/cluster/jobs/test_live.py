"""Jobs on a real cluster of a head and two workers: followed, refused, stopped (faults:
`tests.tools.chaos_cluster`).
"""

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

from pipelines.runtime.prometheus import COUNTERS, GAUGES, HISTOGRAMS
from tests.tools.cluster_bench import Bench, Jobs, MLflowServer
from tests.tools.local_cluster import LocalCluster, wait_until, write_token

pytestmark = [pytest.mark.ray, pytest.mark.slow]
# Not in one piece: `submit` refuses a file that holds a secret of its environment, this one included.
SECRET = "-".join(("geheim", "0123456789"))


@dataclass
class Place:
    """A cluster, its jobs, the folder that its nodes share, and an MLflow server."""

    cluster: LocalCluster
    jobs: Jobs
    bench: Bench
    mlflow: MLflowServer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    # Sockets have short names: pytest's own folders are too deep for them.
    with tempfile.TemporaryDirectory(prefix="og") as short:
        bench = Bench(tmp_path_factory.mktemp("shared"))
        with MLflowServer(bench.folder / "mlflow") as mlflow, LocalCluster(Path(short)) as cluster:
            cluster.start(2)
            more = {"MLFLOW_TRACKING_URI": mlflow.uri, "AWS_SECRET_ACCESS_KEY": SECRET}
            yield Place(cluster, Jobs(cluster, bench.folder, more), bench, mlflow)


def test_a_job_is_followed_to_its_end_and_measured(place: Place) -> None:
    seen: set[str] = set()
    done = threading.Event()
    assert place.cluster.head is not None
    scraper = threading.Thread(target=scrape, args=(place.cluster.head.metrics, seen, done), daemon=True)
    scraper.start()
    code, said = place.jobs.submit("first", *place.bench.train("first", steps=6, workers=2), "--log-format", "json")
    done.set()
    scraper.join(20)
    assert code == 0, said
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert lines[-1]["state"] == "done" and lines[-1]["exit_code"] == 0
    assert {line["step"] for line in lines if line["values"]} >= {1, 6}
    assert "checked: 3 nodes with 2 CPUs" in said and "not AWS_SECRET_ACCESS_KEY" in said
    assert f"ray_{'objgan_samples_total'}" in seen
    missing = {f"ray_{name}" for name in (*COUNTERS, *GAUGES, *HISTOGRAMS)} - seen
    assert not missing
    status = json.loads(place.jobs.ask("status", "first", "--json")[1])
    assert status["state"] == "succeeded" and status["exit_code"] == 0
    tags = place.mlflow.tags()
    assert (
        tags["objgan.submission"] == "first"
        and tags["objgan.recipe"] == "tiny"
        and len(tags["objgan.git_revision"]) == 40
    )
    shown = said + json.dumps(status) + json.dumps(place.cluster.get("/api/jobs/"))
    assert SECRET not in shown and place.cluster.token.read_text() not in shown


def test_a_name_is_used_once(place: Place) -> None:
    code, said = place.jobs.submit("first", *place.bench.train("first", steps=6))
    assert code == 2 and "was submitted before (first, succeeded): add --resume" in said


def test_a_missing_or_wrong_token_is_refused(place: Place, tmp_path: Path) -> None:
    code, said = place.jobs.ask("status", token=None)
    assert code == 2 and "asks for a token: give its file with --token-file" in said
    code, said = place.jobs.ask("status", token=write_token(tmp_path / "other"))
    assert code == 2 and "does not know this token" in said


def test_too_many_workers_and_storage_that_is_not_shared_are_refused(place: Place) -> None:
    began = time.monotonic()
    # Every node has a working directory of its own.
    words = place.bench.train("never", steps=6, workers=5)
    code, said = place.jobs.submit("never", *words, storage="/proc/self/cwd/apart")
    assert code == 2 and time.monotonic() - began < 60
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2, said
    assert "wants 5 workers of one CPU each, and the cluster has 2 CPUs" in errors[0]
    assert "is not shared" in errors[1]
    assert "never" not in place.jobs.ask("status")[1]


def checks(place: Place) -> list[str]:
    """The checks that Ray still knows as jobs."""
    jobs = place.cluster.get("/api/jobs/")
    assert isinstance(jobs, list)
    return [job["submission_id"] for job in jobs if (job["submission_id"] or "").startswith("check-")]


def test_checks_leave_no_job_no_file_and_no_folder(place: Place) -> None:
    folder = place.bench.folder / "made" / "for" / "the check"
    code, said = place.jobs.submit("never", *place.bench.train("never", steps=6, workers=5), storage=str(folder))
    assert code == 2 and "is not shared" not in said, said
    assert not (place.bench.folder / "made").exists()
    assert checks(place) == []


def test_a_check_that_takes_too_long_is_stopped_and_leaves_nothing(place: Place) -> None:
    process = place.jobs.start("never", *place.bench.train("never", steps=6), wait=("--check-timeout", "2"))
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and "allow more time with --check-timeout" in said, said
    assert checks(place) == []
    assert not list(place.bench.folder.glob(".objgan-check-*"))


def test_of_two_at_one_moment_one_begins_and_it_can_be_stopped(place: Place) -> None:
    words = place.bench.train("long", steps=100_000)
    both = [place.jobs.start("long", *words, wait=()) for _ in range(2)]
    ends = sorted((process.wait(120), process.communicate()[0]) for process in both)
    assert [code for code, _ in ends] == [0, 2], ends
    assert "at the same moment" in ends[1][1] or "submitted before" in ends[1][1] or "is running" in ends[1][1]
    folder = place.bench.run("long")
    wait_until(lambda: place.bench.step(folder) > 3, 120, "the job's third step")
    # Another name, the same run: the run's lease decides.
    code, said = place.jobs.submit("other", *words, resume=True)
    assert code == 2 and "is held by process" in said
    code, said = place.jobs.ask("stop", "long")
    assert code == 0 and "long: stopped, exit code 143" in said and "checkpoint at step" in said
    assert list(folder.glob("step_*"))
    status = json.loads(place.jobs.ask("status", "long", "--json")[1])
    assert status["exit_code"] == 143 and json.loads((folder / "status.json").read_text())["state"] == "preempted"
    code, said = place.jobs.submit("long", *words)
    assert code == 2 and "add --resume" in said


def scrape(url: str, seen: set[str], done: threading.Event) -> None:
    """Names of all metrics that a node shows, until asked to stop."""
    while not done.wait(0.5):
        try:
            with urlopen(url, timeout=5) as answer:
                seen |= {line.split()[2] for line in answer.read().decode().splitlines() if line.startswith("# TYPE")}
        except OSError:
            continue
