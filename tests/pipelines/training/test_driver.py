"""Ray Train for real: two workers, deaths on the way, a batch that cannot be learned from, a disk that is full."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from mlflow.tracking import MlflowClient

from objgan.checkpoint import read_state
from objgan.config import Config, build_config
from objgan.errors import InputError
from pipelines.data.shards.format import load_manifest
from pipelines.runs.listing import describe, find_runs
from pipelines.runs.status import RunStatus
from pipelines.storage.storage import Storage
from pipelines.training.driver import TrainingStopped, train
from pipelines.training.job import OpenRun, TrainJob, claim_folder, open_run
from pipelines.training.replay import replay
from tests.tools.training import (
    STEPS,
    Command,
    kill_a_worker_after,
    last,
    lines,
    same_weights,
    small_config,
    wait_until,
)

pytestmark = pytest.mark.ray
_LONG = 300
"""Steps of some 15 ms: a driver can be killed on the way."""


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, data_config: Config, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    """A run of the small job by one worker that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "shapes"
    done = train(open_run(TrainJob("shapes", small_config(data_config), prepared, folder)))
    assert done.step <= STEPS
    return folder


@pytest.mark.slow
def test_a_worker_killed_on_the_way_changes_nothing_in_the_end(
    prepared: Path, data_config: Config, tmp_path: Path, undisturbed: Path, logs: list[str]
) -> None:
    folder = tmp_path / "killed"
    config = small_config(data_config)
    killer = kill_a_worker_after(folder, 10)
    killed = train(open_run(TrainJob("shapes", config, prepared, folder)))
    killer.join(1)
    assert not killer.is_alive(), "the worker was not killed"
    (death,) = [line for line in logs if "worker 0 failed" in line and "restarted" not in line]
    assert "SYSTEM_ERROR" in death and "End of file" in death and len(death) < 200
    (again,) = [line for line in logs if "workers restarted (restart 1: worker 0 failed" in line]
    assert "resuming from step" in again and logs.index(death) < logs.index(again)
    told = [line["event"] for line in lines(folder)]
    assert told.count("worker_failed") == 1 and told.count("began") == 2
    status = RunStatus.load(Storage(folder))
    assert status is not None
    assert (status.state, status.restarts, status.step) == ("finished", 1, STEPS)
    assert status.error is not None and "worker 0 failed" in status.error and "SYSTEM_ERROR" in status.error
    (seen,) = find_runs(Storage(tmp_path))
    assert "worker 0 failed" in describe(seen) and "restarts    1" in describe(seen)
    assert last(folder).name == f"step_{STEPS:08d}"
    assert same_weights(last(folder), last(undisturbed))
    assert set(killed.measures) >= {"mask_iou"}
    again = train(open_run(TrainJob("shapes", config, prepared, folder)))
    assert again == killed
    assert "finished before" in logs[-1]


@pytest.mark.slow
def test_two_workers_learn_what_one_does(
    prepared: Path, data_config: Config, tmp_path: Path, undisturbed: Path
) -> None:
    config = small_config(data_config, compute={"workers": 2}, steps=2)
    train(open_run(TrainJob("shapes", config, prepared, tmp_path / "two")))
    told = [line for line in lines(tmp_path / "two") if "values" in line]
    alone = [line for line in lines(undisturbed) if "values" in line]
    assert [line["step"] for line in told] == [1, 2]
    for ours, theirs in zip(told, alone, strict=False):
        for name in ("generator/overlap", "discriminators/instance", "generator/gradient_norm"):
            assert ours["values"][name] == pytest.approx(theirs["values"][name], rel=1e-3), name
    state = read_state(last(tmp_path / "two"))
    assert (state["workers"], state["threads"], state["groups"]) == (2, 1, 2)
    assert state["position"] == {"epoch": 0, "sample": 8}


