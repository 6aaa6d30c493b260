"""The metrics that a training run exports, and the alerts worth having: the source of dashboard, rules and README.

`ray.util.metrics` puts `ray_` before each name. A histogram has `_bucket`, `_sum`, `_count`. All carry `run`, `stage`.
Ray computes a histogram's `_sum` from the middles of its buckets, so nothing here computes a mean from it.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Alert:
    """An alert: condition, duration of the condition, severity, meaning and action."""

    name: str
    expression: str
    hold: str
    severity: str
    meaning: str
    action: str


_BY = "by (run, stage)"
_UNDONE = f"max {_BY} (ray_objgan_step) < max {_BY} (ray_objgan_steps_total)"

ALERTS: tuple[Alert, ...] = (
    Alert(
        "ObjganNoProgress",
        f"(sum {_BY} (increase(ray_objgan_samples_total[15m])) == 0) and ({_UNDONE})",
        "15m",
        "page",
        "no sample for half an hour, and the stage is not done",
        "the log's last line; a run gives up by itself after compute.stall_deadline (30 min) and exits with 1",
    ),
    Alert(
        "ObjganVanished",
        f"(max {_BY} (last_over_time(ray_objgan_step[45m])) "
        f"< 0.98 * max {_BY} (last_over_time(ray_objgan_steps_total[45m]))) "
        f"unless max {_BY} (ray_objgan_step)",
        "15m",
        "page",
        "a run that was not done is not heard of any more: its head is gone, or nobody goes on with it",
        "kubectl get rayjob,pods; the same manifest again goes on from the last checkpoint",
    ),
    Alert(
        "ObjganCheckpointOld",
        f"(max {_BY} (ray_objgan_checkpoint_age_seconds) > 7200) and ({_UNDONE})",
        "10m",
        "page",
        "more than two hours of work would be lost",
        "is the storage full or away? raise training.checkpoint_every's frequency if it is only rare",
    ),
    Alert(
        "ObjganRestarts",
        f"sum {_BY} (increase(ray_objgan_restarts_total[1h])) > 3",
        "0m",
        "ticket",
        "workers die again and again",
        "spot machines: another zone or kind; else the workers' logs, and their memory",
    ),
    Alert(
        "ObjganSkippedSteps",
        f"sum {_BY} (increase(ray_objgan_skipped_steps_total[1h])) > 5",
        "0m",
        "ticket",
        "losses or gradients are not finite; the run stops after training.max_skipped (20)",
        "pipelines train STAGE --replay FOLDER shows where it began; a lower learning rate",
    ),
    Alert(
        "ObjganDataWait",
        f"avg {_BY} (rate(ray_objgan_data_wait_seconds_total[10m])) > 0.2",
        "20m",
        "ticket",
        "workers wait for data over a fifth of the time",
        "compute.loader_processes, more CPUs a worker, a faster store",
    ),
    Alert(
        "ObjganSlowCheckpoints",
        "histogram_quantile(0.9, sum by (run, stage, le) (rate(ray_objgan_checkpoint_seconds_bucket[1h]))) > 300",
        "0m",
        "ticket",
        "writing a checkpoint takes over five minutes",
        "the store is slow; a notice of preemption leaves less time than that",
    ),
    Alert(
        "ObjganSlower",
        f"max {_BY} (ray_objgan_samples_per_second) "
        f"< 0.5 * max {_BY} (avg_over_time(ray_objgan_samples_per_second[6h]))",
        "30m",
        "ticket",
        "half as fast as over the last six hours",
        "fewer workers (preempted)? a slow machine? the clocks of the GPUs",
    ),
    Alert(
        "ObjganRejectedRows",
        "sum by (run) (increase(ray_objgan_rejected_rows_total[1h])) > 100",
        "0m",
        "ticket",
        "prepare leaves out rows of the input",
        "rejected.jsonl says which and why; prepare --strict refuses instead",
    ),
)


def rules() -> dict[str, Any]:
    """Prometheus's rule groups."""
    return {
        "groups": [
            {
                "name": "objgan",
                "rules": [
                    {
                        "alert": alert.name,
                        "expr": alert.expression,
                        "for": alert.hold,
                        "labels": {"severity": alert.severity},
                        "annotations": {"summary": alert.meaning, "description": alert.action},
                    }
                    for alert in ALERTS
                ],
            }
        ]
    }


def table() -> str:
    """The alerts as Markdown."""
    rows = [f"| `{a.name}` | {a.severity} | {a.meaning} | `{a.expression}` for {a.hold} | {a.action} |" for a in ALERTS]
    return "\n".join(["| alert | severity | means | when | do |", "| --- | --- | --- | --- | --- |", *rows])
