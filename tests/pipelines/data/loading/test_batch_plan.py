"""The plan of a run: every epoch is a shuffle of all samples, and groups do not depend on the number of workers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objgan.errors import InputError
from pipelines.data.loading.batch_plan import BatchPlan, ShardOrder, epoch_order, epoch_position


def _order(seed: int, epoch: int, length: int) -> list[int]:
    return epoch_order(seed, epoch, length, np.arange(length)).tolist()


@given(st.integers(1, 700), st.integers(0, 2**63), st.integers(0, 10**6))
@settings(deadline=None)
def test_an_epoch_has_every_sample_once(length, seed, epoch) -> None:
    assert sorted(_order(seed, epoch, length)) == list(range(length))


@pytest.mark.parametrize("length", [65535, 65536, 65537, 118_287])
def test_large_epochs_have_every_sample_once(length) -> None:
    assert np.array_equal(np.sort(epoch_order(1, 2, length, np.arange(length))), np.arange(length))


def test_orders_differ_by_seed_and_epoch_and_stay_as_they_are() -> None:
    orders = [_order(seed, epoch, 50) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order) for order in orders}) == 3 and _order(0, 1, 50) == orders[1]
    # Written down: another order would break the resumption of every run that was begun before.
    assert _order(0, 0, 10) == [5, 9, 8, 4, 3, 0, 6, 7, 2, 1]


def test_one_place_is_the_same_as_in_the_whole_order() -> None:
    whole = epoch_order(3, 4, 1000, np.arange(1000))
    assert [int(epoch_order(3, 4, 1000, np.array([place]))[0]) for place in (0, 1, 500, 999)] == [
        *whole[[0, 1, 500, 999]]
    ]


def test_orders_look_random() -> None:
    """Each sample is at each place as often as by chance, and neighbours are separated."""
    length, epochs = 20, 4000
    orders = np.stack([epoch_order(7, epoch, length, np.arange(length)) for epoch in range(epochs)])
    counts = np.stack([np.bincount(column, minlength=length) for column in orders.T])
    expected = epochs / length
    # Chi squared of 19 x 19 degrees of freedom: mean 361, standard deviation 27.
    assert 260 < ((counts - expected) ** 2 / expected).sum() < 470
    kept = (np.diff(orders, axis=1) == 1).mean()
    assert kept == pytest.approx(1 / length, abs=0.005)
    big = epoch_order(7, 0, 100_000, np.arange(100_000))
    assert abs(np.corrcoef(big, np.arange(100_000))[0, 1]) < 0.02
    assert abs(np.corrcoef(big[:-1], big[1:])[0, 1]) < 0.02


@given(
    size=st.integers(1, 4),
    groups=st.integers(1, 6),
    world=st.integers(1, 6),
    length=st.integers(1, 40),
    step=st.integers(0, 50),
)
@settings(deadline=None)
def test_groups_of_all_workers_are_those_of_one(size, groups, world, length, step) -> None:
    alone = BatchPlan(size * groups, 5, 0, 1, groups=groups)
    if world > groups:
        with pytest.raises(InputError, match="which are not divided"):
            replace(alone, world=world)
        return
    plans = [replace(alone, rank=rank, world=world) for rank in range(world)]
    assert [group for plan in plans for group in plan.own_groups] == list(range(groups))
    assert all(len(plan.own_groups) for plan in plans)
    found = [plan.places(step, length) for plan in plans]
    assert {group: places for part in found for group, places in part.items()} == alone.places(step, length)
    places = list(itertools.chain(*alone.places(step, length).values()))
    first = step * size * groups
    assert [epoch for epoch, _ in places] == [(first + k) // length for k in range(size * groups)]
    assert [index for _, index in places] == [
        _order(5, (first + k) // length, length)[(first + k) % length] for k in range(size * groups)
    ]


def test_no_sample_is_dropped_at_the_end_of_an_epoch() -> None:
    order = BatchPlan(batch_size=4, seed=3, start=0, stop=0, groups=2)
    places = [place for step in range(15) for group in order.places(step, 10).values() for place in group]
    for epoch in range(6):
        assert [index for e, index in places if e == epoch] == _order(3, epoch, 10)


def test_a_batch_may_be_larger_than_the_data() -> None:
    places = BatchPlan(7, 0, 0, 1).places(0, 3)[0]
    assert [epoch for epoch, _ in places] == [0, 0, 0, 1, 1, 1, 2]


def test_uneven_workers_have_whole_groups() -> None:
    plans = [BatchPlan(10, 0, 0, 1, rank=rank, world=3, groups=5) for rank in range(3)]
    assert [list(plan.own_groups) for plan in plans] == [[0], [1, 2], [3, 4]]


def test_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="3 groups do not divide a batch of 16"):
        BatchPlan(16, 0, 0, 1, groups=3)
    with pytest.raises(InputError, match="4 workers, but a batch has 2 group"):
        BatchPlan(16, 0, 0, 1, world=4, groups=2)


def test_the_position_of_a_resumed_run() -> None:
    assert epoch_position(0, 16, 100) == (0, 0) and epoch_position(7, 16, 100) == (1, 12)
    order = BatchPlan(16, 2, 0, 1)
    epoch, place = epoch_position(7, 16, 100)
    assert order.places(7, 100)[0][0] == (epoch, _order(2, epoch, 100)[place])


SIZES = np.array([4, 0, 7, 3, 5, 1, 6, 2])


@pytest.mark.parametrize("window", [1, 2, 3, 8, 100])
def test_windows_show_every_sample_once_an_epoch(window) -> None:
    order = ShardOrder(SIZES)
    orders = [order.places(1, epoch, window, np.arange(28)).tolist() for epoch in range(4)]
    assert all(sorted(one) == list(range(28)) for one in orders)
    assert len({tuple(one) for one in orders}) == 4
    assert order.places(2, 0, window, np.arange(28)).tolist() != orders[0]


def test_a_window_is_left_before_the_next_is_begun() -> None:
    sizes = np.full(20, 10)
    for epoch in range(3):
        shards = ShardOrder(sizes).places(5, epoch, 4, np.arange(200)) // 10
        windows = [set(shards[start : start + 40].tolist()) for start in range(0, 200, 40)]
        assert all(len(window) == 4 for window in windows) and len(set.union(*windows)) == 20
        # Within a window the shards are mixed.
        assert all(len(set(shards[start : start + 10].tolist())) > 1 for start in range(0, 200, 40))


def test_any_place_of_a_windowed_order_can_be_asked_for() -> None:
    order = ShardOrder(SIZES)
    whole = order.places(1, 2, 3, np.arange(28))
    places = np.array([27, 0, 13, 13, 5])
    assert np.array_equal(order.places(1, 2, 3, places), whole[places])
    assert np.array_equal(ShardOrder(SIZES).places(1, 2, 3, places), whole[places])


def test_workers_together_take_the_places_of_one_in_windows_too() -> None:
    order, alone = ShardOrder(SIZES), BatchPlan(10, 3, 0, 9, groups=5, window=2)
    for step in range(9):
        parts = [replace(alone, rank=rank, world=3).places(step, 28, order) for rank in range(3)]
        assert {group: places for part in parts for group, places in part.items()} == alone.places(step, 28, order)


def test_without_a_window_the_shards_do_not_matter() -> None:
    plan = BatchPlan(10, 3, 0, 9)
    assert plan.places(4, 28) == plan.places(4, 28, ShardOrder(SIZES))
    with pytest.raises(ValueError, match="needs the shards"):
        BatchPlan(10, 3, 0, 9, window=2).places(4, 28)