@pytest.mark.slow
def test_a_driver_that_is_stopped_or_killed_goes_on_bit_for_bit(
    prepared: Path, data_config: Config, tmp_path: Path, repository: Path, ray_local: None
) -> None:
    """SIGTERM: a checkpoint at once, and exit code 143. SIGKILL: from the last checkpoint. One run in MLflow."""
    config = small_config(data_config, steps=_LONG, checkpoint_every=60)
    whole = tmp_path / "whole"
    train(open_run(TrainJob("shapes", config, prepared, whole)))
    broken = Command(tmp_path / "broken", repository, config, prepared)
    process = broken.start()
    wait_until(lambda: (broken.folder / "lease.json").exists())
    code, said = broken.run()
    assert code == 2, said
    assert "process" in said
    assert str(process.pid) in said
    wait_until(lambda: (broken.folder / "progress.jsonl").exists() and len(lines(broken.folder)) > 4)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "terminated; checkpoint at step" in said
    first = last(broken.folder)
    assert 0 < read_state(first)["step"] < _LONG
    process = broken.start()
    wait_until(lambda: (broken.folder / "step_00000060").exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, said = broken.run()
    assert code == 0, said
    assert "resuming from step" in said
    assert same_weights(last(broken.folder), last(whole))
    _check_mlflow(broken)


@pytest.mark.slow
def test_a_second_sigterm_ends_at_once_and_is_no_failure(
    prepared: Path, data_config: Config, tmp_path: Path, repository: Path
) -> None:
    command = Command(tmp_path / "w", repository, small_config(data_config, steps=9000, log_every=50), prepared)
    process = command.start()
    place = Storage(command.folder)
    wait_until(lambda: bool((there := RunStatus.load(place)) and there.checkpoint) or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert said.strip().splitlines()[-1].startswith("stopped (exit code 143): terminated"), said
    status = RunStatus.load(place)
    assert status is not None
    assert (status.state, status.reason, status.error) == ("stopped", "terminated", None)
    assert status.checkpoint is not None and status.step >= 10
    (seen,) = find_runs(Storage(command.work / "runs"))
    assert seen.state == "stopped" and "terminated" in describe(seen)


def _check_mlflow(command: Command) -> None:
    client = MlflowClient(f"sqlite:///{command.work / 'runs' / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'objgan'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    told = client.get_metric_history(run.info.run_id, "generator/overlap")
    assert [metric.step for metric in told] == list(range(1, _LONG + 1)), "no step twice, none missing"
    names = set(run.data.metrics)
    assert {"learning_rate/generator", "samples_per_s", "system/memory_rss_gb", "discriminators/instance"} <= names


@pytest.mark.slow
def test_a_poisoned_batch_stops_the_run_and_can_be_looked_into(
    prepared: Path, data_config: Config, tmp_path: Path, ray_local: None, logs: list[str]
) -> None:
    """NaN in the boxes of every row: steps are left out, then the run ends naming stage, phase, step and term."""
    data = _poisoned(prepared, tmp_path / "data")
    config = small_config(data_config, max_skipped=2)
    folder = tmp_path / "nan"
    with pytest.raises(TrainingStopped, match=r"stage shapes, phase discriminators, step 2: \w+ is not finite") as stop:
        train(open_run(TrainJob("shapes", config, data, folder)))
    assert "--replay" in str(stop.value)
    assert "(3 steps were left out, 2 are allowed)" in str(stop.value)
    findings = replay(folder / "replay_00000002")
    assert [finding.group for finding in findings] == [0, 1]
    assert all("layout.boxes" in finding.inputs and finding.bad for finding in findings)
    assert "the first output that is not finite is that of networks.shape_generator" in "\n".join(logs)
    assert not [line for line in lines(folder) if "measures" in line], "nothing was learned, nothing is called good"


def _poisoned(prepared: Path, folder: Path) -> Path:
    """A copy of prepared data whose training boxes have NaN as their widths."""
    import json
    import shutil

    from objgan.files import sha256

    shutil.copytree(prepared, folder)
    manifest = load_manifest(folder)
    for shard in (one for one in manifest["shards"] if one["split"] == "train"):
        path = folder / shard["name"]
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        flat = table["boxes"].combine_chunks()
        values = flat.flatten().to_numpy(zero_copy_only=False).copy()
        values[2::4] = np.nan
        boxes = pa.ListArray.from_arrays(flat.offsets, pa.array(values, pa.float32()))
        table = table.set_column(table.schema.get_field_index("boxes"), "boxes", boxes).cast(table.schema)
        path.unlink()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        shard |= {"bytes": path.stat().st_size, "sha256": sha256(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.slow
def test_a_new_run_can_begin_with_the_weights_of_another(
    prepared: Path, data_config: Config, tmp_path: Path, undisturbed: Path
) -> None:
    source = last(undisturbed)
    config = small_config(data_config, steps=2, generator_lr=1e-9, discriminator_lr=1e-9)
    job = TrainJob("shapes", config, prepared, tmp_path / "tuned", init_from=source)
    train(open_run(job))
    done = last(tmp_path / "tuned")
    assert read_state(done)["step"] == 2
    from tests.tools.training import weights

    ours, theirs = weights(done), weights(source)
    for name in (name for name in ours if name.startswith("networks/shape_generator") and "running" not in name):
        assert np.allclose(ours[name].numpy(), theirs[name].numpy(), atol=1e-6), name
    with pytest.raises(InputError, match="init_from"):
        open_run(TrainJob("shapes", config, prepared, tmp_path / "tuned"))


@pytest.mark.slow
def test_a_run_in_a_bucket_waits_while_the_bucket_is_silent(
    prepared: Path, data_config: Config, tmp_path: Path, s3: str, s3_server: str, undisturbed: Path
) -> None:
    """The server is stopped for five seconds in the middle; the run ends as one in a folder does."""
    job = TrainJob("shapes", small_config(data_config), prepared, tmp_path / "shapes", storage=s3)
    (server,) = (one for one in psutil.process_iter() if s3_server.rsplit(":", 1)[-1] in _words(one))

    def silence() -> None:
        wait_until(lambda: Storage(s3).exists("step_00000010/state.json"))
        server.suspend()
        time.sleep(5)
        server.resume()

    thread = threading.Thread(target=silence, daemon=True)
    thread.start()
    done = train(open_run(job))
    thread.join(10)
    assert done.checkpoint.parent == tmp_path / "shapes", "the best one is fetched"
    assert same_weights(OpenRun(job).checkpoints.fetch(f"step_{STEPS:08d}"), last(undisturbed))
    status = RunStatus.load(Storage(s3))
    assert status is not None
    assert (status.state, status.step, status.steps) == ("finished", STEPS, STEPS)
    assert Storage(s3).exists(f"pictures/shapes_{STEPS:07d}.png")


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(
    prepared: Path, data_config: Config, tmp_path: Path, ray_local: None
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=4m tmpfs {disk} 2>/dev/null"):
        pytest.skip("no permission to mount a small tmpfs: the disk cannot be filled for real")
    try:
        config = small_config(data_config, steps=200, checkpoint_every=1, keep_checkpoints=100, picture_every=200)
        with pytest.raises(OSError, match="no space left for checkpoint") as full:
            train(open_run(TrainJob("shapes", config, prepared, disk / "run")))
        assert full.value.errno == 28
        found = OpenRun(TrainJob("shapes", config, prepared, disk / "run")).checkpoints.newest()
        assert found is not None
        assert read_state(found[1])["step"] > 0
    finally:
        os.system(f"umount -l {disk}")


def test_what_does_not_fit_is_refused_before_any_worker_starts(
    prepared: Path, data_config: Config, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    config = small_config(data_config, compute={"workers": 3})
    with pytest.raises(InputError, match=r"3 workers share 2 groups of 2 samples.*shapes.training.group=1"):
        open_run(TrainJob("shapes", config, prepared, folder))
    elastic = small_config(data_config, compute={"workers": 1, "max_workers": 3})
    with pytest.raises(InputError, match="3 workers share"):
        open_run(TrainJob("shapes", elastic, prepared, folder))
    values = small_config(data_config).model_dump(mode="json")
    values["encoders"]["training"] |= {"batch_size": 4, "group": 1}
    with pytest.raises(InputError, match=r"encoders.training.group=1 is under 2"):
        open_run(TrainJob("encoders", build_config(values), prepared, folder))
    assert not (folder / "settings.json").exists(), "a refused run does not bind its folder to wrong settings"


def test_a_run_of_other_data_or_settings_is_refused(
    prepared: Path, prepared_boxes: Path, data_config: Config, tmp_path: Path
) -> None:
    job = TrainJob("boxes", small_config(data_config, "boxes"), prepared_boxes, tmp_path / "run")
    claim_folder(OpenRun(job))
    open_run(job)
    with pytest.raises(InputError, match="data: "):
        open_run(TrainJob("boxes", job.config, prepared, tmp_path / "run"))
    with pytest.raises(InputError, match=r"boxes.training.lr: 0.001 -> 0.01"):
        open_run(TrainJob("boxes", small_config(data_config, "boxes", lr=0.01), prepared_boxes, tmp_path / "run"))
