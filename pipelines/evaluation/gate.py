"""The comparison of a challenger with the champion: rules, paired differences, and a verdict.

Both models are measured on the same captions with the same noise, so every difference is of one sample. Its interval is
a 95 % percentile bootstrap over samples (`objgan.metrics.bootstrap.paired_difference`).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc

from objgan.errors import InputError, shown, unknown
from objgan.metrics.bootstrap import Interval, paired_difference
from objgan.stages import STAGE_CLASSES
from pipelines.evaluation.evaluate import EvaluationResult
from pipelines.yaml_input import read_yaml

Key = tuple[int, int]
"""(image id, number of the caption)."""
Kind = Literal["not worse", "better", "better in one", "baseline"]


@dataclass(frozen=True)
class Rules:
    """When a challenger is promoted. Metrics by name, without the protocol.

    not_worse:     metric -> margin: the interval of the difference lies above -margin
    better:        metrics in which it must be better: the interval lies above 0
    better_one_of: metrics, in one of which it must be better
    baselines:     for the first champion, instead of the others: metric -> another metric of the same evaluation, or a
                   number, above which it must lie
    """

    not_worse: Mapping[str, float] = field(default_factory=dict)
    better: Sequence[str] = ()
    better_one_of: Sequence[str] = ()
    baselines: Mapping[str, str | float] = field(default_factory=dict)


_MAIN = {
    "boxes/label_f1": 0.02,
    "boxes/best_iou": 0.02,
    "shapes/mask_iou": 0.02,
    "images/object_colour_distance": 0.02,
    "from_captions/label_f1": 0.02,
    "from_captions/relation_accuracy": 0.03,
    "from_captions/count_accuracy": 0.03,
    "from_captions/r_precision": 0.03,
    "from_captions/object_accuracy": 0.03,
}
DEFAULT = Rules(
    not_worse=_MAIN,
    better_one_of=tuple(_MAIN),
    # Two objects of a pool of 50, by chance; the mean mask of the class.
    baselines={"encoders/r1_of_pool": 0.02, "shapes/mask_iou": "shapes/mask_iou_class_mean"},
)
"""Of these, an evaluation without judges or masks measures a part; the others are left out."""


@dataclass(frozen=True)
class Finding:
    """One rule, checked.

    bound:      the limit of the difference: its interval must lie above it
    ours, theirs: means of the challenger and of the champion or baseline, over the samples of the difference
    difference: of each sample, in the direction in which more is better
    """

    kind: Kind
    metric: str
    bound: float
    ours: float
    theirs: float
    difference: Interval

    @property
    def holds(self) -> bool:
        """Whether the rule holds; False if there are too few samples for an interval."""
        low = self.difference.low
        return low > self.bound or (self.kind == "not worse" and low == self.bound)


@dataclass(frozen=True)
class Verdict:
    """The findings in the order of the rules."""

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether all rules hold. Without any rule, nothing passes."""
        one_of = [finding.holds for finding in self.findings if finding.kind == "better in one"]
        each = [finding.holds for finding in self.findings if finding.kind != "better in one"]
        return bool(one_of or each) and all(each) and (any(one_of) or not one_of)

    def reason(self) -> str:
        """The decision in one line."""
        if self.passed:
            won = [f.metric for f in self.findings if f.kind != "not worse" and f.holds]
            return f"all rules hold; better: {', '.join(won) or 'none'}"
        missed = [f for f in self.findings if not f.holds and f.kind != "better in one"]
        if not missed:
            return "better in none of the metrics of better_one_of" if self.findings else "no rule could be checked"
        broken = [f"{f.kind}: {f.metric} {_signed(f)}" for f in missed]
        return f"{len(broken)} of {len(self.findings)} rules do not hold: {'; '.join(broken)}"

    def text(self) -> str:
        """A line for each rule, and the reason."""
        width = max([20, *(len(finding.metric) for finding in self.findings)])
        lines = [
            f"{finding.kind:<13} {finding.metric:<{width}} {finding.ours:>8.4f} {finding.theirs:>8.4f}  "
            f"{_signed(finding)} n={finding.difference.samples}  {'holds' if finding.holds else 'does not hold'}"
            for finding in self.findings
        ]
        return "\n".join([*lines, self.reason()])


def _signed(finding: Finding) -> str:
    difference = finding.difference
    return f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def read_rules(path: Path) -> Rules:
    """The rules of a YAML file.

    Raises:
        InputError: no such file, an unknown key, a margin or a baseline that is not allowed.
    """
    _, content = read_yaml(path, "--rules")
    where = f"--rules {path}"
    names = [entry.name for entry in fields(Rules)]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{where}: give one or more of {', '.join(names)}")
    for name, value in content.items():
        if name not in names:
            raise unknown("rule", name, names, f"{where}: ")
        _check(value, name, where)
    return Rules(**content)


