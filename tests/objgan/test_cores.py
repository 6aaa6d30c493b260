"""Cores that this process may use: its affinity mask and its CPU quota, not the machine's count."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from objgan.cores import available_cores
from tests.tools.bound_process import one_of_several, under

V2 = {"proc/self/cgroup": "0::/pod/container\n"}
V1 = {"proc/self/cgroup": "3:memory:/x\n2:cpu,cpuacct:/docker/abc\n1:cpuset:/\n"}


def test_a_process_that_is_bound_to_one_core_counts_one(tmp_path, repository) -> None:
    code = "from objgan.cores import available_cores; print(available_cores())"
    assert under(one_of_several(), ["-c", code], tmp_path, repository).strip() == "1"
    assert int(under(os.sched_getaffinity(0), ["-c", code], tmp_path, repository)) == available_cores()


def test_taskset_is_heeded(tmp_path, repository) -> None:
    code = "from objgan.cores import available_cores; print(available_cores())"
    words = ["taskset", "-c", str(max(one_of_several())), sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    assert subprocess.check_output(words, text=True, cwd=tmp_path, env=environment).strip() == "1"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({**V2, "sys/fs/cgroup/pod/container/cpu.max": "100000 100000\n"}, 1),
        ({**V2, "sys/fs/cgroup/pod/cpu.max": "150000 100000\n"}, 1),  # a group above limits, too; rounded down
        ({**V2, "sys/fs/cgroup/pod/container/cpu.max": "50000 100000\n"}, 1),  # never none
        ({**V2, "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),  # a container that sees its own group as the top
        ({**V2, "sys/fs/cgroup/pod/container/cpu.max": "max 100000\n"}, None),
        ({**V2, "sys/fs/cgroup/pod/container/cpu.max": "99900000 100000\n"}, None),  # more than there are
        ({**V2, "sys/fs/cgroup/pod/container/cpu.max": "\n"}, None),
        ({**V2, "sys/fs/cgroup/pod/container/cpu.max": "100000 0\n"}, None),
        (V2, None),
        ({**V1, "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "100000\n",
          "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n"}, 1),
        ({**V1, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
          "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 1),
        ({**V1, "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "-1\n",
          "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
        ({"proc/self/cgroup": "nonsense"}, None),
    ],
)  # fmt: skip
def test_a_quota_of_the_container_counts(files: dict[str, str], cores: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cores(tmp_path) == (len(os.sched_getaffinity(0)) if cores is None else cores)


def test_nothing_else_counts_cores(repository: Path) -> None:
    counting = re.compile(r"\bcpu_count\(|sched_getaffinity|available_cpu")
    found = [
        str(path.relative_to(repository))
        for package in ("objgan", "pipelines", "tune")
        for path in (repository / package).rglob("*.py")
        if counting.search(path.read_text())
    ]
    assert found == ["objgan/cores.py"]
