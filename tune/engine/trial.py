"""A trial: a Ray Tune trainable whose thread runs ordinary training, stage by stage.

A class, not a function: Ray Tune ends a function without waiting for the training that it began, whose workers then
hold their CPUs for a while, or for ever. This one sees its training end, with a checkpoint, before the process is
given the next trial.
"""

import contextlib
import json
import math
import queue
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.tune

from objgan.config import Config
from objgan.stages import stage_class
from pipelines.runtime.events import Began, Event, Logged, Saved, Validated
from pipelines.storage.checkpoints import CheckpointStore
from pipelines.storage.lease import Lease
from pipelines.storage.storage import Storage
from pipelines.training.driver import train
from pipelines.training.job import OpenRun, TrainJob, needed_stages, open_run
from tune.engine.preflight import trial_settings
from tune.engine.trial_log import TrialLog
from tune.sweep.checkpoint_lineage import CheckpointLineage
from tune.sweep.outcomes import SettingsRefused, TrialCrashed, end_of, line_of
from tune.sweep.results import Point
from tune.sweep.sweep import Sweep
from tune.sweep.tracking import trial_run

_POINTER = "pointer.json"
_LEAVE_S = 60.0
_DESK_S = 10.0

_LISTEN_S = 0.3
_LEASE_S = 120.0
"""Seconds that a trial waits for the run of a driver that has just died."""


@dataclass(frozen=True)
class TrialArgs:
    """What a sweep's driver gives to the processes of its trials.

    desk:    actor where it leaves word for them
    threads: torch threads of a worker; 0: as the settings say
    """

    sweep: Sweep
    stop_requests: Any
    threads: int = 0


class SweepTrial(ray.tune.Trainable):
    """A step is one report: held-out measures of a checkpoint of the last stage, once that checkpoint is durable.

    Its configuration: `job`, with `trial`, `number`, `settings` and `told`, the last step that the sweep knows of. Its
    checkpoints for Ray Tune hold no weights, but say where these are: that is all that population-based training has
    to pass on.
    """

    def setup(self, config: dict[str, Any], trial_args: TrialArgs) -> None:
        """Called by Ray Tune once for a process."""
        self._trial_args = trial_args
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
            ray.get(self._trial_args.stop_requests.crash.remote(self._trial["trial"], line_of(error)), timeout=_DESK_S)
            raise

    def _next(self) -> dict[str, Any]:
        if self._work is None:
            trial_args = self._trial_args
            if reason := ray.get(trial_args.stop_requests.begin.remote(self._trial["trial"])):
                return {"step": 0, "done": True, "told": {"state": "interrupted", "error": None, "reason": reason}}
            work = TrialWork(
                trial_args.sweep, trial_args.stop_requests, trial_args.threads, self._trial, self._lineage()
            )
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

    def _lineage(self) -> CheckpointLineage:
        """The trial's segments, with a new one where a donor's weights are to be taken over."""
        sweep, pointer = self._trial_args.sweep, self._pointer
        lineage = CheckpointLineage(_storage(sweep), self._trial["trial"], sweep.stage)
        if pointer is not None and pointer["trial"] != self._trial["trial"]:
            lineage.take_over(pointer, self._trial["settings"])
        if pointer is not None:
            self._trial["told"] = pointer["step"]
        return lineage

    def _leave(self, reason: str) -> None:
        if self._work is not None:
            self._work.stop(reason)
            self._work.join(_LEAVE_S)
            self._work = None


def _storage(sweep: Sweep) -> Storage:
    return sweep.store()


