"""Rules of a promotion, on evaluations made by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from objgan.errors import InputError
from pipelines.evaluation.evaluate import EvaluationResult
from pipelines.evaluation.gate import DEFAULT, Rules, decide, extremes, read_rules
from pipelines.evaluation.scores import SampleMetrics

COUNT = 60
NOISE = np.random.default_rng(0).standard_normal(COUNT)


def result(protocol: str = "test", **values: np.ndarray | list[float]) -> EvaluationResult:
    """Metrics of samples; `__` stands for the slash of a name."""
    samples = SampleMetrics()
    for name, given in values.items():
        metric = name.replace("__", "/")
        samples.values[metric] = np.asarray(given, np.float64)
        samples.ids[metric] = np.arange(len(given)) + 100
        samples.numbers[metric] = np.zeros(len(given), np.int64)
    return EvaluationResult(protocol, {}, samples.table(), {}, {})


def test_a_better_challenger_passes_and_a_worse_one_is_named() -> None:
    low, high = (result(boxes__label_f1=0.5 + shift + 0.01 * NOISE, shapes__mask_iou=0.4 + NOISE) for shift in (0, 0.1))
    won, lost = decide(high, low, DEFAULT), decide(low, high, DEFAULT)
    assert won.passed and won.reason() == "all rules hold; better: boxes/label_f1"
    assert not lost.passed and lost.reason().startswith("1 of 4 rules do not hold: not worse: boxes/label_f1 -0.1000 [")
    assert [finding.kind for finding in won.findings] == ["not worse"] * 2 + ["better in one"] * 2
    (first, *_) = won.findings
    assert first.difference.value == pytest.approx(0.1) and first.difference.samples == COUNT
    assert (first.ours, first.theirs) == pytest.approx((0.6 + 0.01 * NOISE.mean(), 0.5 + 0.01 * NOISE.mean()))


def test_differences_are_of_each_sample() -> None:
    """A gain of 0.01 is visible under a spread of 1 between samples, because both models see the same samples."""
    gain = 0.01 + 0.001 * NOISE[::-1]
    verdict = decide(
        result(boxes__label_f1=NOISE + gain), result(boxes__label_f1=NOISE), Rules(better=["boxes/label_f1"])
    )
    assert verdict.passed and verdict.findings[0].difference.low > 0.009


def test_less_is_better_where_the_stage_says_so() -> None:
    small, large = (result(images__object_colour_distance=level + 0.01 * NOISE) for level in (0.2, 0.4))
    rules = Rules(better=["images/object_colour_distance"])
    assert decide(small, large, rules).passed and not decide(large, small, rules).passed


def test_the_same_model_is_not_worse_and_not_better() -> None:
    same = result(boxes__label_f1=NOISE, shapes__mask_iou=NOISE)
    verdict = decide(same, same, DEFAULT)
    assert [finding.holds for finding in verdict.findings] == [True, True, False, False]
    assert not verdict.passed and verdict.reason() == "better in none of the metrics of better_one_of"
    assert decide(same, same, Rules(not_worse={"boxes/label_f1": 0})).passed


def test_samples_that_only_one_model_has_are_left_out() -> None:
    ours, theirs = NOISE + 1, NOISE.copy()
    ours[:5], theirs[5:8] = math.nan, math.nan
    (finding,) = decide(
        result(boxes__label_f1=ours), result(boxes__label_f1=theirs[:50]), Rules(better=["boxes/label_f1"])
    ).findings
    assert finding.difference.samples == 50 - 8 and finding.difference.value == pytest.approx(1)


def test_too_few_samples_pass_no_rule() -> None:
    one = result(boxes__label_f1=[1.0]), result(boxes__label_f1=[0.0])
    assert not decide(*one, Rules(better=["boxes/label_f1"])).passed
    assert not decide(*one, Rules(not_worse={"boxes/label_f1": 1})).passed


def test_a_metric_is_named_without_its_protocol() -> None:
    ours, theirs = (result("quick", from_captions__label_f1_quick=NOISE + shift) for shift in (1, 0))
    verdict = decide(ours, theirs, DEFAULT)
    assert verdict.passed and {finding.metric for finding in verdict.findings} == {"from_captions/label_f1"}


def test_a_metric_that_hardly_any_sample_has_stops_nothing_by_default() -> None:
    rare = np.full(COUNT, math.nan)
    rare[0] = 1
    ours, theirs = (result(boxes__label_f1=NOISE + shift, shapes__mask_iou=rare) for shift in (1, 0))
    verdict = decide(ours, theirs, DEFAULT)
    assert verdict.passed and {finding.metric for finding in verdict.findings} == {"boxes/label_f1"}
    assert not decide(ours, theirs, Rules(not_worse={"shapes/mask_iou": 1})).passed, "this rule was asked for"


def test_a_rule_of_ones_own_that_cannot_be_checked_is_an_error() -> None:
    one = result(boxes__label_f1=NOISE)
    for rules in (Rules(better=["boxes/label_f"]), Rules(not_worse={"boxes/label_f": 0.1})):
        with pytest.raises(
            InputError, match="unknown metric of each sample 'boxes/label_f': did you mean boxes/label_f1"
        ):
            decide(one, one, rules)
    assert not decide(result(other=NOISE), result(other=NOISE), DEFAULT).passed, "nothing was checked"


def test_the_first_champion_must_beat_the_baselines() -> None:
    values: dict[str, Any] = {
        "encoders__r1_of_pool": 0.3 + 0.01 * NOISE,
        "shapes__mask_iou_class_mean": 0.5 + 0.01 * NOISE,
    }
    good = decide(result(**values, shapes__mask_iou=0.6 + 0.01 * NOISE), None, DEFAULT)
    assert good.passed and [finding.kind for finding in good.findings] == ["baseline"] * 2
    bad = decide(result(**values, shapes__mask_iou=0.4 + 0.01 * NOISE), None, DEFAULT)
    assert not bad.passed and "baseline: shapes/mask_iou -0.1000" in bad.reason()
    assert decide(result(**values), None, DEFAULT).passed, "without shapes of its own, their rule is left out"
    assert not decide(result(**values), None, Rules(better=["shapes/mask_iou"])).passed, "no baseline is given"


def test_the_best_and_the_worst_samples() -> None:
    ours = result(from_captions__label_f1_test=[1, 0, 0.5, 0.9, math.nan], boxes__label_f1=[9] * 5)
    theirs = result(from_captions__label_f1_test=[0, 1, 0.5, 0.5, 0], boxes__label_f1=[0] * 5)
    best, worst = extremes(ours, theirs, ["from_captions/label_f1", "boxes/label_f1"], 2)
    assert best == [(100, 0), (103, 0)] and worst == [(101, 0)]


def test_rules_are_read_and_wrong_ones_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("not_worse: {boxes/label_f1: 0.01}\nbetter: [shapes/mask_iou]\nbaselines: {shapes/mask_iou: 0.3}\n")
    rules = read_rules(path)
    assert rules == Rules({"boxes/label_f1": 0.01}, ["shapes/mask_iou"], (), {"shapes/mask_iou": 0.3})
    for text, message in (
        ("", "give one or more of not_worse, better"),
        ("- a", "give one or more of"),
        ("beter: [a]", "unknown rule 'beter': did you mean better?"),
        ("better: a", "better must be a list of metrics, got 'a'"),
        ("better: [1]", "better must be a list"),
        ("not_worse: [a]", "not_worse must give each metric a value"),
        ("not_worse: {a: -1}", "the margin of 'a' must be a number of at least 0, got -1"),
        ("not_worse: {a: .nan}", "must be a number of at least 0"),
        ("not_worse: {a: true}", "must be a number of at least 0"),
        ("baselines: {a: [b]}", "the baseline of 'a' must be a metric or a number"),
        ("better: [a\n", "--rules"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=r"rules\.yaml") as caught:
            read_rules(path)
        assert message in str(caught.value) and "\n" not in str(caught.value)
