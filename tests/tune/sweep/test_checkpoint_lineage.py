"""A take-over: the donor's whole state, with the trial's own settings in force from the next step."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from objgan.checkpoint import resume, save_checkpoint
from objgan.config import Config
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step
from pipelines.data.loading.reader import loader
from pipelines.storage.storage import Storage
from pipelines.training.job import OpenRun, TrainJob
from tests.tools.sweeps import LR, WEIGHT, small_sweep
from tests.tools.training import same_weights
from tune.engine.trial_log import TrialLog
from tune.space.space import with_settings
from tune.sweep.checkpoint_lineage import CheckpointLineage
from tune.sweep.sweep import Requirement, Sweep
from tune.sweep.trial_store import trial_folder


@pytest.fixture
def sweep(data_config: Config, prepared: Path, tmp_path: Path) -> Sweep:
    """A donor with a checkpoint after one step."""
    made = small_sweep(data_config, prepared, tmp_path)
    _step(_open(made, made.config), _state(made, made.config), made.store(), "donor")
    return made


def _open(sweep: Sweep, config: Config, folder: str = "nowhere") -> OpenRun:
    return OpenRun(TrainJob("boxes", config, sweep.data, Path(folder)))


def _state(sweep: Sweep, config: Config) -> TrainState:
    torch.manual_seed(0)
    return TrainState(_open(sweep, config).new_stage())


def _step(run: OpenRun, state: TrainState, store: Storage, trial: str) -> Path:
    parts = next(iter(loader(run.reader("train"), run.job.plan(len(run.reader("train")), state.step))))
    train_step(state, parts, StepContext(0, groups=len(parts)))
    assert store.local is not None
    folder = store.local / trial_folder(trial) / "boxes" / f"step_{state.step:08d}"
    save_checkpoint(folder, state, {"measures": {"label_nll": 1.0}})
    return folder


POINTER = {"trial": "donor", "segment": 0, "name": "step_00000001", "step": 1}


def test_a_take_over_copies_weights_averages_and_optimisers(sweep: Sweep) -> None:
    store, settings = sweep.store(), {LR: 5e-3, WEIGHT: 2.0}
    assert store.local is not None
    lineage = CheckpointLineage(store, "own", "boxes")
    assert (lineage.current, lineage.settings, lineage.donors) == (0, None, [])
    lineage.take_over(POINTER, settings)
    copied = store.local / "trials/own/segment_01/boxes/step_00000001"
    assert same_weights(copied, store.local / "trials/donor/boxes/step_00000001")
    again = CheckpointLineage(store, "own", "boxes")
    assert (again.current, again.settings, again.donors, again.begins) == (1, settings, [(1, "donor")], 1)
    again.take_over(POINTER, settings)
    assert again.current == 1, "a process that died after the take-over does not do it twice"
    again.take_over(POINTER, {**settings, LR: 1e-3})
    assert (again.current, again.donors) == (2, [(1, "donor"), (1, "donor")])


def test_an_incomplete_copy_never_counts(sweep: Sweep) -> None:
    store = sweep.store()
    store.write("trials/own/segment_01/boxes/step_00000009/state.json", "{}")
    lineage = CheckpointLineage(store, "own", "boxes")
    assert lineage.current == 0
    lineage.take_over(POINTER, {LR: 5e-3})
    assert store.names("trials/own/segment_01/boxes") == ["step_00000001"]


def test_a_donor_without_the_checkpoint_is_an_error(sweep: Sweep) -> None:
    lineage = CheckpointLineage(sweep.store(), "own", "boxes")
    with pytest.raises(FileNotFoundError):
        lineage.take_over({**POINTER, "name": "step_00000007", "step": 7}, {})
    assert lineage.current == 0


def test_the_trials_own_settings_are_in_force_and_the_optimiser_continues(sweep: Sweep) -> None:
    """The donor's rate is in none of its files; its moments are."""
    donor = Path(str(sweep.store())) / "trials/donor/boxes/step_00000001"
    slow, fast = (with_settings(sweep.config, {LR: rate, WEIGHT: 2.0}) for rate in (1e-4, 5e-3))
    moved: dict[float, Any] = {}
    for config in (slow, fast):
        state = _state(sweep, config)
        resume(donor, state)
        assert state.step == 1
        (moments, *_) = next(iter(state.optimisers.values())).state_dict()["state"].values()
        assert moments["step"] == 1 and moments["exp_avg"].abs().sum() > 0
        before = {name: value.clone() for name, value in state.stage.state_dict().items() if value.is_floating_point()}
        _step(_open(sweep, config), state, sweep.store(), f"own-{config.boxes.training.lr}")
        assert set(state.learning_rates().values()) == {config.boxes.training.lr}
        after = state.stage.state_dict()
        moved[config.boxes.training.lr] = sum(
            (after[name] - value).abs().sum().item() for name, value in before.items()
        )
    assert moved[5e-3] == pytest.approx(50 * moved[1e-4], rel=0.05), "as far as the rate says"


