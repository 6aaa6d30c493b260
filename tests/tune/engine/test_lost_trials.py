"""Other ways in which a sweep could lose a trial without a message, through the real command."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.sweeps import small_sweep
from tests.tools.training import wait_until
from tune.engine.engine import open_sweep
from tune.sweep.sweep import Budget, Sweep
from tune.sweep.trial_store import ENDED, load_result


def start(sweep: Sweep, work: Path, *words: str) -> subprocess.Popen[str]:
    """`python -m tune --resume`, in a folder of its own."""
    repository = Path(__file__).resolve().parents[3]
    return subprocess.Popen(
        [sys.executable, "-m", "tune", "--resume", sweep.run, "--storage", sweep.storage, *words],
        cwd=work, env={**os.environ, "PYTHONPATH": str(repository)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def steps(sweep: Sweep) -> list[tuple[str, list[int]]]:
    result = load_result(sweep.store())
    assert result is not None
    return [(trial.state, [point.step for point in trial.points]) for trial in result.trials]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB, room for a few checkpoints, that can really be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no permission to mount a small tmpfs: the disk cannot be filled for real")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.ray
@pytest.mark.slow
def test_of_two_drivers_that_resume_at_once_one_is_refused(data_config, prepared, tmp_path) -> None:
    sweep = small_sweep(data_config, prepared, tmp_path / "runs", budget=Budget(2))
    open_sweep(sweep, resume=False)
    both = [start(sweep, tmp_path) for _ in range(2)]
    ends = [(process, *process.communicate(timeout=300)) for process in both]
    codes = sorted(process.returncode for process, _, _ in ends)
    assert codes == [0, 2], ends
    (refused,) = [err for process, _, err in ends if process.returncode == 2]
    assert "is held by process" in refused and refused.count("\n") == 1
    assert steps(sweep) == [("finished", [10, 20, 30])] * 2


@pytest.mark.ray
@pytest.mark.slow
def test_a_disk_that_fills_up_while_a_trial_is_recorded_loses_nothing(
    data_config, prepared, tmp_path, small_disk: Path
) -> None:
    sweep = small_sweep(
        data_config, prepared, small_disk, budget=Budget(1, retries=0), training={"steps": 300, "keep_checkpoints": 2}
    )
    open_sweep(sweep, resume=False)
    process, filler = start(sweep, tmp_path), small_disk / "filler"
    wait_until(lambda: bool(list(small_disk.glob("small/trials/*/points.json"))) or process.poll() is not None)
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    _, said = process.communicate(timeout=300)
    filler.unlink()
    assert process.returncode == 1, said
    assert "Traceback" not in said and "no space left" in said.lower(), said
    assert "--resume small" in said or "the same command" in said
    assert not {state for state, _ in steps(sweep)} & ENDED
    process = start(sweep, tmp_path)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert steps(sweep) == [("finished", list(range(10, 301, 10)))]
