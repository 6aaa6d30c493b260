"""What the tests of training share: a small job, its weights, and ways to make a worker die."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
import yaml
from safetensors.torch import load_file

from objgan.config import Config, build_config

STEPS = 30


def small_config(base: Config, stage: str = "shapes", compute: dict | None = None, **training: object) -> Config:
    """A stage of a few parameters, 30 steps, a checkpoint after every tenth, in groups of 2."""
    values = base.model_dump(mode="json")
    values["shapes"] |= {"width": 8, "class_embedding": 4, "noise": 2, "discriminator_width": 8}
    values[stage]["training"] |= {
        "steps": STEPS, "epochs": None, "batch_size": 4, "group": 2, "checkpoint_every": 10, "log_every": 1,
        "picture_every": 30, "validation_samples": 4, **training,
    }  # fmt: skip
    values["compute"] |= {"threads": 1, **(compute or {})}
    return build_config(values)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, by file and name."""
    return {
        f"{path.relative_to(checkpoint)}:{name}": value
        for path in sorted(checkpoint.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def same_weights(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same bits: networks, averages and optimisers."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert a
    return all(torch.equal(value, b[name]) for name, value in a.items())


def last(folder: Path) -> Path:
    """The newest checkpoint of a run."""
    return max(folder.glob("step_*"))


def lines(folder: Path) -> list[dict]:
    """What the run told."""
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def wait_until(holds: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def training_workers(within: int) -> list[psutil.Process]:
    """Processes of Ray Train's workers among the descendants of a process: nobody else's are ours to kill."""
    found = []
    for process in psutil.Process(within).children(recursive=True):
        try:
            if any("RayTrainWorker" in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_a_worker_after(folder: Path, step: int) -> threading.Thread:
    """SIGKILL to a training worker once the checkpoint of `step` is there; the thread ends then."""

    def kill() -> None:
        wait_until(lambda: (folder / f"step_{step:08d}").exists())
        training_workers(os.getpid())[0].send_signal(signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


class Command:
    """`python -m pipelines train STAGE` in a process of its own, for tests that kill it."""

    def __init__(self, work: Path, repository: Path, config: Config, data: Path, stage: str = "shapes") -> None:
        self.work, self.stage = work, stage
        self.folder = work / "runs" / "r" / stage
        work.mkdir(exist_ok=True)
        (work / "settings.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
        self._words = [sys.executable, "-m", "pipelines", "train", stage, "--data", str(data), "--run", "r"]
        self._words += ["--config", "settings.yaml"]
        self._environment = {**os.environ, "PYTHONPATH": str(repository)}

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Begin; standard output and errors are one."""
        return subprocess.Popen(
            [*self._words, *more],
            cwd=self.work,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *more: str, timeout: float = 240) -> tuple[int, str]:
        """Exit code and output."""
        process = self.start(*more)
        said, _ = process.communicate(timeout=timeout)
        return process.returncode, said
