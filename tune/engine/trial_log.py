"""The measures of a trial in its own file, which is written as soon as a checkpoint is durable."""

import json
import math
import threading
import time
from typing import Any

from objgan.stages import stage_class
from pipelines.storage.checkpoints import CheckpointStore
from pipelines.storage.storage import Storage
from tune.sweep.checkpoint_lineage import CheckpointLineage
from tune.sweep.sweep import Sweep
from tune.sweep.trial_store import TRIALS

_FILE = "points.json"
_POINTERS = 2


class TrialLog:
    """Points of one trial: step, seconds, measures, settings, and the checkpoint's segment and name.

    seconds:    since the trial began, over all its processes
    training_s: the part of them inside training steps
    """

    def __init__(self, store: Storage, trial: str, lineage: CheckpointLineage) -> None:
        self._store, self._name, self._lineage = store, f"{TRIALS}/{trial}/{_FILE}", lineage
        facts = store.json(self._name) or {}
        # Points of weights that a take-over discarded are dropped.
        self.points: list[dict[str, Any]] = [
            point
            for point in facts.get("points", [])
            if point["segment"] == lineage.current or point["step"] <= lineage.begins
        ]
        self.training_s = float(facts.get("training_s", 0.0))
        self._before, self._began = float(facts.get("seconds", 0.0)), time.monotonic()
        self._pointers: list[str] = []
        # The trial's thread adds points, Ray Tune's thread reads them.
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Since the trial began."""
        return self._before + time.monotonic() - self._began

    def trained(self, seconds: float) -> None:
        """Add time inside training steps."""
        self.training_s += seconds

    def add(self, step: int, name: str, measures: dict[str, float], settings: dict[str, Any]) -> bool:
        """Add a measured, durable checkpoint; False: it was added before."""
        with self._lock:
            if any(point["step"] == step for point in self.points):
                return False
            point = {"step": step, "seconds": self.seconds, "measures": measures, "settings": settings}
            self.points.append({**point, "segment": self._lineage.current, "name": name})
            self.points.sort(key=lambda point: point["step"])
            facts = {"seconds": self.seconds, "training_s": self.training_s, "points": self.points}
            self._store.write(self._name, json.dumps(facts) + "\n")
            return True

    def recover(self, checkpoints: CheckpointStore, settings: dict[str, Any], *needed: str) -> None:
        """Add checkpoints with the needed metrics that were committed just before an earlier process died."""
        begins = self._lineage.begins if self._lineage.current else -1
        for name in checkpoints.names():
            step, measures = int(name.rsplit("_", 1)[-1]), checkpoints.measures(name)
            if step > begins and all(math.isfinite(measures.get(name, math.nan)) for name in needed):
                self.add(step, name, measures, settings)

    def at(self, step: int) -> dict[str, Any]:
        """The point of a step."""
        with self._lock:
            return next(point for point in self.points if point["step"] == step)

    def best(self, sweep: Sweep, points: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The best of some points by the sweep's goal; of equal ones the earliest."""
        return max(points, key=lambda point: sweep.goal.rank(point["measures"]), default=None)

    def pin(self, sweep: Sweep, pointer: str | None = None) -> None:
        """Keep the best checkpoint by the sweep's goal, and the last ones that pointers name."""
        with self._lock:
            if pointer is not None:
                self._pointers = [*[name for name in self._pointers if name != pointer], pointer][-_POINTERS:]
            current = self._lineage.current
            best = self.best(sweep, [point for point in self.points if point["segment"] == current])
            names = {*self._pointers, *([] if best is None else [best["name"]])}
            CheckpointStore(self._lineage.run(sweep.stage), 1, stage_class(sweep.stage).objective).pin(*names)
