"""How the command ends if a sweep does not finish. The engine is replaced by a recorded result."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.tracking.mlflow_client import mlflow_client
from pipelines.training.supervisor import INTERRUPTED, TERMINATED
from tests.tools.recorded import recorded_result
from tests.tune.cli.test_commands import SMALL
from tune.__main__ import main
from tune.cli import artifacts, commands
from tune.sweep.results import SweepResult
from tune.sweep.spec_file import save_sweep
from tune.sweep.sweep import Sweep
from tune.sweep.trial_store import TrialStore


def recorded_engine(state: str, reason: str | None) -> Callable[..., SweepResult]:
    """A `run_sweep` that writes the files of an engine without training."""

    def run(sweep: Sweep, observers, log, address=None, resume=False, lease=None) -> SweepResult:
        assert lease is not None and sweep.tracking is not None and sweep.tracking.parent
        save_sweep(sweep)
        rows = TrialStore(sweep.store())
        trials = recorded_result(sweep).trials
        if state == "interrupted":
            trials = (*trials[:6], *(replace(trial, state="interrupted") for trial in trials[6:]))
        if state == "incomplete":
            crashed = replace(
                trials[-1], state="crashed", error="Stalled: no worker has given a sign of life for 300 s"
            )
            trials = (*trials[:-1], crashed)
        for trial in trials:
            rows.put(trial)
            for observer in observers:
                observer.trial(trial)
        rows.put_state(state, 60.0, reason)
        return rows.result()

    return run


@pytest.fixture
def words(prepared_boxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifacts, "draw_pictures", lambda *given: [])  # some seconds, for other tests
    return ["boxes", "--data", str(prepared_boxes), *SMALL, "--trials", "14", "--run", "r"]


def parent_status(tmp_path: Path) -> str:
    client = mlflow_client(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    (run,) = client.search_runs(["1"], "tags.`objgan.step` = 'sweep'")
    return run.info.status


@pytest.mark.parametrize(("reason", "code"), [(INTERRUPTED, 130), (TERMINATED, 143)])
def test_an_interrupted_sweep_ends_with_a_summary_and_the_line_that_resumes(
    reason, code, words, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(commands, "run_sweep", recorded_engine("interrupted", reason))
    assert main([*words, "--export-recipe", "best.yaml"]) == code
    shown = capsys.readouterr()
    assert f"r: interrupted after 60 s ({reason})" in shown.out and "best: trial" in shown.out
    assert "6 of 14 trials ended; resume with: python -m tune --resume r" in shown.err and shown.err.count("\n") == 1
    assert parent_status(tmp_path) == "KILLED" and not Path("best.yaml").exists()
    monkeypatch.setattr(commands, "run_sweep", recorded_engine("finished", None))
    assert main(["--resume", "r", "--export-recipe", "best.yaml"]) == 0
    assert parent_status(tmp_path) == "FINISHED" and Path("best.yaml").exists()


def test_trials_that_crashed_are_a_failure_that_names_one_and_the_line_that_resumes(
    words, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(commands, "run_sweep", recorded_engine("incomplete", None))
    assert main([*words, "--register", "m", "--export-recipe", "best.yaml"]) == 1
    shown = capsys.readouterr()
    assert "13 of 14 trials ended, 1 crashed (trial 13: Stalled: no worker has given a sign of life" in shown.err
    assert "resume with: python -m tune --resume r" in shown.err
    assert shown.err.count("\n") == 1 and shown.err.startswith("failed (exit code 1): ")
    assert "1 crashed" in shown.out and not Path("best.yaml").exists()
    monkeypatch.setattr(commands, "run_sweep", recorded_engine("finished", None))
    assert main(["--resume", "r", "--export-recipe", "best.yaml"]) == 0
    assert Path("best.yaml").exists() and parent_status(tmp_path) == "FINISHED"


def test_a_spent_budget_is_no_failure_and_names_the_command_that_resumes(words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(commands, "run_sweep", recorded_engine("finished", "the budget is spent"))
    assert main([*words, "--time-budget", "1m"]) == 0
    shown = capsys.readouterr().out
    assert "(the budget is spent)" in shown and "--resume r with a larger budget" in shown


def test_a_sweep_that_another_process_holds_is_refused_untouched(words, tmp_path, monkeypatch, capsys) -> None:
    from pipelines.storage.lease import Lease
    from pipelines.storage.storage import Storage

    def refused(*given: object, **named: object) -> SweepResult:
        raise AssertionError("it was begun")

    monkeypatch.setattr(commands, "run_sweep", refused)
    with Lease.acquire(Storage(tmp_path / "runs" / "r"), who="another sweep"):
        assert main(words) == 2
    assert "another sweep" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "mlflow.db").exists()


def test_settings_that_are_worse_are_not_registered(words, tmp_path, monkeypatch, capsys) -> None:
    from tests.tune.confirm.test_result import confirmed

    monkeypatch.setattr(commands, "run_sweep", recorded_engine("finished", None))
    monkeypatch.setattr(commands, "_confirm", lambda *given: confirmed([0.5, 0.51, 0.52], [0.6, 0.61, 0.62]))
    assert main([*words, "--confirm", "3", "--register", "m"]) == 0
    assert "not registered, because the recipe's settings are better" in capsys.readouterr().out
