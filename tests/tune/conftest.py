"""Prepared data of the pipelines' tests, and a recorded sweep in a folder."""

from pathlib import Path

import pytest

from tests.pipelines.conftest import data_config, prepared, prepared_boxes, scenes, write_coco
from tests.tools.recorded import recorded_result, recorded_sweep
from tune.sweep.results import SweepResult
from tune.sweep.spec_file import save_sweep
from tune.sweep.sweep import Sweep
from tune.sweep.trial_store import TrialStore

__all__ = ["data_config", "prepared", "prepared_boxes", "scenes", "write_coco"]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A finished sweep as its storage holds it, without its trials' checkpoints."""
    recorded = recorded_sweep(tmp_path)
    save_sweep(recorded)
    rows = TrialStore(recorded.store())
    for trial in recorded_result(recorded).trials:
        rows.put(trial)
    rows.put_state("finished", 1234.5)
    return recorded


@pytest.fixture
def result(sweep: Sweep) -> SweepResult:
    """The results of the sweep."""
    return recorded_result(sweep)
