"""Processes that may use some cores of this machine alone."""

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


def one_of_several() -> set[int]:
    """One core of this machine; skips the test where it has no more."""
    mine = os.sched_getaffinity(0)
    if len(mine) < 2 or available_cores() < 2:
        pytest.skip("one core is all there is")
    return {max(mine)}
