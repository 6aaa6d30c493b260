"""What ASHA saves, by the order in which settings are drawn: trials that ran to their end, replayed in other orders.

How soon the best settings are drawn is luck, so two sweeps compare little. Here each trial has the measures that it
really had at each report, and the times that trials really took; only their order is drawn anew, and ASHA decides
again (`tune.engine.schedulers.Asha` itself). The order that was really run is a check on the times.
"""

import heapq
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune.engine.schedulers import REDUCTION, Asha
from tune.sweep.sweep import Goal

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""Trial -> (step, measure) of each of its reports; higher measures are better."""


@dataclass(frozen=True)
class Times:
    """Seconds: before a trial's first step and after its last, together; between two of its reports."""

    start: float
    report: float
    at_once: int = 2

    @classmethod
    def of(cls, curves: Curves, whole: float, report: float, at_once: int = 2) -> "Times":
        """From a sweep in which all trials came to their end in `whole` seconds."""
        reports = statistics.fmean(len(curve) for curve in curves.values())
        return cls(at_once * whole / len(curves) - reports * report, report, at_once)


def replay(curves: Curves, order: Sequence[str], times: Times, early: bool) -> tuple[float, float]:
    """Seconds to the best measure that any trial told, and of the whole sweep; `early`: ASHA ends trials."""
    asha = _asha(curves) if early else None
    best = max(value for curve in curves.values() for _, value in curve)
    waiting, events, reached, end = list(order), [], float("inf"), 0.0
    for slot in range(min(times.at_once, len(order))):
        heapq.heappush(events, (times.start + times.report, slot, waiting.pop(0), 0))
    while events:
        now, slot, trial, number = heapq.heappop(events)
        step, value = curves[trial][number]
        if value >= best:
            reached = min(reached, now)
        over = number + 1 == len(curves[trial])
        if asha is not None and not over:
            over = asha.on_trial_result(None, _Named(trial), {"step": step, "goal": value}) == asha.STOP
        end = max(end, now)
        if not over:
            heapq.heappush(events, (now + times.report, slot, trial, number + 1))
        elif waiting:
            heapq.heappush(events, (now + times.start + times.report, slot, waiting.pop(0), 0))
    return reached, end


def savings(curves: Curves, times: Times, orders: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Ratios none / ASHA over random orders: to the best measure, where ASHA reaches it, and of the whole sweep."""
    draw, names = random.Random(seed), sorted(curves)
    pairs = []
    for _ in range(orders):
        order = draw.sample(names, len(names))
        pairs.append((replay(curves, order, times, False), replay(curves, order, times, True)))
    missed = sum(asha[0] == float("inf") for _, asha in pairs)
    found = [(none, asha) for none, asha in pairs if asha[0] < float("inf")]
    cuts = statistics.quantiles((none[0] / asha[0] for none, asha in found), n=20)
    return {
        "orders": orders,
        "asha_ends_the_best": missed / orders,
        "to_best_mean_seconds": [statistics.fmean(arm[0] for arm in arms) for arms in zip(*found, strict=True)],
        "to_best_ratio_of_means": sum(none[0] for none, _ in found) / sum(asha[0] for _, asha in found),
        "to_best_ratio_5_50_95": [cuts[0], cuts[9], cuts[18]],
        "whole_ratio_of_means": sum(none[1] for none, _ in pairs) / sum(asha[1] for _, asha in pairs),
    }


def _asha(curves: Curves) -> Asha:
    steps = [step for curve in curves.values() for step, _ in curve]
    scheduler = Asha("step", "goal", "max", max(steps), min(steps), reduction_factor=REDUCTION)
    scheduler.remember({}, Goal("goal", "max"))
    for name in curves:
        scheduler.on_trial_add(None, _Named(name))
    return scheduler


class _Named:
    """As much of a trial as Ray Tune's scheduler looks at."""

    def __init__(self, name: str) -> None:
        self.trial_id, self.config = name, {"job": {"trial": name}}
