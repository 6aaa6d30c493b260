"""Ray Train for real: two workers, a death on the way, a checkpoint that was changed."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from objgan.config import Config, build_config
from objgan.errors import InputError
from pipelines.jobs import TrainJob
from pipelines.train import TrainingStopped, train

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


def _config(base: Config, **training: object) -> Config:
    values = base.model_dump(mode="json")
    values["shapes"] |= {"width": 8, "class_embedding": 4, "noise": 2, "discriminator_width": 8}
    values["shapes"]["training"] |= {
        "steps": 6, "epochs": None, "batch_size": 4, "checkpoint_every": 2, "log_every": 1, "picture_every": 6,
        "validation_samples": 4, **training,
    }  # fmt: skip
    values["compute"]["threads"] = 1
    return build_config(values)


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "networks" / "shape_generator.safetensors")


def _lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_worker_killed_on_the_way_changes_nothing_in_the_end(
    prepared: Path, data_config: Config, tmp_path: Path
) -> None:
    config = _config(data_config)
    whole = train(TrainJob("shapes", config, prepared, tmp_path / "whole"), lambda line: None)
    folder = tmp_path / "killed"
    killer = threading.Thread(target=_kill_after_checkpoint, args=(folder,), daemon=True)
    killer.start()
    said: list[str] = []
    killed = train(TrainJob("shapes", config, prepared, folder), said.append)
    killer.join(1)
    assert not killer.is_alive(), "the worker was not killed"
    assert any("goes on from step" in line for line in said)
    last = max(path for path in folder.glob("step_*"))
    assert last.name == "step_00000006"
    for name, value in _weights(tmp_path / "whole" / last.name).items():
        assert torch.equal(value, _weights(last)[name]), name
    assert whole.step <= 6
    assert set(killed.measures) >= {"mask_iou"}
    again = train(TrainJob("shapes", config, prepared, folder), said.append)
    assert again == killed
    assert "finished before" in said[-1]


def _kill_after_checkpoint(folder: Path) -> None:
    """SIGKILL to the worker that writes the run's progress, once a checkpoint is registered."""
    while (
        not (folder / "checkpoint_manager_snapshot.json").exists()
        or "step_" not in (folder / "checkpoint_manager_snapshot.json").read_text()
    ):
        time.sleep(0.02)
    import psutil

    for process in psutil.process_iter(["pid", "cmdline"]):
        if any("RayTrainWorker" in word for word in process.info["cmdline"] or ()):
            os.kill(process.info["pid"], signal.SIGKILL)
            return


@pytest.mark.slow
def test_two_workers_share_the_batch_and_hold_the_same_networks(
    prepared: Path, data_config: Config, tmp_path: Path
) -> None:
    values = _config(data_config, steps=2).model_dump(mode="json")
    values["compute"]["workers"] = 2
    done = train(TrainJob("shapes", build_config(values), prepared, tmp_path / "two"), lambda line: None)
    assert done.step == 2
    assert (done.checkpoint / "state.json").exists()
    assert [line["step"] for line in _lines(tmp_path / "two") if "values" in line] == [1, 2]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(
    prepared: Path, data_config: Config, tmp_path: Path
) -> None:
    """A learning rate that blows up: no retries, no checkpoint of broken weights."""
    config = _config(data_config, generator_lr=1e30, discriminator_lr=1e30, clip=1e30, steps=50, checkpoint_every=50)
    began = time.monotonic()
    with pytest.raises(TrainingStopped, match=r"stage shapes, phase \w+, step \d+: \w+ is (nan|inf|-inf)"):
        train(TrainJob("shapes", config, prepared, tmp_path / "nan"), lambda line: None)
    assert not list((tmp_path / "nan").glob("step_*"))
    assert time.monotonic() - began < 120


def test_what_does_not_fit_is_refused_before_any_worker_starts(
    prepared: Path, data_config: Config, tmp_path: Path
) -> None:
    values = _config(data_config).model_dump(mode="json")
    values["compute"]["workers"] = 2
    values["shapes"]["training"]["batch_size"] = 5
    folder = tmp_path / "odd"
    with pytest.raises(InputError, match="cannot be dealt out to 2 workers"):
        train(TrainJob("shapes", build_config(values), prepared, folder), lambda line: None)
    assert not (folder / "settings.json").exists(), "a refused run does not bind its folder to wrong settings"
    assert yaml.safe_load(yaml.safe_dump(values))
