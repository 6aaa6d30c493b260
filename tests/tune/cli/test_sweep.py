"""The whole command with Ray: a sweep of two trials is confirmed, exported, registered, and then resumed."""

from pathlib import Path

import pytest
import yaml

from pipelines.recipes import resolve
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_client import mlflow_client
from tests.tune.cli.test_commands import SMALL
from tune.__main__ import main
from tune.confirm.result import load as load_confirmed
from tune.report.export import trial_config
from tune.sweep.spec_file import load_sweep
from tune.sweep.sweep import Goal
from tune.sweep.trial_store import load_result

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_sweep_from_the_command_to_the_registry(prepared_boxes, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text("boxes.training.lr: {log_uniform: [1e-4, 1e-2]}\n")
    words = ["boxes", "--data", str(prepared_boxes), *SMALL, "--space", "space.yaml", "--trials", "2", "--run", "s"]
    words += ["--scheduler", "none", "--max-concurrent", "2", "--metric", "label_nll"]
    after = ["--confirm", "2", "--register", "m", "--export-recipe", "best.yaml"]
    assert main([*words, *after]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "s: finished" in printed and "verdict: " in printed

    store = Storage(tmp_path / "runs" / "s")
    sweep, result = load_sweep(store), load_result(store)
    assert sweep is not None and result is not None
    assert [trial.state for trial in result.trials] == ["finished"] * 2
    best = result.best(Goal("label_nll", "min"))
    assert best is not None and resolve("tiny", Path("best.yaml"), ()) == trial_config(sweep, best)
    assert (
        yaml.safe_load(Path("best.yaml").read_text())["boxes"]["training"]["lr"] == best.settings["boxes.training.lr"]
    )
    confirmed = load_confirmed(store)
    assert confirmed is not None and [run.split for run in confirmed.runs] == ["test"] * 4
    assert {run.seed for run in confirmed.runs} == {1, 2} and all(
        run.measures["label_nll"] > 0 for run in confirmed.runs
    )
    assert (tmp_path / "runs" / "s" / "pictures" / "curves.png").exists()

    client = mlflow_client(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    runs = {run.info.run_name: run for run in client.search_runs(["1"], max_results=100)}
    parent = runs["s"].info.run_id
    assert len(runs) == 1 + 2 + 4 and {run.info.status for run in runs.values()} == {"FINISHED"}
    assert all(run.data.tags.get("mlflow.parentRunId", parent) == parent for run in runs.values())
    trial_run = next(run for run in runs.values() if run.data.tags.get("objgan.trial") == best.id)
    assert trial_run.data.params["boxes.training.lr"] == str(best.settings["boxes.training.lr"])
    if confirmed.outcome != "worse":
        version = client.get_model_version_by_alias("m-boxes", "challenger")
        assert (version.tags["objgan.sweep"], version.tags["objgan.trial"]) == ("s", best.id)
        assert version.tags["objgan.sweep_run"] == parent and version.run_id == trial_run.info.run_id

    assert main(["--resume", "s", "--export-recipe", "again.yaml"]) == 0
    assert "finished before" in capsys.readouterr().out and Path("again.yaml").exists()
    assert len(client.search_runs(["1"], max_results=100)) == 7


def test_trials_that_asha_ended_are_complete_in_mlflow_when_the_command_ends(
    prepared_boxes, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text("boxes.training.lr: {choice: [1.0e-2, 1.0e-7]}\n")
    words = ["boxes", "--data", str(prepared_boxes), *SMALL, "--space", "space.yaml", "--trials", "4", "--run", "s"]
    words += ["--max-concurrent", "2", "--metric", "label_nll"]
    words[words.index("boxes.training.steps=6")] = "boxes.training.steps=18"
    assert main(words) == 0, capsys.readouterr().err
    result = load_result(Storage(tmp_path / "runs" / "s"))
    assert result is not None and {trial.state for trial in result.trials} == {"finished", "stopped"}
    client = mlflow_client(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    runs = {run.data.tags.get("objgan.trial"): run for run in client.search_runs(["1"], max_results=100)}
    for trial in result.trials:
        run, best = runs[trial.id], trial.best(Goal("label_nll", "min"))
        assert run.info.status == "FINISHED" and run.data.tags["objgan.trial_state"] == trial.state
        assert len(run.data.params) > 50
        assert run.data.params["boxes.training.lr"] == str(trial.settings["boxes.training.lr"])
        sent = client.get_metric_history(run.info.run_id, "validation/label_nll")
        # A trial may have taken a few more steps before it noticed that ASHA had stopped it.
        steps, recorded = [metric.step for metric in sent], [point.step for point in trial.points]
        assert steps[: len(recorded)] == recorded and len(set(steps)) == len(steps)
        assert best is not None and run.data.metrics["best_step"] == best.step
        assert run.data.metrics["best_label_nll"] == best.measures["label_nll"]
