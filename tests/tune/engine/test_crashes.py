"""Real infrastructure failures under a trial: it is retried, and after its retries left for a resumed sweep."""

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import ray.train
import torch

from objgan.config import Config
from objgan.errors import InputError
from pipelines.storage.lease import LeaseLost
from pipelines.storage.retry import StorageAway
from pipelines.training.driver import TrainingStopped
from pipelines.training.supervisor import Preempted, Stalled
from tests.tools.sweeps import LR, small_sweep
from tune.engine.engine import open_sweep
from tune.engine.preflight import trial_settings
from tune.space.space import Knob, Space
from tune.sweep.outcomes import SettingsRefused, TrialCrashed, end_of, line_of
from tune.sweep.results import SweepResult
from tune.sweep.spec_file import save_sweep
from tune.sweep.sweep import Budget, Sweep
from tune.sweep.trial_store import ENDED, TrialStore, load_result

ONE = Space({LR: Knob("choice", values=(1e-3,))})


class Wrapped(RuntimeError):
    """An error of a worker's own code, wrapped as by Ray Train."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("Traceback ...")
        self._base_exc = error


def of_workers(*errors: BaseException) -> BaseException:
    return ray.train.WorkerGroupError("workers failed", dict(enumerate(errors)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "finished"),
        (Preempted("asked", "terminated"), "interrupted"),
        (TrainingStopped("stage boxes, step 3: loss is not finite"), "diverged"),
        (FloatingPointError("label_nll is nan at step 10"), "diverged"),
        (SettingsRefused("boxes.training.lr: too large"), "failed"),
        (TypeError("a bug"), "failed"),
        (of_workers(Wrapped(KeyError("a bug")), Wrapped(torch.OutOfMemoryError("CUDA out of memory"))), "failed"),
        (Stalled("no worker has given a sign of life for 300 s"), "crashed"),
        (OSError(errno.ENOSPC, "No space left on device"), "crashed"),
        (StorageAway("storage s3://b: cannot read x; given up after 120 s"), "crashed"),
        (InputError("no prepared data in /mnt/data"), "crashed"),
        (LeaseLost("taken over"), "crashed"),
        (ray.exceptions.NodeDiedError("gone"), "crashed"),
        (ray.exceptions.ActorDiedError(), "crashed"),
        (of_workers(ray.exceptions.ActorDiedError(), Wrapped(RuntimeError("Connection closed by peer"))), "crashed"),
        (of_workers(Wrapped(TypeError("follows from it")), ray.exceptions.WorkerCrashedError()), "crashed"),
        (ray.train.ControllerError(ray.exceptions.ActorDiedError()), "crashed"),
        (MemoryError(), "crashed"),
        (SystemExit(1), "crashed"),
        (KeyboardInterrupt(), "crashed"),
        (TrialCrashed("Stalled: again"), "crashed"),
    ],
)
def test_one_function_decides_how_a_trial_ended(error: BaseException | None, state: str) -> None:
    assert end_of(error) == state
    assert (state in ENDED) == (state in ("finished", "diverged", "failed"))
    assert error is None or "\n" not in line_of(error)


def test_a_trial_fails_only_for_its_own_settings(data_config: Config, prepared: Path, tmp_path: Path) -> None:
    sweep = small_sweep(data_config, prepared, tmp_path)
    assert trial_settings(sweep, {LR: 1e-3}).boxes.training.lr == 1e-3
    with pytest.raises(SettingsRefused, match=LR):
        trial_settings(sweep, {LR: -1.0})
    away = prepared.rename(prepared.with_name("away"))  # as a mount that is gone
    try:
        with pytest.raises(InputError) as found:
            trial_settings(sweep, {LR: 1e-3})
        assert end_of(found.value) == "crashed"
    finally:
        away.rename(prepared)


# With Ray: a driver with a Ray of its own. Ray gives back the CPUs of an abandoned training only with a dashboard.


def prepared_sweep(config: Config, data: Path, root: Path, retries: int, steps: int = 30, **compute: float) -> Sweep:
    """A sweep of one trial, ready for a driver."""
    training = {"steps": steps, "max_failures": 0, "keep_checkpoints": 100}
    sweep = small_sweep(config, data, root, space=ONE, budget=Budget(1, retries=retries), training=training)
    sweep = with_compute(sweep, **compute)
    open_sweep(sweep, resume=False)
    return sweep


def with_compute(sweep: Sweep, **compute: float) -> Sweep:
    """The sweep with other settings of `compute`."""
    settings = sweep.config.model_dump()
    settings["compute"] |= compute
    return replace(sweep, config=Config.model_validate(settings))


def drive(sweep: Sweep, *words: str) -> tuple[SweepResult, list[str]]:
    """The result of a driver's process, and its lines; no CPU stays occupied."""
    repository = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.sweep_driver", sweep.storage, sweep.run, *words],
        cwd=repository, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "cpus taken: 0", done.stdout
    result = load_result(sweep.store())
    assert result is not None
    return result, lines


