"""Actors that outlive workers, and one of them: it counts the starts of work, which a worker's death does not erase."""

from collections import Counter
from typing import Any

import ray
import ray.util.scheduling_strategies

MOST_STARTS = 3
"""Attempts at one piece of work that end with the worker's death, before a command fails."""


class _Starts:
    """Counts the starts of each piece of work, in an actor that outlives the workers."""

    def __init__(self) -> None:
        self._starts: Counter[str] = Counter()

    def count(self, work: str) -> int:
        """Count a start; returns the number of earlier ones."""
        self._starts[work] += 1
        return self._starts[work] - 1


def make_starts() -> Any:
    """The actor. `count.remote(name)` counts a start."""
    return on_own_node(_Starts)


def on_own_node(kind: type) -> Any:
    """A new actor on the driver's own node, which no worker's death takes with it."""
    node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(num_cpus=0)(kind).options(scheduling_strategy=node).remote()
