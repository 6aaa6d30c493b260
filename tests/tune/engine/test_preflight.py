"""Judges as the metric of a sweep, checked before anything starts."""

from dataclasses import replace
from pathlib import Path

import pytest

from objgan.checkpoint import save_checkpoint
from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.stages import build_stage
from objgan.train_state import TrainState
from pipelines.evaluation.judges import SECOND_ENCODERS
from tests.tools.sweeps import small_sweep
from tune.engine.engine import open_sweep
from tune.engine.preflight import check_sweep
from tune.space.space import Space
from tune.sweep.spec_file import load_sweep
from tune.sweep.sweep import Goal, Sweep
from tune.sweep.training_job import job_of

FD, POOLED, SOA = (f"from_layouts/{name}" for name in ("fd_encoder", "r_precision", "soa_c"))


@pytest.fixture
def sweep(data_config: Config, prepared: Path, tmp_path: Path) -> Sweep:
    """Over stage `images`, with second encoders and no judge of objects."""
    encoders = data_config.encoders.model_copy(update={"channels": 8, "embedding": 4, "small_width": 8})
    config = data_config.model_copy(update={"encoders": encoders})
    for name in ("encoders", f"judges/{SECOND_ENCODERS}"):
        save_checkpoint(
            tmp_path / name, TrainState(build_stage("encoders", config, Domain.load(prepared / "domain"), {}))
        )
    sweep = small_sweep(config, prepared, tmp_path / "runs", space=Space({}), goal=Goal(FD, "min"))
    return replace(sweep, stages=("images",), encoders=tmp_path / "encoders", judges=tmp_path / "judges")


def test_what_judges_cannot_measure_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    check_sweep(sweep)
    for metric, words in ((POOLED, "a pool of 100 captions needs 100 validation images"), (SOA, "has no folder judge")):
        with pytest.raises(InputError, match=f"--metric {metric} cannot be measured: .*{words}"):
            check_sweep(replace(sweep, goal=Goal(metric, "max")))
    with pytest.raises(InputError, match="judges: no folder"):
        check_sweep(replace(sweep, judges=tmp_path / "nowhere"))


def test_judges_may_move_and_are_the_same_in_a_resumed_sweep(sweep: Sweep, tmp_path: Path) -> None:
    open_sweep(sweep, resume=False)
    assert load_sweep(sweep.store()) == sweep
    moved = replace(sweep, judges=(tmp_path / "judges").rename(tmp_path / "moved"))
    open_sweep(moved, resume=True)
    assert job_of(moved, moved.config, "images", "trials/a").judges is not None
    assert job_of(moved, moved.config, "encoders", "trials/a").judges is None
    (tmp_path / "moved" / SECOND_ENCODERS).rename(tmp_path / "gone")
    (tmp_path / "encoders").rename(tmp_path / "moved" / SECOND_ENCODERS)
    (tmp_path / "gone").rename(tmp_path / "encoders")
    with pytest.raises(InputError, match=r"begun differently.*judges"):
        open_sweep(moved, resume=True)
