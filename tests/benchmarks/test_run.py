"""The benchmark runner finds, measures, prints and writes; its figures are for people to judge."""

import json
import time
from pathlib import Path

import pytest

from tests.benchmarks.measure import time_calls
from tests.benchmarks.run import benchmarks, main


def test_the_figure_is_the_median_of_the_repeats() -> None:
    pauses = iter([0.5, 0.0, 0.6, 0.2])
    measured = time_calls("pause", lambda: time.sleep(next(pauses)), items=2, unit="naps", repeats=3, warm_up=1)
    assert 0.2 <= measured.seconds < 0.6
    assert measured.fastest < 0.2
    assert measured.rate == pytest.approx(2 / measured.seconds)


def test_a_run_prints_and_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--only", "batches.collate", "--out", str(tmp_path)]) == 0
    assert "collate 16 samples" in capsys.readouterr().out
    (written,) = tmp_path.glob("*.json")
    figures = json.loads(written.read_text())
    assert [one["name"] for one in figures["measurements"]] == ["collate 16 samples of 256 px"]
    assert figures["packages"]["torch"]


def test_names_are_found_by_a_word_and_unknown_ones_refused(capsys: pytest.CaptureFixture) -> None:
    assert [name for name, _ in benchmarks("inputs")] == ["batches.inputs"]
    with pytest.raises(SystemExit) as stopped:
        main(["--only", "no such thing"])
    assert stopped.value.code == 2
    assert "no benchmark" in capsys.readouterr().err
