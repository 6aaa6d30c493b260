"""When a sweep ends before its last trial. Ray does not run."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from objgan.config import Config
from pipelines.runs.sweeps import GOAL_REACHED
from tests.tools.sweeps import small_sweep
from tune.engine.driver import SweepDriver
from tune.sweep.results import Point, Trial
from tune.sweep.sweep import Budget
from tune.sweep.trial_store import TrialStore


@pytest.mark.parametrize(("values", "ends"), [((3.0, 2.5), False), ((3.0, 2.0), True), ((1.5, 4.0), True), ((), False)])
def test_a_sweep_ends_once_a_report_is_as_good_as_the_target(values, ends, data_config: Config, tmp_path: Path) -> None:
    sweep = replace(small_sweep(data_config, tmp_path, tmp_path), budget=Budget(4, stop_at=2.0))
    rows = TrialStore(sweep.store())
    driver = SweepDriver(sweep, rows, [])
    requested: list[str] = []
    driver._stop_requests = SimpleNamespace(end_all=SimpleNamespace(remote=requested.append))
    driver.on_step_begin(0, [])
    assert driver.asked is None
    points = tuple(Point(10 * n, 1.0, {"label_nll": value}) for n, value in enumerate(values))
    driver.put(Trial("000_a", 0, {}, "running", points))
    driver.on_step_begin(1, [])
    assert requested == ([GOAL_REACHED] if ends else []) and driver.stop_all() == ends
    driver.finish()
    assert (rows.state, rows.reason) == ("finished", GOAL_REACHED if ends else None)
