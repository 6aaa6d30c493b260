"""A sweep in a bucket: every machine can read its rows, segments and measures."""

from pathlib import Path

import torch

from objgan.checkpoint import save_checkpoint
from objgan.config import Config
from objgan.train_state import TrainState
from pipelines.storage.storage import Storage
from pipelines.training.job import OpenRun, TrainJob
from tests.pipelines.conftest import s3, s3_server
from tests.tools.sweeps import LR, small_sweep
from tests.tools.training import same_weights
from tune.engine.engine import open_sweep
from tune.engine.trial_log import TrialLog
from tune.sweep.checkpoint_lineage import CheckpointLineage
from tune.sweep.results import Point, Trial
from tune.sweep.trial_store import checkpoint_place, load_result, trial_id

__all__ = ["s3", "s3_server"]


def test_a_sweep_lives_in_a_bucket(s3: str, data_config: Config, prepared: Path, tmp_path: Path) -> None:
    sweep = small_sweep(data_config, prepared, tmp_path)
    sweep = type(sweep)(**{**vars(sweep), "storage": s3})
    donor, taker = trial_id(0, 0), trial_id(0, 1)
    torch.manual_seed(0)
    stage = OpenRun(TrainJob("boxes", sweep.config, prepared, tmp_path)).new_stage()
    save_checkpoint(tmp_path / "step_00000000", TrainState(stage), {"measures": {"label_nll": 2.0}})
    store = sweep.store()
    place = store.child(f"trials/{donor}/boxes")
    place.upload(tmp_path / "step_00000000", "step_00000000", last="state.json")
    lineage = CheckpointLineage(store, taker, "boxes")
    lineage.take_over({"trial": donor, "segment": 0, "name": "step_00000000", "step": 0}, {LR: 1.0})
    copied = lineage.run("boxes").download("step_00000000", tmp_path / "copied")
    assert same_weights(copied, tmp_path / "step_00000000")
    measured = TrialLog(store, donor, CheckpointLineage(store, donor, "boxes"))
    run = OpenRun(TrainJob("boxes", sweep.config, prepared, tmp_path, storage=place.uri))
    measured.recover(run.checkpoints, {}, "label_nll")
    assert [point["name"] for point in TrialLog(store, donor, lineage).points] == ["step_00000000"]
    rows = open_sweep(sweep, resume=False)
    row = Trial(taker, 1, {LR: 1.0}, "finished", (Point(0, 1.0, {"label_nll": 2.0}),), "step_00000000", segment=1)
    rows.put(row)
    again = open_sweep(sweep, resume=True)
    assert again.result().trials == (row,) and load_result(Storage(s3).child("small")) == again.result()
    where, name = checkpoint_place(store, row, "boxes")
    assert where.exists(f"{name}/state.json")
