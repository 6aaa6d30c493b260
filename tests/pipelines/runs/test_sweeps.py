"""Sweeps as `runs status` shows them: by the files that `tune` writes, with the command that resumes each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.runs.status import RunStatus
from pipelines.runs.sweeps import find_sweep, resume_command
from pipelines.storage.lease import Lease
from pipelines.storage.storage import Storage


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage `runs` with a sweep `s` of two trials, one of which the scheduler ended."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "runs" / "s"
    for trial, state in (("000_a", "preempted"), ("001_b", "failed")):
        folder = place / "trials" / trial / "boxes"
        folder.mkdir(parents=True)
        (folder / "settings.json").write_text("{}")
        RunStatus(state, "boxes", step=20, steps=30, command=f"trial {trial}").save(Storage(folder))  # type: ignore[arg-type]
    (place / "sweep.json").write_text("{}")
    put(place, state="interrupted", reason="terminated", left=1)
    return tmp_path / "runs"


def put(place: Path, **facts: object) -> None:
    (place / "state.json").write_text(json.dumps({"seconds": 1.0, **facts}))


def shown(name: str, capsys, *words: str) -> str:
    assert main(["runs", "status", name, *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("facts", "resumes"),
    [
        ({"state": "interrupted", "reason": "terminated", "left": 1}, "python -m tune --resume s"),
        ({"state": "incomplete", "reason": None, "left": 2}, "python -m tune --resume s"),
        ({"state": "running", "reason": None, "left": 2}, "python -m tune --resume s"),  # killed
        ({"state": "finished", "reason": "the budget is spent", "left": 2}, "--resume s with a larger budget"),
        ({"state": "finished", "reason": "the budget is spent", "left": 0}, None),
        ({"state": "finished", "reason": None, "left": 0}, None),
    ],
)
def test_status_of_a_sweep_names_the_command_that_resumes_it(facts, resumes, runs: Path, capsys) -> None:
    put(runs / "s", **facts)
    text = shown("s", capsys)
    assert "s (sweep)" in text and "s/trials/000_a/boxes" in text and "s/trials/001_b/boxes" in text
    assert resumes in text if resumes else "to resume" not in text, text
    assert "pipelines train" not in text, "a trial is resumed by its sweep"
    facts = json.loads(shown("s", capsys, "--json"))
    assert (facts["sweep"], len(facts["runs"])) == ("s", 2)
    assert {facts["to_go_on"], *(run["to_go_on"] for run in facts["runs"])} == {
        None if resumes is None else resumes if resumes.startswith("python") else f"python -m tune {resumes}"
    }


def test_status_of_one_trial_names_its_sweeps_command(runs: Path, capsys) -> None:
    assert "to go on    python -m tune --resume s\n" in shown("s/trials/001_b/boxes", capsys)
    assert "to go on    python -m tune --resume s\n" in shown("s/trials/001_b", capsys)
    put(runs / "s", state="finished", left=0)
    assert "to go on" not in shown("s/trials/000_a/boxes", capsys), "the scheduler ended it, and the sweep is done"


def test_segments_and_confirmations_belong_to_their_sweep(runs: Path, capsys) -> None:
    for name in ("trials/000_a/segment_01", "confirm/default-1"):
        folder = runs / "s" / name / "boxes"
        folder.mkdir(parents=True)
        (folder / "settings.json").write_text("{}")
        RunStatus("preempted", "boxes").save(Storage(folder))
    text = shown("s", capsys)
    assert "s/trials/000_a/segment_01/boxes" in text and "s/confirm/default-1/boxes" in text
    assert "python -m tune --resume s\n" in shown("s/trials/000_a/segment_01/boxes", capsys)
    assert "python -m tune --resume s --confirm N" in shown("s/confirm/default-1/boxes", capsys)


def test_a_sweep_elsewhere_is_named_with_its_storage(runs: Path, capsys) -> None:
    runs.rename(runs.with_name("my runs"))
    assert main(["runs", "status", "s", "--storage", "my runs"]) == 0
    assert "python -m tune --resume s --storage 'my runs'" in capsys.readouterr().out
    assert main(["runs", "status", "my runs/s", "--storage", "my runs"]) == 0
    assert (
        resume_command("s3://key:secret@b/runs?region=x", "s")
        == "python -m tune --resume s --storage 's3://b/runs?region=x'"
    )


def test_a_living_sweep_is_not_to_be_resumed(runs: Path, capsys, repository: Path) -> None:
    put(runs / "s", state="running", left=2)
    code = "import sys; from pipelines.storage.lease import Lease; from pipelines.storage.storage import Storage\n"
    code += (
        "Lease.acquire(Storage(sys.argv[1]), who='python -m tune boxes'); print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(runs / "s")]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as driver:
        assert driver.stdout is not None and driver.stdout.readline() == "held\n"
        text = shown("s", capsys)
        assert "held by process" in text and "to resume" not in text
        assert "to go on" not in shown("s/trials/000_a/boxes", capsys)
        driver.kill()
    assert "state       dead" in (text := shown("s", capsys)) and "python -m tune --resume s" in text


@pytest.mark.parametrize("broken", ["{", "[]", "null", '{"state": null, "left": "x"}', "3"])
def test_a_damaged_state_costs_no_traceback(broken: str, runs: Path, capsys) -> None:
    (runs / "s" / "state.json").write_text(broken)
    assert "python -m tune --resume s" in shown("s", capsys)
    (runs / "s" / "state.json").unlink()
    assert "python -m tune --resume s" in shown("s", capsys)


def test_a_sweep_without_a_trial_yet_has_a_status(runs: Path, capsys) -> None:
    (runs / "new").mkdir()
    (runs / "new" / "sweep.json").write_text("{}")
    assert "new (sweep)\n  state       begun\n  to resume   python -m tune --resume new\n" in shown("new", capsys)
    with Lease.acquire(Storage(runs / "new")):
        assert find_sweep(Storage(runs), "new").state == "running"  # type: ignore[union-attr]
