"""Workers, process pools, Ray and sweeps count the cores that their process may use (`objgan.cores`)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from objgan.cores import available_cores


def under(cores: set[int], words: list[str], cwd: Path, repository: Path) -> str:
    """Output of a Python process that may use these cores alone."""
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env={**os.environ, "PYTHONPATH": str(repository)}, capture_output=True,
        text=True, check=False, timeout=240, preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def one_of_several() -> set[int]:
    """One core of this machine, where it has more."""
    mine = os.sched_getaffinity(0)
    if len(mine) < 2 or available_cores() < 2:
        pytest.skip("one core is all there is")
    return {max(mine)}


def test_a_worker_takes_its_share_of_the_bound_cores(one_of_several, tmp_path, repository) -> None:
    code = "import torch; from pipelines.training.worker import _set_threads\n"
    code += "print(_set_threads(0, None, 1), torch.get_num_threads())"
    assert under(one_of_several, ["-c", code], tmp_path, repository).split() == ["1", "1"]


def test_verify_starts_one_process_for_each_bound_core(one_of_several, prepared, tmp_path, repository) -> None:
    code = (
        "import concurrent.futures, pipelines.data.verify.verify as v\n"
        "class Pool(v.ProcessPoolExecutor):\n"
        "    def __init__(self, processes, *rest): print('processes', processes); super().__init__(processes, *rest)\n"
        f"v.ProcessPoolExecutor = Pool\nv.verify({str(prepared)!r}, print)"
    )
    assert "processes 1\n" in under(one_of_several, ["-c", code], tmp_path, repository)


@pytest.mark.ray
def test_a_ray_of_our_own_has_the_bound_cores(one_of_several, tmp_path, repository) -> None:
    code = (
        "import ray; from pipelines.runtime.ray_session import ray_session, own_cores\n"
        "with ray_session(): print(int(ray.cluster_resources()['CPU']), own_cores(None))"
    )
    assert under(one_of_several, ["-c", code], tmp_path, repository).split() == ["1", "1"]
