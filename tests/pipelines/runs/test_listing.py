"""`python -m pipelines runs` on real folders, held and left by real processes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from objgan.checkpoint import Snapshot, write_snapshot
from objgan.config import Config, build_config
from objgan.domain import Domain
from objgan.stages import stage_class
from pipelines.__main__ import main
from pipelines.runs.cleanup import leftovers
from pipelines.runs.listing import choose, describe, find_runs, table, to_go_on
from pipelines.runs.status import CheckpointNote, RunStatus
from pipelines.storage.checkpoints import checkpoint_name
from pipelines.storage.lease import Lease, typed
from pipelines.storage.storage import Storage
from pipelines.tracking.offline_queue import FOLDER, Metrics, OfflineQueue
from pipelines.tracking.tracker import prepare_store, tracked_run

KILLED = """
    import os, signal, sys
    from pathlib import Path
    from pipelines.storage.lease import Lease
    from pipelines.runs.status import RunStatus
    from pipelines.storage.storage import Storage

    sys.argv = ["/somewhere/pipelines/__main__.py", "train", "boxes", "--run", "killed", "--set", "seed=3"]
    storage = Storage(Path(os.environ["RUN"]))
    Lease.acquire(storage)
    RunStatus("running", "boxes", 40, 200, eta_s=80.0, error="worker 1 died", skipped=1, restarts=2).save(storage)
    (storage.local / ".step_00000050.ab12cd").mkdir()
    (storage.local / ".step_00000050.ab12cd" / "weights").write_bytes(bytes(1234))
    os.kill(os.getpid(), signal.SIGKILL)
"""
NOTE = CheckpointNote("step_00000030", 30, time.time() - 60)


def put(folder: Path, status: RunStatus | None = None, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text("{}")
    for name, text in files.items():
        (folder / name.replace("_json", ".json")).write_text(text)
    if status is not None:
        status.save(Storage(folder))
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A storage with a run whose process was killed."""
    base = tmp_path_factory.mktemp("killed")
    put(base / "killed" / "boxes")
    environment = os.environ | {"RUN": str(base / "killed" / "boxes")}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED)], cwd=repository, env=environment, timeout=60)
    assert done.returncode == -signal.SIGKILL
    return base


def test_runs_of_every_state_are_found(tmp_path: Path) -> None:
    now = time.time()
    put(tmp_path / "a" / "boxes", RunStatus("finished", "boxes", 200, 200))
    put(tmp_path / "a" / "images", RunStatus("preempted", "images", 20, 200, checkpoint=NOTE))
    put(tmp_path / "b" / "boxes", RunStatus("running", "boxes", 10, 200, 12.34, 0.5, 95.0), finished_json="{}")
    put(tmp_path / "b" / "shapes", RunStatus("running", "shapes", updated=now - 3600))
    put(tmp_path / "c" / "boxes", status_json="{")
    put(tmp_path / "c" / "encoders")
    put(tmp_path / "demo" / "boxes-0123456789", RunStatus("running", "boxes", 10, 200, 12.34, 0.5, 95.0, NOTE))
    put(tmp_path / "judges" / "training" / "judge", RunStatus("running", "judge"))
    put(tmp_path / "demo" / "boxes-0123456789" / "step_00000030")  # whatever is in a run is no run
    with Lease.acquire(Storage(tmp_path / "demo")):
        runs = find_runs(Storage(tmp_path))
        text = table(runs)
    assert {seen.name: seen.state for seen in runs} == {
        "a/boxes": "finished",
        "a/images": "preempted",
        "b/boxes": "finished",
        "b/shapes": "dead",  # nobody holds it, and it has said nothing for an hour
        "c/boxes": "unreadable",
        "c/encoders": "begun",
        "demo/boxes-0123456789": "running",
        "judges/training/judge": "running",  # nobody holds it, but it spoke just now
    }
    row = next(line for line in text.splitlines() if line.startswith("demo/boxes"))
    assert row.split() == [
        *("demo/boxes-0123456789", "boxes", "running", "10/200", "12.3", "95", "s", "step_00000030", "0", "s", "ago"),
        *(str(os.getpid()), "on", os.uname().nodename),
    ]


def test_a_killed_run_is_dead_and_says_how_it_goes_on(killed: Path) -> None:
    (seen,) = choose(Storage(killed), "killed")
    assert (seen.state, seen.alive) == ("dead", False)
    text = describe(seen)
    assert "dead: process " in text and "is gone" in text
    assert "40/200 (20%)" in text and "worker 1 died" in text and "1 step, not finite" in text
    assert "python -m pipelines train boxes --run killed --set seed=3" in text.splitlines()[-1]


