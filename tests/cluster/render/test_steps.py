"""The commands of a run on a cluster, and `python -m cluster steps`, which runs them one after the other."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from cluster import run_steps
from cluster.__main__ import main
from cluster.render import steps
from cluster.render.presets import PRESETS, resolve
from cluster.run_steps import split
from objgan.config import STAGES
from pipelines.__main__ import parser
from pipelines.recipes import resolve as recipe

JOBS = [name for name in PRESETS if resolve(name).kind == "RayJob"]


@pytest.mark.parametrize("preset", JOBS)
def test_the_pipelines_understand_every_command(preset: str) -> None:
    given = steps.commands(resolve(preset, ["job.options=[seed=3, compute.compile=true]"]))
    names = []
    for command in given:
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "pipelines"]
        options = parser().parse_args(words[3:])
        names.append(getattr(options, "stage", options.command))
        if "assignments" in options:
            recipe(options.recipe, options.config, options.assignments)
    assert names == ["check-mlflow", "prepare", *STAGES, "register"]


def test_a_stage_has_no_more_workers_than_groups() -> None:
    asked = {stage: steps.workers_of(resolve("elastic"), stage) for stage in STAGES}
    assert asked == {"encoders": "1", "boxes": "2-8", "shapes": "2-8", "images": "2-4"}
    tiny = {stage: steps.workers_of(resolve("elastic", ["job.recipe=tiny"]), stage) for stage in STAGES}
    assert tiny == dict.fromkeys(STAGES, "1")


def test_the_entrypoint_is_one_line_that_splits_into_the_commands() -> None:
    settings = resolve("gpu")
    words = shlex.split(steps.entrypoint(settings))
    assert words[:7] == ["python", "-m", "cluster", "steps", "--retries", "2", "--"]
    assert [shlex.join(command) for command in split(words[7:])] == steps.commands(settings)
    assert "cluster steps --retries 2 -- python -m pipelines runs" in steps.entrypoint(
        resolve("gpu", ["job.command=python -m pipelines runs"])
    )


def test_words_with_blanks_and_signs_of_the_shell_arrive_as_they_are(tmp_path: Path) -> None:
    images, option = "/data/my images; touch hacked #$(id)", "images.sizes=[32, 64]"
    settings = resolve("gpu", [f"job.images={images}", f"job.options=['{option}']"])
    shown = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {steps.entrypoint(settings)}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    ).stdout.splitlines()
    assert images in shown and option in shown
    assert not list(tmp_path.iterdir())
    command = "python -m pipelines run --out '/data/my; runs' + python -m pipelines runs"
    assert shlex.split(steps.commands(resolve("gpu", [f"job.command={command}"]))[0]) == shlex.split(command)


def run(repository: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cluster", "steps", "--", *words],
        cwd=repository,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def python(code: str) -> list[str]:
    return ["python", "-c", code]


@pytest.mark.parametrize("code", [0, 1, 2, 143])
def test_the_first_failure_ends_it_with_its_exit_code(repository: Path, code: int) -> None:
    process = run(
        repository, *python("print('one')"), "+", *python(f"raise SystemExit({code})"), "+", *python("print('three')")
    )
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "one\n" in out
    assert ("three\n" in out) == (code == 0)
    assert code == 0 or f"step 2 of 3 ended with exit code {code}" in err


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retries without the pause, and a SIGTERM handler that does not outlive the test."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(run_steps, "PAUSE_S", 0.01)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("code", "runs"), [(1, 3), (137, 3), (2, 1), (3, 1), (143, 1), (130, 1), (0, 1)])
def test_infrastructure_failures_alone_are_retried(code: int, runs: int, tmp_path: Path, quick_retries: None) -> None:
    count = tmp_path / "count"
    again = python(f"open({str(count)!r}, 'a').write('x'); raise SystemExit({code})")
    assert main(["steps", "--retries", "2", "--", *again]) == code
    assert len(count.read_text()) == runs


def test_a_retry_that_ends_well_lets_the_next_step_start(tmp_path: Path, quick_retries: None) -> None:
    count = tmp_path / "count"
    twice = python(f"import os; p = {str(count)!r}; done = os.path.exists(p); open(p, 'a'); raise SystemExit(not done)")
    assert (
        main(["steps", "--retries", "1", "--", *twice, "+", *python(f"open({str(count)!r}, 'a').write('next')")]) == 0
    )
    assert count.read_text() == "next"


@pytest.mark.parametrize("retries", ["-1", "many", "1.5", "99999"])
def test_retries_are_a_count(retries: str) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["steps", f"--retries={retries}", "--", "true"])
    assert refused.value.code == 2


def test_a_job_that_stopped_with_its_head_waits_for_the_end_of_the_head(repository: Path) -> None:
    environment = {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"metadata": {"job_submission_id": "a"}})}
    process = run(repository, *python("raise SystemExit(143)"), **environment)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 143 and "waiting for its end" in out


def test_a_killed_command_and_a_missing_one(repository: Path) -> None:
    killed = run(repository, *python("import os; os.kill(os.getpid(), 9)"))
    assert killed.wait(30) == 137
    missing = run(repository, "no-such-program")
    assert missing.wait(30) == 2
    assert run(repository, "true", "+", "+", "true").wait(30) == 2


def test_sigterm_lets_the_command_end_and_starts_no_other(repository: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    waits = f"import time, pathlib; pathlib.Path({str(mark)!r}).touch(); time.sleep(1); print('checkpoint', flush=True)"
    process = run(repository, *python(waits), "+", *python("print('next')"))
    while not mark.exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "checkpoint" in out
    assert "next\n" not in out


class _Jobs(BaseHTTPRequestHandler):
    """As much of Ray's job API as stops a job."""

    stopped: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self._answer({"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""})

    def do_POST(self) -> None:
        self.stopped.append(self.path)
        self._answer({"stopped": True})

    def _answer(self, body: dict) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def job_api() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Jobs)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("code", [2, 3])
def test_final_codes_stop_the_job_so_that_kuberay_does_not_retry(repository: Path, job_api: str, code: int) -> None:
    job = json.dumps({"metadata": {"job_submission_id": "raysubmit_1"}})
    environment = {"RAY_JOB_CONFIG_JSON_ENV_VAR": job, "RAY_API_SERVER_ADDRESS": job_api}
    process = run(repository, *python(f"raise SystemExit({code})"), **environment)
    deadline = time.monotonic() + 30
    while not _Jobs.stopped and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _Jobs.stopped == ["/api/jobs/raysubmit_1/stop"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == code
    _Jobs.stopped.clear()
    failed = run(repository, *python("raise SystemExit(1)"), **environment)
    assert failed.wait(30) == 1
    assert not _Jobs.stopped
