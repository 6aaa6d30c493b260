"""What a trial has measured, in its own file: written as soon as a checkpoint is durable, whoever is listening."""

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
    """Points of one trial: step, seconds, measures, settings, and where the checkpoint is (segment and name).

    seconds:    since the trial began, over all its processes
    training_s: of these, inside training steps
    """

    def __init__(self, store: Storage, trial: str, lineage: CheckpointLineage) -> None:
        self._store, self._name, self._lineage = store, f"{TRIALS}/{trial}/{_FILE}", lineage
        facts = store.json(self._name) or {}
        # Weights that a take-over threw away lead nowhere.
        self.points: list[dict[str, Any]] = [
            point
            for point in facts.get("points", [])
            if point["segment"] == lineage.current or point["step"] <= lineage.begins
        ]
        self.training_s = float(facts.get("training_s", 0.0))
        self._before, self._began = float(facts.get("seconds", 0.0)), time.monotonic()
        self._pointers: list[str] = []
        # The trial's thread adds; Ray Tune's asks.
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Since the trial began."""
        return self._before + time.monotonic() - self._began

    def trained(self, seconds: float) -> None:
        """Time was spent inside steps."""
        self.training_s += seconds

    def add(self, step: int, name: str, measures: dict[str, float], settings: dict[str, Any]) -> bool:
        """A checkpoint was measured and is durable; False: it was known."""
        with self._lock:
            if any(point["step"] == step for point in self.points):
                return False
            point = {"step": step, "seconds": self.seconds, "measures": measures, "settings": settings}
            self.points.append({**point, "segment": self._lineage.current, "name": name})
            self.points.sort(key=lambda one: one["step"])
            facts = {"seconds": self.seconds, "training_s": self.training_s, "points": self.points}
            self._store.write(self._name, json.dumps(facts) + "\n")
            return True

    def recover(self, checkpoints: CheckpointStore, settings: dict[str, Any], goal: str) -> None:
        """Measures of checkpoints that were committed just before an earlier process died."""
        begins = self._lineage.begins if self._lineage.current else -1
        for name in checkpoints.names():
            step, measures = int(name.rsplit("_", 1)[-1]), checkpoints.measures(name)
            if step > begins and math.isfinite(measures.get(goal, math.nan)):
                self.add(step, name, measures, settings)

    def at(self, step: int) -> dict[str, Any]:
        """The point of a step."""
        with self._lock:
            return next(point for point in self.points if point["step"] == step)

    def best(self, sweep: Sweep, points: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Of some points the best by the sweep's goal, the earliest of equal ones."""
        goal, best = sweep.goal, None
        for point in points:
            if best is None or goal.better(point["measures"][goal.metric], best["measures"][goal.metric]):
                best = point
        return best

    def pin(self, sweep: Sweep, pointer: str | None = None) -> None:
        """Keep the best checkpoint by the sweep's goal, and those that others were last pointed to."""
        with self._lock:
            if pointer is not None:
                self._pointers = [*[name for name in self._pointers if name != pointer], pointer][-_POINTERS:]
            now = self._lineage.current
            best = self.best(sweep, [point for point in self.points if point["segment"] == now])
            names = {*self._pointers, *([] if best is None else [best["name"]])}
            _checkpoints(self._lineage.run(sweep.stage), sweep.stage).pin(*names)


def _checkpoints(storage: Storage, stage: str) -> CheckpointStore:
    return CheckpointStore(storage, 1, stage_class(stage).objective)