def test_runs_without_a_lease_say_how_they_go_on_as_well(tmp_path: Path) -> None:
    put(tmp_path / "mine" / "boxes", RunStatus("failed", "boxes"))
    put(tmp_path / "out" / "boxes-0123456789", RunStatus("stopped", "boxes"))
    mine, out = find_runs(Storage(tmp_path))
    train = f"python -m pipelines train boxes --run mine --storage {tmp_path} (with the options of its start)"
    assert to_go_on(mine) == train
    assert to_go_on(out) == f"python -m pipelines run --out {tmp_path}/out (with the options of its start)"


def test_a_run_is_chosen_by_name_by_id_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/boxes", "a/images", "ab/boxes"):
        put(tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    base = Storage("runs")
    for wanted, names in {
        "a": ["a/boxes", "a/images"],
        "a/images": ["a/images"],
        "runs/ab/boxes/": ["ab/boxes"],
        str(tmp_path / "runs" / "ab"): ["ab/boxes"],
    }.items():
        assert [seen.name for seen in choose(base, wanted)] == names


def test_the_command_lists_and_tells(killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--storage", str(killed)]
    assert main(["runs", *place]) == 0
    assert "killed/boxes  boxes  dead   40/200" in capsys.readouterr().out
    assert main(["runs", "list", "--json", *place]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["state"] == "dead" and facts["step"] == 40 and facts["held_by"]["pid"] > 0
    assert main(["runs", "status", "killed/boxes", "--json", *place]) == 0
    assert json.loads(capsys.readouterr().out)["to_go_on"].startswith("python -m pipelines train boxes")
    assert main(["runs", "status", "other", *place]) == 2
    assert "no run other in" in (told := capsys.readouterr().err) and "killed/boxes" in told
    assert main(["runs", "send", *place]) == 2
    assert "name a run" in capsys.readouterr().err
    assert main(["runs", "--storage", str(tmp_path / "none")]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_leftovers_are_removed_where_nobody_works(
    tmp_path: Path, killed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run, alive = killed / "killed" / "boxes", put(killed / "alive" / "boxes", RunStatus("running", "boxes"))
    for folder in (run, alive):
        (folder / ".step_00000060.zz99zz").mkdir(exist_ok=True)
    (run / "broken_step_00000010").mkdir()
    (run / "step_00000040").mkdir()
    (run / FOLDER).mkdir()
    (run / FOLDER / "00000001-abc123-0.png").write_bytes(bytes(100))
    command = ["runs", "gc", "--storage", str(killed)]
    with Lease.acquire(Storage(alive)):
        assert main([*command, "--dry-run"]) == 0
        assert "1.33 KB could be freed" in capsys.readouterr().out
        assert (run / ".step_00000050.ab12cd").exists()
        assert main(command) == 0
    said = capsys.readouterr().out
    assert "/killed/boxes/.step_00000050.ab12cd (1.23 KB)" in said and "1.33 KB freed" in said
    kept = {"settings.json", "status.json", "lease.json", ".lease", "step_00000040", FOLDER}
    assert {path.name for path in run.iterdir()} == kept and not list((run / FOLDER).iterdir())
    assert (alive / ".step_00000060.zz99zz").exists()


def test_checkpoints_that_a_killed_writer_did_not_prune_are_removed(
    tmp_path: Path, prepared: Path, data_config: Config
) -> None:
    training = {"keep_checkpoints": 2, "max_words": 8}
    config = build_config({**data_config.model_dump(mode="json"), "boxes": {"training": training}})
    run, (objective, _) = put(tmp_path / "a" / "boxes", RunStatus("failed", "boxes")), stage_class("boxes").objective
    for step, value in enumerate((0.1, 0.9, 0.2, 0.3, 0.4), 1):
        domain = Domain.load(prepared / "domain")
        measures = {"measures": {objective: value}}
        write_snapshot(run / checkpoint_name(step), Snapshot("boxes", step, config, domain, {}, measures))
    gone = [f"{run}/step_00000001", f"{run}/step_00000003"]
    assert [f"{each.storage}/{each.name}" for each in leftovers(Storage(tmp_path))] == gone
    (run / "finished.json").write_text('{"checkpoint": "step_00000003"}')
    assert [f"{each.storage}/{each.name}" for each in leftovers(Storage(tmp_path))] == gone[:1]
    (run / "pins.json").write_text('["step_00000001"]')  # a sweep's best by another measure
    assert leftovers(Storage(tmp_path)) == []
    (run / "pins.json").unlink()
    newest = run / checkpoint_name(5) / "config.json"
    newest.write_text(newest.read_text() + " ")
    assert leftovers(Storage(tmp_path)) == []


def test_half_a_model_above_the_runs_is_removed_where_nobody_works(tmp_path: Path) -> None:
    """`register --run ID` puts the model together in `runs/ID`; a sweep works in the folder above its trials."""
    put(tmp_path / "a" / "boxes", RunStatus("finished", "boxes"))
    put(tmp_path / "s" / "trials" / "t" / "boxes", RunStatus("finished", "boxes"))
    for folder in (tmp_path / "a" / ".model.x7ab3c_1", tmp_path / "s" / ".sweep.x7ab3c_1"):
        folder.mkdir()
    with Lease.acquire(Storage(tmp_path / "s")):
        assert [each.name for each in leftovers(Storage(tmp_path))] == [".model.x7ab3c_1"]
        with Lease.acquire(Storage(tmp_path / "a")):
            assert leftovers(Storage(tmp_path)) == []


def test_mlflow_hears_of_runs_that_died_and_gets_what_was_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, base = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    prepare_store(uri)
    client, ids = MlflowClient(uri), {}
    for name in ("demo", "demo/boxes", "demo/images", "demo/kept"):
        with tracked_run(uri, name, Storage(base / name), {}) as tracking:
            ids[name] = str(tracking.run)
        client.update_run(tracking.run, status="RUNNING")  # as after kill -9
    put(base / "demo" / "boxes", RunStatus("finished", "boxes"))
    put(base / "demo" / "images", RunStatus("running", "images", updated=1.0))
    put(base / "demo" / "kept", RunStatus("running", "kept", updated=1.0))
    OfflineQueue(Storage(base / "demo" / "kept")).add([Metrics({"loss": 1.0}, 1)])

    def statuses() -> dict[str, str]:
        return {name: client.get_run(run).info.status for name, run in ids.items()}

    command = ["runs", "gc", "--storage", str(base)]
    assert main([*command, "--dry-run"]) == 0
    assert set(statuses().values()) == {"RUNNING"}
    assert "demo/images would become KILLED" in capsys.readouterr().out
    assert main(command) == 0
    after = {"demo": "KILLED", "demo/boxes": "FINISHED", "demo/images": "KILLED"}
    assert statuses() == {**after, "demo/kept": "RUNNING"}
    assert main(["runs", "status", "demo/kept", "--storage", str(base)]) == 0
    assert "1 metric and 0 pictures are queued in" in capsys.readouterr().out
    assert main(["runs", "send", "demo", "--storage", str(base)]) == 0
    said = capsys.readouterr().out
    assert "demo/kept: sent 1 metrics and 0 pictures" in said and "demo/boxes: nothing is left to send" in said
    assert [m.step for m in client.get_metric_history(ids["demo/kept"], "loss")] == [1]
    assert main(command) == 0
    assert statuses()["demo/kept"] == "KILLED"


def test_sending_to_a_server_that_is_away_fails_and_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    run = put(tmp_path / "a" / "boxes", RunStatus("failed", "boxes"), **{"mlflow_run.txt": "0" * 32})
    OfflineQueue(Storage(run)).add([Metrics({"loss": 1.0}, 1)])
    assert main(["runs", "send", "a", "--storage", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "1 metric and 0 pictures are queued in" in said.out and "MLflow is not reachable" in said.err
    assert OfflineQueue(Storage(run)).summary().metrics == 1


def test_commands_to_type_again_work_as_they_are_printed(
    s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run in a bucket: endpoint and region are parts of the query, and the password comes from the environment."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    prepare_store(os.environ["MLFLOW_TRACKING_URI"])
    run = Storage(s3).child("a").child("boxes")
    with tracked_run(os.environ["MLFLOW_TRACKING_URI"], "boxes", run, {}):
        pass
    monkeypatch.setattr(sys, "argv", ["/x/pipelines/__main__.py", "train", "boxes", "--storage", s3, "--run", "a"])
    RunStatus("failed", "boxes", command=typed()).save(run)
    OfflineQueue(run).add([Metrics({"loss": 1.0}, 1)])
    (seen,) = find_runs(Storage(s3))
    query = s3.partition("?")[2]
    for command in (to_go_on(seen), to_go_on(replace(seen, status=None))):
        words = shlex.split((command or "").removesuffix(" (with the options of its start)"))
        assert words[words.index("--storage") + 1].endswith(f"?{query}") and "hush" not in str(command)
    told = (OfflineQueue(run).summary() or pytest.fail("nothing is queued")).text()
    assert "hush" not in told
    words = shlex.split(told.rpartition("`python -m pipelines ")[2].rstrip("`"))
    assert main(words) == 0
    assert "sent 1 metrics" in capsys.readouterr().out
