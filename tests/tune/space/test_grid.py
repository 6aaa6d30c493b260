"""Grid search: every combination once."""

import pytest

from objgan.errors import InputError
from tune.space.grid import grid
from tune.space.space import Knob, Space


def test_a_grid_has_every_combination_whose_conditions_hold_and_no_known_one() -> None:
    space = Space({
        "b": Knob("uniform", 0.1, 0.35, step=0.1, when={"c": (True,)}),
        "c": Knob("choice", values=(True, False)),
        "d": Knob("integer", 1, 2),
    })  # fmt: skip
    expected = [{"c": True, "d": d, "b": b} for d in (1, 2) for b in (0.1, 0.2, 0.3)]
    expected += [{"c": False, "d": d} for d in (1, 2)]
    points = grid(space)
    assert len(points) == 8 and all(point in points for point in expected)
    assert len(grid(space, [{"c": False, "d": 2}, {"c": True, "d": 7}])) == 7


def test_a_range_without_a_step_and_a_grid_without_end_are_refused() -> None:
    with pytest.raises(InputError, match=r"a.b is a range without a step"):
        grid(Space({"a.b": Knob("log_uniform", 0.1, 1.0)}))
    with pytest.raises(InputError, match="over 10000 combinations"):
        grid(Space({name: Knob("integer", 1, 100) for name in "abc"}))
