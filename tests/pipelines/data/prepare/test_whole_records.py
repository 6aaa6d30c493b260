"""Data sets with arbitrary values in every field: a few of the thousands that tests.tools.chaos_data tries."""

import pytest

from tests.tools.whole_records import run


@pytest.mark.timeout(900)
def test_whole_records_are_accounted_for_or_refused_in_one_line() -> None:
    outcome = run(60)
    assert outcome.tried >= 60 and outcome.records["rejects"] > outcome.tried
    # Not all of them may be such that nothing comes of them.
    assert outcome.refused < outcome.tried and all(outcome.records[f"{kind}s kept"] for kind in ("image", "caption"))
