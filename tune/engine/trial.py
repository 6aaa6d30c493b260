"""A trial as Ray Tune sees it: a process that trains nothing itself, but watches over ordinary training runs.

A class, not a function: Ray Tune ends a function without waiting for the training that it began, whose workers then
hold their CPUs for a while, or for ever. This one sees its training end, with a checkpoint, before the process is
given the next trial.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.tune

from pipelines.storage.storage import Storage
from tune.engine.trial_work import TrialWork
from tune.sweep.checkpoint_lineage import Segments
from tune.sweep.outcomes import line_of
from tune.sweep.sweep import Sweep

_POINTER = "pointer.json"
_LEAVE_S = 60.0
_DESK_S = 10.0


@dataclass(frozen=True)
class Orders:
    """What a sweep's driver gives to the processes of its trials.

    desk:    actor where it leaves word for them
    threads: torch threads of a worker; 0: as the settings say
    """

    sweep: Sweep
    desk: Any
    threads: int = 0


class SweepTrial(ray.tune.Trainable):
    """A step is one report: held-out measures of a checkpoint of the last stage, once that checkpoint is durable.

    Its configuration: `job`, with `trial`, `number`, `settings` and `told`, the last step that the sweep knows of. Its
    checkpoints for Ray Tune hold no weights, but say where these are: that is all that population-based training has
    to pass on.
    """

    def setup(self, config: dict[str, Any], orders: Orders) -> None:
        """Called by Ray Tune once for a process."""
        self._orders = orders
        self._work: TrialWork | None = None
        self._pointer: dict[str, Any] | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The process is to do another trial, or the same one with other settings."""
        self._leave("another trial begins here")
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next report.

        Raises:
            TrialCrashed: infrastructure failed, and Ray Tune is to try again. This process then ends, and with it all
                that may still wait or hang in it.
        """
        try:
            return self._next()
        except Exception as error:
            ray.get(self._orders.desk.crash.remote(self._trial["trial"], line_of(error)), timeout=_DESK_S)
            raise

    def _next(self) -> dict[str, Any]:
        if self._work is None:
            orders = self._orders
            if reason := ray.get(orders.desk.begin.remote(self._trial["trial"])):
                return {"step": 0, "done": True, "told": {"state": "interrupted", "error": None, "reason": reason}}
            work = TrialWork(orders.sweep, orders.desk, orders.threads, self._trial, self._segments())
            work.start()
            self._work = work
        return self._work.next()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Say where the weights of the last report are, and have them stay there."""
        assert self._work is not None
        Path(checkpoint_dir, _POINTER).write_text(json.dumps(self._work.pointer()))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Where to go on: at the trial's own weights, or at those of a donor."""
        self._pointer = json.loads(Path(checkpoint, _POINTER).read_text())

    def cleanup(self) -> None:
        """The process ends."""
        self._leave("the trial was ended")

    def _begin(self, config: dict[str, Any]) -> None:
        self._trial = dict(config["job"])
        self._work, self._pointer = None, None

    def _segments(self) -> Segments:
        """The trial's segments, with a new one where a donor's weights are to be taken over."""
        sweep, pointer = self._orders.sweep, self._pointer
        segments = Segments(_storage(sweep), self._trial["trial"], sweep.stage)
        if pointer is not None and pointer["trial"] != self._trial["trial"]:
            segments.take_over(pointer, self._trial["settings"])
        if pointer is not None:
            self._trial["told"] = pointer["step"]
        return segments

    def _leave(self, reason: str) -> None:
        if self._work is not None:
            self._work.stop(reason)
            self._work.join(_LEAVE_S)
            self._work = None


def _storage(sweep: Sweep) -> Storage:
    return sweep.store()
