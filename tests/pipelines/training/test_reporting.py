import math
import time

import pytest
import torch

from objgan.training import ATTENTION, SKIPPED, StepRecord
from pipelines.training.reporting import ThroughputMeter
from pipelines.training.step_numbers import MetricAccumulator


def _record(step: int, loss: float, skipped: float = 0.0, attention: float = 0.0) -> StepRecord:
    return StepRecord(step, ("make/loss", SKIPPED, ATTENTION), torch.tensor([loss, skipped, attention]))


def test_records_come_out_in_order_and_once() -> None:
    accumulator = MetricAccumulator()
    for step in range(3):
        accumulator.add(_record(step, float(step), skipped=step == 1, attention=2.0 * (step == 2)))
    read = list(accumulator.read())
    assert [numbers.step for numbers in read] == [0, 1, 2]
    assert [numbers.skipped for numbers in read] == [False, True, False]
    assert [numbers.attention for numbers in read] == [False, False, True]
    assert list(accumulator.read(everything=True)) == []


def test_an_interval_tells_means_without_what_is_not_finite() -> None:
    interval, accumulator = ThroughputMeter(batch_size=8), MetricAccumulator()
    for step, loss in enumerate((1.0, math.nan, 3.0)):
        with interval:
            time.sleep(0.01)
        accumulator.add(_record(step, loss))
        interval.count()
    for numbers in accumulator.read():
        interval.add(numbers)
    values = interval.finish()
    assert values["make/loss"] == 2.0
    assert SKIPPED not in values
    assert values["samples_per_s"] == pytest.approx(8 / values["seconds_per_step"])
    assert 0.5 < values["data_wait_share"] <= 1.0
    assert "make/loss" not in interval.finish(), "a new interval begins with nothing"