class TrialWork(threading.Thread):
    """Trains; `next` hands out reports in order. It is its runs' `ReportListener`."""

    def __init__(
        self, sweep: Sweep, stop_requests: Any, threads: int, trial: dict[str, Any], lineage: CheckpointLineage
    ) -> None:
        super().__init__(name="trial", daemon=True)
        self._sweep, self._stop_requests, self._lineage = sweep, stop_requests, lineage
        self._trial, self._settings = trial, lineage.settings or trial["settings"]
        self._threads = threads
        self._store = sweep.store()
        self._measured = TrialLog(self._store, trial["trial"], lineage)
        self._reports: queue.Queue[dict[str, Any] | TrialCrashed] = queue.Queue()
        self._reason: str | None = None
        self._error: Exception | None = None
        self._listened, self._stage, self._logged = 0.0, "", 0
        self._waiting: dict[int, dict[str, float]] = {}
        self._final: dict[str, Any] | None = None
        self._steps = 0
        self._last: dict[str, Any] = {}

    def next(self) -> dict[str, Any]:
        """The next report, when there is one; `done` in the last.

        Raises:
            TrialCrashed: there is none, because infrastructure failed.
        """
        report = self._reports.get()
        if isinstance(report, TrialCrashed):
            raise report
        self._last = report
        return report

    def stop(self, reason: str) -> None:
        """Have the training leave a checkpoint and end, soon."""
        self._reason = self._reason or reason

    def pointer(self) -> dict[str, Any]:
        """Where the weights of the last report are; they stay there."""
        point = self._measured.at(int(self._last["step"]))
        if point["segment"] == self._lineage.current:
            self._measured.pin(self._sweep, point["name"])
        place = {name: point[name] for name in ("segment", "name", "step")}
        return {"trial": self._trial["trial"], **place}

    def event(self, event: Event) -> None:
        """An event of the run: see `pipelines.training.supervisor.ReportListener`."""
        match event:
            case Logged(step=step, values=values):
                self._measured.trained(values["seconds_per_step"] * max(0, step - self._logged))
                self._logged = step
            case Began(step=step):
                self._logged = step
            case Validated(step=step, measures=measures):
                self._waiting[step] = dict(measures)
            case Saved(step=step, checkpoint=checkpoint) if self._stage == self._sweep.stage:
                waiting = self._waiting.pop(step, None)
                if waiting is not None:
                    self._take(step, checkpoint, waiting)

    def wish(self) -> str | None:
        """Why the run is to stop: this process is told to, or the sweep's driver left word."""
        if self._reason is None and time.monotonic() - self._listened > _LISTEN_S:
            self._listened = time.monotonic()
            with contextlib.suppress(ray.exceptions.RayError):  # the driver is gone, and this process soon will be
                self._reason = ray.get(self._stop_requests.wish.remote(self._trial["trial"]), timeout=10)
        return self._reason

    def run(self) -> None:
        """The thread: all stages."""
        with tempfile.TemporaryDirectory(prefix="objgan-trial-") as scratch:
            caught: BaseException | None = None
            try:
                self._train(Path(scratch))
            except BaseException as error:  # a trial's error must not end the others
                caught = error
            cause = self._error or caught
            state, line = end_of(cause), "" if cause is None else line_of(cause)
            if state == "crashed":
                self._reports.put(TrialCrashed(line))
            else:
                self._end(state, None if state in ("finished", "interrupted") else line)

    def _train(self, scratch: Path) -> None:
        sweep, config = self._sweep, self._config()
        self._recover(TrainJob(sweep.stage, config, sweep.data, scratch / "look"))
        done: dict[str, Path] = {} if sweep.encoders is None else {"encoders": sweep.encoders}
        for stage in sweep.stages:
            self._stage, self._logged = stage, 0
            self._waiting = {}
            store = self._lineage.run(stage)
            job = TrainJob(
                stage,
                config,
                sweep.data,
                store.local or scratch / stage,
                {need: done[need] for need in needed_stages(config, stage)},
                storage=None if store.local is not None else store.uri,
            )
            done[stage] = self._run_stage(job, store)

    def _run_stage(self, job: TrainJob, store: Storage) -> Path:
        trial = self._trial
        with (
            Lease.acquire(store, who=f"trial {trial['trial']}", wait=_LEASE_S, log=_quiet) as lease,
            trial_run(self._sweep, trial["trial"], trial["number"], job.stage, trial["settings"], store) as tracking,
        ):
            return train(open_run(job), _quiet, lease, self, tracking).checkpoint

    def _config(self) -> Config:
        config = trial_settings(self._sweep, self._settings)
        if not self._threads:
            return config
        return config.model_copy(update={"compute": config.compute.model_copy(update={"threads": self._threads})})

    def _recover(self, job: TrainJob) -> None:
        """Reports of an earlier process that the sweep may not have heard of."""
        self._steps = OpenRun(job).steps
        training, stage = job.training, self._sweep.stage
        there = CheckpointStore(self._lineage.run(stage), training.keep_checkpoints, stage_class(stage).objective)
        self._measured.recover(there, self._settings, self._sweep.goal.metric)
        for place, point in enumerate(self._measured.points):
            if point["step"] > self._trial["told"]:
                self._report(place)

    def _take(self, step: int, name: str, measures: dict[str, float]) -> None:
        """A measured checkpoint is durable."""
        goal = self._sweep.goal.metric
        value = measures.get(goal, math.nan)
        if not math.isfinite(value):
            if goal in measures:
                self._error = FloatingPointError(f"{goal} is {value} at step {step}")
            else:
                self._error = SettingsRefused(
                    f"{goal} was not measured at step {step}; there are {', '.join(measures)}"
                )
            self.stop(str(self._error))
            return
        if not self._measured.add(step, name, measures, self._settings):
            return
        if stage_class(self._sweep.stage).objective[0] != goal:
            self._measured.pin(self._sweep)
        self._report(len(self._measured.points) - 1)

    def _report(self, place: int) -> None:
        points = self._measured.points[: place + 1]
        told = points[-1]
        value = told["measures"][self._sweep.goal.metric]
        report = {"step": told["step"], "goal": value, "done": False, "told": self._told(points)}
        if told["step"] < self._steps:
            self._reports.put(report)
        else:
            # Whoever hears of the last step may take the trial for finished: first its run has to be.
            self._final = report

    def _end(self, state: str, error: str | None = None) -> None:
        """The last report; where training is done it goes with the last measures."""
        points = self._measured.points
        told = {**self._told(points), "state": state, "error": error}
        step = points[-1]["step"] if points else 0
        self._reports.put({**(self._final or {"step": step}), "done": True, "told": told})

    def _told(self, points: list[dict[str, Any]]) -> dict[str, Any]:
        best = self._measured.best(self._sweep, points)
        return {
            "points": [asdict(_point(point)) for point in points],
            "checkpoint": None if best is None else best["name"],
            "segment": 0 if best is None else best["segment"],
            "donors": self._lineage.donors,
            "seconds": self._measured.seconds,
            "training_s": self._measured.training_s,
        }


def _point(facts: dict[str, Any]) -> Point:
    return Point(facts["step"], facts["seconds"], facts["measures"], facts["settings"])


def _quiet(text: str) -> None:
    """A trial's process has no terminal: its numbers are in its row."""