def _check(value: Any, name: str, where: str) -> None:
    if name in ("better", "better_one_of"):
        if not isinstance(value, list) or not all(isinstance(metric, str) for metric in value):
            raise InputError(f"{where}: {name} must be a list of metrics, got {shown(value)}")
        return
    if not isinstance(value, dict) or not all(isinstance(metric, str) for metric in value):
        raise InputError(f"{where}: {name} must give each metric a value, got {shown(value)}")
    for metric, bound in value.items():
        number = type(bound) in (int, float) and math.isfinite(bound)
        if name == "not_worse" and not (number and bound >= 0):
            raise InputError(
                f"{where}: the margin of {shown(metric)} must be a number of at least 0, got {shown(bound)}"
            )
        if name == "baselines" and not number and not isinstance(bound, str):
            raise InputError(
                f"{where}: the baseline of {shown(metric)} must be a metric or a number, got {shown(bound)}"
            )


def decide(ours: EvaluationResult, theirs: EvaluationResult | None, rules: Rules, seed: int = 0) -> Verdict:
    """Check the rules on two evaluations under one protocol with one seed; `theirs`: of the champion, if any.

    A metric that the default rules name and this evaluation does not measure is left out.

    Raises:
        InputError: a rule names a metric that was not measured of each sample.
    """
    table = Samples(ours)
    if theirs is None:
        known = [(name, other) for name, other in rules.baselines.items() if rules is not DEFAULT or table.has(name)]
        return Verdict(tuple(_against(table, name, other, seed) for name, other in known))
    champion = Samples(theirs)
    asked: list[tuple[Kind, str, float]] = [
        *(("not worse", name, -margin) for name, margin in rules.not_worse.items()),
        *(("better", name, 0.0) for name in rules.better),
        *(("better in one", name, 0.0) for name in rules.better_one_of),
    ]
    return Verdict(
        tuple(
            _finding(kind, name, bound, table.of(name), champion.of(name), seed)
            for kind, name, bound in asked
            if rules is not DEFAULT or (table.has(name) and champion.has(name))
        )
    )


def _against(table: "Samples", name: str, baseline: str | float, seed: int) -> Finding:
    values = table.of(name)
    others = table.of(baseline) if isinstance(baseline, str) else dict.fromkeys(values, float(baseline))
    return _finding("baseline", name, 0.0, values, others, seed)


def _finding(
    kind: Kind, name: str, bound: float, ours: Mapping[Key, float], theirs: Mapping[Key, float], seed: int
) -> Finding:
    keys = sorted(key for key in ours.keys() & theirs.keys() if not math.isnan(ours[key] + theirs[key]))
    first, second = (np.array([values[key] for key in keys], np.float64) for values in (ours, theirs))
    pair = (second, first) if lower_is_better(name) else (first, second)
    ours_mean, theirs_mean = (float(values.mean()) if keys else math.nan for values in (first, second))
    return Finding(kind, name, bound, ours_mean, theirs_mean, paired_difference(*pair, seed=seed))


def lower_is_better(metric: str) -> bool:
    """Whether less of a metric is better: of a stage's metric, the stage says so; of generated images, more is."""
    stage, _, name = metric.partition("/")
    return stage in STAGE_CLASSES and STAGE_CLASSES[stage].measures.get(name) == "min"


class Samples:
    """The values of each sample, by the name of a metric without its protocol."""

    def __init__(self, result: EvaluationResult) -> None:
        self._table, self._end = result.samples, f"_{result.protocol}"
        self._names = set(pc.unique(self._table["measure"]).to_pylist())
        self._applied = Counter(self._table.filter(pc.is_finite(self._table["value"]))["measure"].to_pylist())

    def has(self, name: str) -> bool:
        """Whether this metric applies to two samples or more: fewer have no interval."""
        return max(self._applied[name], self._applied[name + self._end]) > 1

    def of(self, name: str) -> dict[Key, float]:
        """The value of each sample, NaN where the metric does not apply.

        Raises:
            InputError: not measured of each sample.
        """
        full = name if name in self._names else name + self._end
        if full not in self._names:
            names = sorted(known.removesuffix(self._end) for known in self._names)
            raise unknown("metric of each sample", name, names, "rules: ")
        rows = self._table.filter(pc.equal(self._table["measure"], full))
        keys = zip(rows["image_id"].to_pylist(), rows["caption"].to_pylist(), strict=True)
        return dict(zip(keys, rows["value"].to_pylist(), strict=True))


def extremes(
    ours: EvaluationResult, theirs: EvaluationResult, metrics: Iterable[str], most: int
) -> tuple[list[Key], list[Key]]:
    """The samples from captions in which the challenger differs most: (best, worst), at most `most` each.

    By the mean difference over the metrics of generated rows among `metrics`.
    """
    rows = [name for name in dict.fromkeys(metrics) if name.startswith("from_captions/")]
    first, second, total = Samples(ours), Samples(theirs), dict[Key, float]()
    for name in rows:
        champion = second.of(name)
        for key, value in first.of(name).items():
            if not math.isnan(difference := value - champion.get(key, math.nan)):
                total[key] = total.get(key, 0.0) + difference
    ordered = sorted(total, key=lambda key: (total[key], key))
    return [key for key in ordered[::-1] if total[key] > 0][:most], [key for key in ordered if total[key] < 0][:most]