def having(lines: list[str], word: str) -> list[str]:
    return [line for line in lines if word in line]


def is_whole(result: SweepResult, steps: int = 30) -> bool:
    (trial,) = result.trials
    measured = [point.step for point in trial.points]
    return (result.state, trial.state, trial.error, measured) == (
        "finished",
        "finished",
        None,
        list(range(10, steps + 1, 10)),
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_whose_workers_do_not_start_is_retried(data_config, prepared, tmp_path) -> None:
    sweep = prepared_sweep(data_config, prepared, tmp_path, retries=2, start_deadline=40.0)
    result, lines = drive(sweep, "--hold", "retry 1 of 2")
    assert is_whole(result), lines
    (line,) = having(lines, "retry")
    assert "Stalled: no worker has given a sign of life" in line


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_that_used_up_its_retries_is_left_for_resume(data_config, prepared, tmp_path) -> None:
    sweep = prepared_sweep(data_config, prepared, tmp_path, retries=1, start_deadline=5.0)
    result, lines = drive(sweep, "--hold", "end of the sweep")
    (trial,) = result.trials
    assert (result.state, trial.state) == ("incomplete", "crashed"), lines
    assert trial.error is not None and trial.error.startswith("Stalled: no worker")
    assert len(having(lines, "retry 1 of 1")) == 1 and len(having(lines, "--resume runs it again")) == 1
    assert sweep.store().json("state.json")["left"] == 1
    with pytest.raises(InputError, match="0 of 1 trials ended: continue it with --resume small"):
        open_sweep(sweep, resume=False)
    save_sweep(with_compute(sweep, start_deadline=300.0))  # a resumed sweep may change it
    result, lines = drive(sweep)
    assert is_whole(result), lines
    assert not having(lines, "finished before") and sweep.store().json("state.json")["left"] == 0


@pytest.mark.ray
@pytest.mark.slow
def test_a_deadline_that_is_too_short_ends_no_trial_for_good(data_config, prepared, tmp_path) -> None:
    """If it counted as ended, a resumed sweep would not run it again."""
    sweep = prepared_sweep(data_config, prepared, tmp_path, retries=0, start_deadline=0.01)
    result, lines = drive(sweep)
    assert result.trials[0].state == "crashed" and not having(lines, "retry"), lines
    result, lines = drive(sweep)
    assert result.state == "incomplete"
    assert having(lines, "1 trials of boxes") and not having(lines, "finished before")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("who", "why"), [("worker", "WorkerGroupError"), ("trial", "its process was killed")])
def test_a_trial_whose_process_is_killed_continues_from_its_checkpoint(
    who: str, why: str, data_config, prepared, tmp_path, ray_local
) -> None:
    """Beside another Ray on the machine (`ray_local`), which Ray Train's cleaner once took for a reason to give up."""
    sweep = prepared_sweep(data_config, prepared, tmp_path, retries=1, steps=400)
    result, lines = drive(sweep, "--kill", who)
    assert is_whole(result, 400), lines
    assert len(having(lines, "retry 1 of 1")) == 1 and why in having(lines, "retry")[0]
    assert len(having(lines, ": step 10,")) == 1, "no report is repeated"


@pytest.mark.ray
@pytest.mark.slow
def test_a_driver_killed_between_a_trials_end_and_its_record_loses_nothing(data_config, prepared, tmp_path) -> None:
    """The trial is done, and its row says `running`, with the last reports missing."""
    sweep = prepared_sweep(data_config, prepared, tmp_path, retries=0)
    calm, _ = drive(sweep)
    rows = TrialStore(sweep.store())
    (row,) = rows.rows.values()
    rows.put(replace(row, state="running", points=row.points[:1], checkpoint=None))
    rows.put_state("running", calm.seconds, left=1)
    came, lines = drive(sweep)
    assert is_whole(came) and came.trials[0].points == calm.trials[0].points, lines
    assert came.trials[0].checkpoint == calm.trials[0].checkpoint
