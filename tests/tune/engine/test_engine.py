"""Real sweeps: trials that finish, fail, are stopped early or take over another's weights; and refused sweeps."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from objgan.checkpoint import read_config, read_state
from objgan.config import Config
from objgan.errors import InputError
from pipelines.storage.lease import Lease
from pipelines.storage.storage import Storage
from tests.tools.chaos_sweep import Bench, compare
from tests.tools.logged import logged
from tests.tools.sweeps import GOAL, LR, WEIGHT, small_sweep
from tests.tools.training import same_weights, wait_until
from tune.engine.engine import check_sweep, open_sweep, run_sweep
from tune.space.space import Knob, Space
from tune.sweep.results import SweepResult, Trial
from tune.sweep.sweep import Budget, Sweep
from tune.sweep.trial_store import TrialStore, checkpoint_place, load_result, trial_id

# The norm of a gradient times this is infinite: the trial skips its steps until it has skipped too many.
_BROKEN = 1e25
_LEARNS, _LAZY = 1e-2, 1e-7


class Heard:
    """An observer that keeps the rows it receives."""

    def __init__(self) -> None:
        self.rows: list[Trial] = []

    def trial(self, trial: Trial) -> None:
        self.rows.append(trial)


def _seed_for(space: Space, wanted: list[tuple[float, float]]) -> int:
    """A seed with which the first trials come in this order."""
    return next(
        seed
        for seed in range(100_000)
        if all(tuple(space.draw(seed, n)[name] for name in (LR, WEIGHT)) == pair for n, pair in enumerate(wanted))
    )


# What is refused, without Ray


@pytest.fixture
def sweep(data_config: Config, prepared: Path, tmp_path: Path) -> Sweep:
    """A sweep that has not started."""
    return small_sweep(data_config, prepared, tmp_path)


def test_an_existing_sweep_continues_only_with_resume(sweep: Sweep) -> None:
    with pytest.raises(InputError, match="--resume small: there is no sweep in"):
        open_sweep(sweep, resume=True)
    rows = open_sweep(sweep, resume=False)
    rows.put(Trial(trial_id(0, 0), 0, {}, "finished"))
    with pytest.raises(InputError, match=r"1 of 4 trials ended: continue it with --resume small, or use another --run"):
        open_sweep(sweep, resume=False)
    assert open_sweep(sweep, resume=True).rows == rows.rows
    more = replace(sweep, budget=Budget(9, seconds=60))
    assert open_sweep(more, resume=True).rows == rows.rows, "a budget may be given anew"


def test_another_sweep_is_refused_and_the_difference_is_named(
    sweep: Sweep, prepared_boxes: Path, tmp_path: Path
) -> None:
    open_sweep(sweep, resume=False)
    other = replace(sweep, seed=1, space=Space({LR: Knob("uniform", 1e-4, 1e-2)}))
    with pytest.raises(InputError, match=r"was begun differently \(seed: 0 -> 1;.*boxes.training.lr.kind"):
        open_sweep(other, resume=True)
    with pytest.raises(InputError, match=r"was begun differently \(data: "):
        open_sweep(replace(sweep, data=prepared_boxes), resume=True)
    (tmp_path / "small").rename(tmp_path / "moved")
    moved = replace(sweep, run="moved", storage=str(tmp_path))
    assert open_sweep(moved, resume=True).state == "running", "a moved sweep is the same sweep"


def test_a_sweep_that_cannot_train_is_refused_before_it_writes_anything(sweep: Sweep, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stage images needs encoders: give --encoders DIR, or sweep over encoders"):
        check_sweep(replace(sweep, stages=("images",)))
    with pytest.raises(InputError):
        check_sweep(replace(sweep, data=tmp_path / "nothing"))
    rungs = check_sweep(sweep)
    assert (rungs.every, rungs.steps) == (10, 30)
    assert not sweep.store().exists()


def test_a_second_driver_is_refused(sweep: Sweep) -> None:
    with Lease.acquire(sweep.store()), pytest.raises(InputError, match="is held by process"):
        run_sweep(sweep, [])


def test_rows_survive_and_damage_is_reported(sweep: Sweep) -> None:
    rows = TrialStore(sweep.store())
    rows.put(Trial(trial_id(0, 1), 1, {LR: 1e-3}, "stopped", donors=((10, "a"),)))
    rows.put(Trial(trial_id(0, 0), 0, {LR: 1e-2}))
    rows.put_state("interrupted", 12.0, "terminated")
    loaded = load_result(sweep.store())
    assert loaded == rows.result()
    assert loaded is not None and [row.number for row in loaded.trials] == [0, 1]
    assert (loaded.state, loaded.reason) == ("interrupted", "terminated")
    sweep.store().write(f"trials/{trial_id(0, 0)}/trial.json", '{"id": "x"}')
    with pytest.raises(InputError, match=r"trial.json is not a trial's row"):
        load_result(sweep.store())
    assert load_result(Storage(sweep.storage).child("none")) is None


# With Ray


@pytest.fixture(scope="module")
def actors_before(ray_local: None) -> list[str]:
    """Actors that other tests left in this Ray: Ray Data keeps some as long as Ray runs."""
    return _actors()


@pytest.fixture(scope="module")
def ended_early(
    data_config: Config, prepared: Path, tmp_path_factory: pytest.TempPathFactory, actors_before: list[str]
) -> tuple[Sweep, SweepResult, Heard, list[str]]:
    """ASHA over a trial that learns, one that diverges, one that is refused and two that learn nothing."""
    space = Space({LR: Knob("choice", values=(_LEARNS, _LAZY)), WEIGHT: Knob("choice", values=(1.0, _BROKEN, -1.0))})
    seed = _seed_for(space, [(_LEARNS, 1.0), (_LEARNS, _BROKEN), (_LAZY, 1.0), (_LEARNS, -1.0), (_LAZY, 1.0)])
    sweep = small_sweep(
        data_config, prepared, tmp_path_factory.mktemp("early"), space=space, seed=seed, scheduler="asha",
        budget=Budget(5), training={"max_skipped": 2, "steps": 90},
    )  # fmt: skip
    heard = Heard()
    with logged() as said:
        result = run_sweep(sweep, [heard])
    return sweep, result, heard, said


@pytest.mark.ray
@pytest.mark.slow
def test_trials_end_independently_and_early(ended_early: tuple[Sweep, SweepResult, Heard, list[str]]) -> None:
    sweep, result, heard, _ = ended_early
    assert result.state == "finished"
    learns, broken, lazy, refused, second = result.trials
    assert [trial.id for trial in result.trials] == [trial_id(sweep.seed, number) for number in range(5)]
    assert learns.state == "finished"
    assert [point.step for point in learns.points] == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert (broken.state, refused.state) == ("diverged", "failed")
    assert broken.error is not None and "is not finite" in broken.error and "\n" not in broken.error
    assert refused.error is not None and WEIGHT in refused.error
    assert lazy.state == "stopped"
    assert second.state == "stopped"
    assert lazy.points[-1].step % 10 == 0 and lazy.points[-1].step < 90
    best = result.best(GOAL)
    assert best == learns
    assert 0 < learns.training_s < learns.seconds < result.seconds
    states = [row.state for row in heard.rows if row.id == lazy.id]
    assert states[0] == "pending" and states[1] == "running" and states[-1] == "stopped"
    assert load_result(sweep.store()) == result


@pytest.mark.ray
@pytest.mark.slow
def test_trials_are_ordinary_runs_and_keep_their_best_checkpoint(
    ended_early: tuple[Sweep, SweepResult, Heard, list[str]],
) -> None:
    sweep, result, _, _ = ended_early
    store, name = checkpoint_place(sweep.store(), result.trials[0], "boxes")
    assert store.local is not None
    facts = read_state(store.local / name)
    best = result.trials[0].best(GOAL)
    assert best is not None and facts["step"] == best.step and facts["measures"] == best.measures
    assert read_config(store.local / name).boxes.training.lr == _LEARNS
    assert store.json("status.json")["state"] == "finished"
    stopped = sweep.store().child(f"trials/{result.trials[2].id}/boxes")
    assert stopped.json("status.json")["state"] == "preempted"
    assert not stopped.exists("lease.json") and not stopped.exists(".ray") and not sweep.store().exists(".tune")


@pytest.mark.ray
@pytest.mark.slow
def test_every_cpu_is_released_and_no_actor_stays(
    ended_early: tuple[Sweep, SweepResult, Heard, list[str]], actors_before: list[str]
) -> None:
    def left() -> dict[str, Any]:
        there, free = ray.cluster_resources(), ray.available_resources()
        used = {name: there[name] - free.get(name, 0.0) for name in ("CPU", "node:__internal_head__")}
        actors = [name for name in _actors() if name not in actors_before]
        return {name: value for name, value in {**used, "actors": actors}.items() if value}

    deadline = time.monotonic() + 30
    while left() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left()


def _actors() -> list[str]:
    from ray._private.state import actors

    names = [facts["ActorClassName"] for facts in actors().values() if facts["State"] != "DEAD"]
    # Ray Data's, which the first training begins.
    return [name for name in names if name != "_AutoscalingCoordinatorActor"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_finished_sweep_logs_that_it_finished_before(
    ended_early: tuple[Sweep, SweepResult, Heard, list[str]],
    logs: list[str],
) -> None:
    sweep, result, _, _ = ended_early
    heard = Heard()
    assert run_sweep(sweep, [heard]) == result
    assert "finished before" in logs[-1]
    assert tuple(heard.rows) == result.trials


@pytest.mark.ray
@pytest.mark.slow
def test_a_population_continues_from_the_donors_weights(
    data_config: Config, prepared: Path, tmp_path: Path, ray_local: None
) -> None:
    """Two trials; the one that learns nothing takes over the other's, with other settings.

    They last long enough for the first to report before the second has ended, however late its workers start.
    """
    space = Space({LR: Knob("log_uniform", 1e-6, 1e-2)})
    seed = next(s for s in range(10_000) if space.draw(s, 0)[LR] > 3e-3 and space.draw(s, 1)[LR] < 3e-6)
    sweep = small_sweep(
        data_config, prepared, tmp_path, space=space, seed=seed, scheduler="pbt", budget=Budget(2),
        training={"steps": 1200, "checkpoint_every": 300, "log_every": 50, "keep_checkpoints": 9},
    )  # fmt: skip
    result = run_sweep(sweep, [])
    donor, taker = result.trials
    assert [trial.state for trial in result.trials] == ["finished", "finished"]
    step, name = taker.donors[0]
    assert name == donor.id
    # With the settings that it drew anew, the taker may become the better of the two.
    assert all(later > step for later, _ in donor.donors), "the one that learned nothing was the first donor"
    root = Path(str(sweep.store()))
    segments = [root / f"trials/{taker.id}/segment_{number + 1:02d}/boxes" for number in range(len(taker.donors))]
    first = segments[0] / f"step_{step:08d}"
    assert same_weights(first, root / f"trials/{donor.id}/boxes" / first.name)
    settings = taker.points[-1].settings
    # Perturbed from the donor's or, for a quarter of the time, drawn anew from the space by Ray.
    assert settings != taker.settings and 1e-6 <= settings[LR] <= 1e-2
    last = max(segments[-1].glob("step_*"))
    assert read_config(last).boxes.training.lr == pytest.approx(settings[LR])
    assert not same_weights(last, max((root / f"trials/{donor.id}/boxes").glob("step_*")))
    assert [point.step for point in taker.points] == sorted({point.step for point in taker.points})


@pytest.mark.ray
@pytest.mark.slow
def test_a_driver_that_is_stopped_or_killed_resumes_to_the_same_result(tmp_path: Path, ray_local: None) -> None:
    """SIGTERM: checkpoints, state interrupted, exit code 143. SIGKILL: none of these. The result stays the same."""
    # Long enough after the first report that neither trial is done when the signal comes.
    bench = Bench(tmp_path, trials=2, steps=480, every=40)
    name, calm = "broken", run_sweep(bench.sweep("calm"), [])
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process = bench.start(name)
        output: list[str] = []
        thread = threading.Thread(target=lambda p=process, o=output: o.extend(p.stdout), daemon=True)
        thread.start()
        wait_until(lambda o=output, p=process: any(": step" in line for line in o) or p.poll() is not None)
        process.send_signal(number)
        assert process.wait(60) == code, output
        came = bench.result(name)
        assert came.state == ("interrupted" if code == 143 else "running")
        if code == 143:
            assert came.reason == "terminated"
            assert {trial.state for trial in came.trials} <= {"interrupted", "finished"}
    process = bench.start(name)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert compare(calm, bench.result(name)) is None
    assert sorted(os.listdir(tmp_path / "runs" / name / "trials")) == [trial_id(0, number) for number in range(2)]


def test_times_are_kept(sweep: Sweep) -> None:
    rows = TrialStore(sweep.store())
    rows.put_state("running", time.monotonic())
    assert TrialStore(sweep.store()).seconds > 0


def test_compare_sees_what_differs(sweep: Sweep) -> None:
    one = Trial("000_x", 0, {LR: 1.0}, "finished")
    calm: Any = SweepResult("finished", (one,), 1.0)
    assert "state" in str(compare(calm, replace(calm, state="running")))
    assert "trial 000_x" in str(compare(calm, replace(calm, trials=(replace(one, settings={LR: 2.0}),))))
