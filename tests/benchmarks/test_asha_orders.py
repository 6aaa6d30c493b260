"""Trials replayed in other orders, worked out by hand: two, one at a time, 10 s and three reports of 1 s each."""

import pytest

from tests.benchmarks.asha_orders import Times, replay, savings

CURVES = {"bad": [(1, 0.1), (2, 0.2), (3, 0.3)], "good": [(1, 0.5), (2, 0.6), (3, 0.9)]}
TIMES = Times(start=10, report=1, at_once=1)


def test_times_come_from_a_sweep_to_the_end() -> None:
    assert Times.of(CURVES, whole=26, report=1, at_once=1) == TIMES


@pytest.mark.parametrize(
    ("order", "early", "seconds"),
    [
        (["bad", "good"], False, (26, 26)),
        (["good", "bad"], False, (13, 26)),
        # The first at a rung has nobody to be compared with.
        (["bad", "good"], True, (26, 26)),
        (["good", "bad"], True, (13, 24)),
    ],
)
def test_asha_ends_what_is_behind(order: list[str], early: bool, seconds: tuple[float, float]) -> None:
    assert replay(CURVES, order, TIMES, early) == seconds


def test_savings_are_ratios_over_all_orders() -> None:
    found = savings(CURVES, TIMES, orders=200)
    assert found["asha_ends_the_best"] == 0
    assert found["to_best_ratio_of_means"] == 1
    assert 1.02 < found["whole_ratio_of_means"] < 26 / 24
