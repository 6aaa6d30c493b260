"""Intervals computed by hand, and the verdicts that follow from them."""

from dataclasses import replace

import pytest

from tune.confirm.result import Confirmed, Retrained, load, mean_interval, save, welch
from tune.confirm.retrain import arms
from tune.report.export import trial_config
from tune.sweep.sweep import Goal


def confirmed(best: list[float], default: list[float], mode: str = "max") -> Confirmed:
    rows = [("best", best), ("default", default)]
    runs = [
        Retrained(arm, seed, f"confirm/{arm}-{seed}", {"label_f1": value, "other": 1.0})  # type: ignore[arg-type]
        for arm, values in rows
        for seed, value in enumerate(values, 1)
    ]
    return Confirmed("t00007", 7, Goal("label_f1", mode), tuple(runs))  # type: ignore[arg-type]


def test_the_interval_of_a_mean() -> None:
    # Mean 2, standard deviation 1, t(0.975; 2) = 4.3027: 2 +- 4.3027 / sqrt(3).
    interval = mean_interval([1.0, 2.0, 3.0])
    assert (interval.mean, interval.low, interval.high) == pytest.approx((2.0, -0.48414, 4.48414), abs=1e-4)
    assert mean_interval([1.0]).low is None


def test_the_interval_of_a_difference() -> None:
    # Variances 1 and 4 over 3 each: standard error sqrt(5/3) = 1.29099; freedom (5/3)^2 / (1/18 + 16/18) = 2.94118,
    # whose t is 3.2177 (between 3.1824 at 3 and 4.3027 at 2).
    interval = welch([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert interval.mean == pytest.approx(-2.0)
    assert interval.high is not None and interval.high - interval.mean == pytest.approx(1.29099 * 3.2177, abs=2e-2)


@pytest.mark.parametrize(
    ("best", "default", "mode", "outcome"),
    [
        ([0.70, 0.71, 0.72], [0.60, 0.61, 0.62], "max", "better"),
        ([0.70, 0.71, 0.72], [0.60, 0.61, 0.62], "min", "worse"),
        ([0.50, 0.51, 0.52], [0.60, 0.61, 0.62], "max", "worse"),
        ([0.60, 0.71, 0.62], [0.60, 0.61, 0.62], "max", "no difference shown"),
        ([0.6, 0.6], [0.6, 0.6], "max", "no difference shown"),
        ([0.7, float("nan")], [0.6, 0.61], "max", "not enough runs"),
        ([], [0.6, 0.61], "max", "not enough runs"),
    ],
)
def test_the_verdict_follows_the_interval(best, default, mode, outcome) -> None:
    confirmation = confirmed(best, default, mode)
    assert confirmation.outcome == outcome
    assert {"better": "are better", "worse": "which stand"}.get(outcome, outcome) in confirmation.verdict()
    text = confirmation.text()
    assert text.splitlines()[1].startswith("label_f1") and text.endswith(confirmation.verdict())


def test_a_failed_run_is_reported_and_left_out(tmp_path) -> None:
    from pipelines.storage.storage import Storage

    confirmation = confirmed([0.7, 0.71, 0.72], [0.6, 0.61, 0.62])
    failed = Retrained("default", 4, "confirm/default-4", {}, error="RuntimeError: out of luck")
    confirmation = replace(confirmation, runs=(*confirmation.runs, failed))
    assert confirmation.outcome == "better"
    assert "default, seed 4: RuntimeError: out of luck" in confirmation.text()
    save(confirmation, Storage(tmp_path))
    assert load(Storage(tmp_path)) == confirmation and load(Storage(tmp_path / "nothing")) is None


def test_both_arms_have_the_same_other_seeds_and_nothing_else_in_common(sweep, result) -> None:
    best = result.best(Goal("label_f1", "max"))
    done = arms(sweep, best, 3, threads=1)
    assert [(arm.name, arm.config.seed) for arm in done] == [(n, s) for s in (1, 2, 3) for n in ("best", "default")]
    assert all(arm.config.compute.threads == 1 for arm in done) and len({arm.place for arm in done}) == 6
    assert {arm.config.boxes for arm in done[::2]} == {trial_config(sweep, best).boxes}
    assert {arm.config.boxes for arm in done[1::2]} == {sweep.config.boxes}
