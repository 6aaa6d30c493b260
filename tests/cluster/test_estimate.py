"""`python -m cluster estimate`: arithmetic, by hand."""

from dataclasses import replace

import pytest

from cluster.__main__ import main
from cluster.estimate import EstimateOptions


def test_hours_and_cost_by_hand() -> None:
    stage = EstimateOptions(samples_per_second=32.0, steps=36_000, batch=16, overhead=0.0)
    assert stage.hours == pytest.approx(5.0)
    assert replace(stage, machines=4, price=1.0, head_price=0.5).cost == pytest.approx(22.5)
    assert replace(stage, overhead=0.2).hours == pytest.approx(6.0)


def test_it_is_printed_and_nonsense_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["estimate", "--samples-per-second", "32", "--steps", "36000", "--batch", "16", "--overhead", "0"]
    assert main([*command, "--price", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("5.0 hours")
    assert main(["estimate", "--samples-per-second", "0", "--steps", "1", "--batch", "1"]) == 2
    assert main([*command, "--price", "-2"]) == main([*command, "--price", "nan"]) == 2
    assert main(["estimate", "--samples-per-second", "nan", "--steps", "1", "--batch", "1"]) == 2
