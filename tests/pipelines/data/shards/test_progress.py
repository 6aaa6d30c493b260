import pytest

from pipelines.data.shards import progress
from pipelines.data.shards.progress import ShardProgress
from tests.tools.logged import logged


@pytest.mark.parametrize(("longest", "lines"), [(0.0, 100), (300.0, 10)])
def test_a_line_for_each_tenth_and_one_more_where_a_tenth_takes_long(
    monkeypatch: pytest.MonkeyPatch, longest: float, lines: int
) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_MOST_SECONDS", longest)
    with logged() as said, ShardProgress(100, 500, "generate", "captions") as shown:
        for _ in range(100):
            shown.add(5, kept=False)
    assert len(said) == lines and said[-1].startswith("generate: 100/100 shards, 500/500 captions")


def test_small_rates_are_not_rounded_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with logged() as said, ShardProgress(3, 9, "generate", "captions") as shown:
        for _ in range(3):
            now[0] += 30
            shown.add(3, kept=False)
    assert "0.10 captions/s" in said[-1] and "0:00:30 left" in said[-2]
