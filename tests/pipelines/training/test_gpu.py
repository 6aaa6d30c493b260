"""Two GPUs for real: NCCL, bfloat16, two ranks. `make test-gpu`; without two GPUs everything here is skipped."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from objgan.checkpoint import read_state
from objgan.config import Config
from pipelines.training.driver import train
from pipelines.training.job import TrainJob, open_run
from tests.tools.training import STEPS, kill_a_worker_after, last, lines, same_weights, small_config

DEVICE, BACKEND = "cuda", "nccl"
GPUS = torch.cuda.device_count()

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(GPUS < 2, reason=f"needs two GPUs, {GPUS} here"),
]
needs_bfloat16 = pytest.mark.skipif(
    GPUS > 0 and not torch.cuda.is_bf16_supported(including_emulation=False), reason="these GPUs have no bfloat16"
)


def _train(prepared: Path, folder: Path, config: Config) -> list[dict]:
    """What the run told of its steps."""
    train(open_run(TrainJob("shapes", config, prepared, folder)))
    return [line for line in lines(folder) if "values" in line]


def _config(base: Config, precision: str, workers: int, **training: Any) -> Config:
    return small_config(base, compute={"device": DEVICE, "precision": precision, "workers": workers}, **training)


@pytest.fixture(scope="module")
def alone(prepared: Path, data_config: Config, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    """A run by one GPU in float32."""
    folder = tmp_path_factory.mktemp("alone") / "shapes"
    _train(prepared, folder, _config(data_config, "float32", 1))
    return folder


def test_two_ranks_sum_over_nccl(ray_local: None, tmp_path: Path) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    expected = BACKEND

    def work() -> None:
        import ray.train.torch
        import torch.distributed as dist

        assert dist.get_backend() == expected
        here = torch.full((1024,), dist.get_rank() + 1.0, dtype=torch.bfloat16, device=ray.train.torch.get_device())
        dist.all_reduce(here)
        assert here.eq(3.0).all()

    scaling = ScalingConfig(num_workers=2, use_gpu=DEVICE == "cuda")
    TorchTrainer(work, scaling_config=scaling, run_config=RunConfig(storage_path=str(tmp_path))).fit()


def test_two_gpus_learn_what_one_does(prepared: Path, data_config: Config, tmp_path: Path, alone: Path) -> None:
    told = _train(prepared, tmp_path / "two", _config(data_config, "float32", 2, steps=2))
    before = [line for line in lines(alone) if "values" in line]
    for ours, theirs in zip(told, before, strict=False):
        for name in ("generator/overlap", "discriminators/instance", "generator/gradient_norm"):
            assert ours["values"][name] == pytest.approx(theirs["values"][name], rel=1e-3), name
    state = read_state(last(tmp_path / "two"))
    assert (state["workers"], state["groups"]) == (2, 2)


@needs_bfloat16
def test_bfloat16_begins_like_float32_and_stays_finite(
    prepared: Path, data_config: Config, tmp_path: Path, alone: Path
) -> None:
    told = _train(prepared, tmp_path / "bf16", _config(data_config, "bfloat16", 2))
    assert len(told) == STEPS
    before = next(line for line in lines(alone) if "values" in line)
    assert told[0]["values"]["generator/overlap"] == pytest.approx(before["values"]["generator/overlap"], rel=0.05)
    assert all(torch.isfinite(torch.tensor(list(line["values"].values()))).all() for line in told)


def test_a_killed_rank_goes_on_to_the_same_bits(
    prepared: Path, data_config: Config, tmp_path: Path, alone: Path
) -> None:
    folder = tmp_path / "killed"
    killer = kill_a_worker_after(folder, 10)
    _train(prepared, folder, _config(data_config, "float32", 1))
    killer.join(1)
    assert not killer.is_alive(), "the worker was not killed"
    assert same_weights(last(folder), last(alone))


@needs_bfloat16
def test_the_whole_way_on_two_gpus(repository: Path, tmp_path: Path) -> None:
    groups = {"encoders": 3, "boxes": 3, "shapes": 3, "images": 3}
    training = {"steps": 4, "batch_size": 6, "validation_samples": 6, "checkpoint_every": 2}
    stages = {name: {"training": {**training, "group": group}} for name, group in groups.items()}
    (tmp_path / "quick.yaml").write_text(json.dumps(stages))
    command = [sys.executable, "-m", "pipelines", "run", "--recipe", "tiny", "--config", "quick.yaml"]
    options = ["--workers", "2", "--set", f"compute.device={DEVICE}", "--out", "runs/gpu"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run([*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert list((tmp_path / "runs" / "gpu").glob("assemble-*/model/config.json"))