def test_discarded_measures_are_gone_and_lost_ones_are_recovered(sweep: Sweep) -> None:
    store = sweep.store()
    lineage = CheckpointLineage(store, "own", "boxes")
    points = [
        {"step": step, "seconds": 1.0, "measures": {"label_nll": 1.0 / step}, "settings": {}, "segment": 0,
         "name": f"step_{step:08d}"} for step in (1, 2, 3)
    ]  # fmt: skip
    store.write("trials/own/points.json", json.dumps({"seconds": 9.0, "training_s": 2.0, "points": points}))
    assert [point["step"] for point in TrialLog(store, "own", lineage).points] == [1, 2, 3]
    lineage.take_over(POINTER, {LR: 5e-3})
    taken = TrialLog(store, "own", lineage)
    assert [point["step"] for point in taken.points] == [1], "what came after the donor's step led nowhere"
    assert taken.seconds >= 9.0
    found = TrialLog(store, "donor", CheckpointLineage(store, "donor", "boxes"))
    run = _open(sweep, sweep.config, f"{store}/trials/donor/boxes")
    found.recover(run.checkpoints, {LR: 1.0}, "label_nll")
    assert [(point["step"], point["name"]) for point in found.points] == [(1, "step_00000001")]
    assert found.best(sweep, found.points) == found.points[0]
    assert not found.add(1, "step_00000001", {"label_nll": 0.0}, {}), "known already"


def test_the_checkpoint_that_a_trial_keeps_is_the_best_one_that_keeps_the_requirements(sweep: Sweep) -> None:
    log = TrialLog(sweep.store(), "own", CheckpointLineage(sweep.store(), "own", "boxes"))
    values = {"a": (3.0, 0.5), "b": (2.0, 0.25), "c": (1.0, 0.125)}
    points = [{"name": name, "measures": {"label_nll": nll, "best_iou": iou}} for name, (nll, iou) in values.items()]
    kept = {}
    for bound in (0.0, 0.25, 0.375, 0.75):
        goal = replace(sweep.goal, requires=(Requirement("best_iou", ">=", bound),))
        best = log.best(replace(sweep, goal=goal), points)
        assert best is not None
        kept[bound] = best["name"]
    assert kept == {0.0: "c", 0.25: "b", 0.375: "a", 0.75: "a"}, "without any, the nearest one"


def test_pinned_checkpoints_stay(sweep: Sweep) -> None:
    run = _open(sweep, sweep.config, f"{sweep.store()}/trials/donor/boxes")
    state = _state(sweep, sweep.config)
    for _ in range(4):
        _step(run, state, sweep.store(), "donor")
    measured = TrialLog(sweep.store(), "donor", CheckpointLineage(sweep.store(), "donor", "boxes"))
    measured.recover(run.checkpoints, {}, "label_nll")
    measured.pin(sweep, "step_00000002")
    run.checkpoints.prune()
    assert run.checkpoints.names() == [f"step_{step:08d}" for step in (1, 2, 3, 4)], "best, pinned, two newest"
    measured.pin(sweep, "step_00000003")
    measured.pin(sweep, "step_00000004")
    run.checkpoints.prune()
    assert "step_00000002" not in run.checkpoints.names(), "only the last two that were pointed to"
