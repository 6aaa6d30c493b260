"""A trial: a Ray Tune trainable whose thread runs ordinary training, stage by stage.

It is a class, not a function: Ray Tune ends a function without waiting for the training that it started, and the
workers of that training then hold their CPUs, possibly for ever. The class waits until its training has ended with a
checkpoint before its process takes the next trial.
"""

import contextlib
import json
import math
import os
import queue
import tempfile
import threading
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import ray
import ray.train.v2._internal.constants
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
from tune.sweep.sweep import Goal, Sweep
from tune.sweep.tracking import trial_run
from tune.sweep.training_job import judges_of

_POINTER = "pointer.json"
_POINT = [field.name for field in fields(Point)]
_STOP_S = 60.0
"""Seconds to wait for the end of a training."""
_ACTOR_S = 10.0
"""Seconds to wait for an answer of the actor."""
_POLL_S = 0.3
"""Seconds between two questions to the actor."""
_LEASE_S = 120.0
"""Seconds that a trial waits for a run whose driver has just died."""


@dataclass(frozen=True)
class TrialArgs:
    """Arguments of a sweep's driver to the processes of its trials.

    stop_requests: the actor of `tune.engine.stop_requests.StopRequests`
    threads:       torch threads of a worker; 0: as the settings say
    """

    sweep: Sweep
    stop_requests: Any
    threads: int = 0


class SweepTrial(ray.tune.Trainable):
    """A step is one report: held-out measures of a checkpoint of the last stage, once that checkpoint is durable.

    Its configuration: `job`, with `trial`, `number`, `settings` and `reported`, the last step that the sweep has
    recorded. Its checkpoints for Ray Tune hold no weights but a pointer to them, which is all that population-based
    training has to pass on.
    """

    def setup(self, config: dict[str, Any], trial_args: TrialArgs) -> None:
        """Called by Ray Tune once per process."""
        _pass_on_address()
        self._trial_args = trial_args
        self._work: TrialWork | None = None
        self._pointer: dict[str, Any] | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called by Ray Tune: the process takes another trial, or the same one with other settings."""
        self._end_work("the process takes another trial")
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next report.

        Raises:
            TrialCrashed: an infrastructure failure, which Ray Tune retries. This process then ends, and with it all
                that may still wait or hang in it.
        """
        try:
            return self._next()
        except Exception as error:
            ray.get(self._trial_args.stop_requests.crash.remote(self._trial["trial"], line_of(error)), timeout=_ACTOR_S)
            raise

    def _next(self) -> dict[str, Any]:
        if self._work is None:
            if reason := ray.get(self._trial_args.stop_requests.begin.remote(self._trial["trial"])):
                return {"step": 0, "done": True, "row": {"state": "interrupted", "error": None, "reason": reason}}
            work = TrialWork(self._trial_args, self._trial, self._lineage())
            work.start()
            self._work = work
        return self._work.next()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write where the weights of the last report are, and keep these from being deleted."""
        assert self._work is not None
        Path(checkpoint_dir, _POINTER).write_text(json.dumps(self._work.pointer()))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Read where to resume: from the trial's own weights, or from those of a donor."""
        self._pointer = json.loads(Path(checkpoint, _POINTER).read_text())

    def cleanup(self) -> None:
        """Called by Ray Tune at the end of the process."""
        self._end_work("the trial's process ends")

    def _begin(self, config: dict[str, Any]) -> None:
        self._trial = dict(config["job"])
        self._work, self._pointer = None, None

    def _lineage(self) -> CheckpointLineage:
        """The trial's segments, with a new one if a donor's weights have to be taken over."""
        sweep, pointer = self._trial_args.sweep, self._pointer
        lineage = CheckpointLineage(sweep.store(), self._trial["trial"], sweep.stage)
        if pointer is not None and pointer["trial"] != self._trial["trial"]:
            lineage.take_over(pointer, self._trial["settings"])
        if pointer is not None:
            self._trial["reported"] = pointer["step"]
        return lineage

    def _end_work(self, reason: str) -> None:
        if self._work is not None:
            self._work.stop(reason)
            self._work.join(_STOP_S)
            self._work = None


def _pass_on_address() -> None:
    """Give the processes that Ray Train starts the address of this Ray.

    The one that frees the CPUs of a killed trial looks for a Ray on this machine, and gives up if there are several.
    """
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ray.train.v2._internal.constants.ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")


class TrialWork(threading.Thread):
    """Trains; `next` returns its reports in order. It is the `ReportListener` of its runs."""

    def __init__(self, trial_args: TrialArgs, trial: dict[str, Any], lineage: CheckpointLineage) -> None:
        super().__init__(name="trial", daemon=True)
        self._sweep, self._trial_args, self._lineage = trial_args.sweep, trial_args, lineage
        self._trial, self._settings = trial, lineage.settings or trial["settings"]
        self._trial_log = TrialLog(self._sweep.store(), trial["trial"], lineage)
        self._reports: queue.Queue[dict[str, Any] | TrialCrashed] = queue.Queue()
        self._reason: str | None = None
        self._error: Exception | None = None
        self._asked_at, self._stage, self._logged = 0.0, "", 0
        self._waiting: dict[int, dict[str, float]] = {}
        self._final: dict[str, Any] | None = None
        self._steps = 0
        self._last: dict[str, Any] = {}

    def next(self) -> dict[str, Any]:
        """Wait for the next report; the last one has `done`.

        Raises:
            TrialCrashed: an infrastructure failure ended the training.
        """
        report = self._reports.get()
        if isinstance(report, TrialCrashed):
            raise report
        self._last = report
        return report

    def stop(self, reason: str) -> None:
        """Request that the training saves a checkpoint and stops."""
        self._reason = self._reason or reason

    def pointer(self) -> dict[str, Any]:
        """Where the weights of the last report are. They are kept from being deleted."""
        point = self._trial_log.at(int(self._last["step"]))
        if point["segment"] == self._lineage.current:
            self._trial_log.pin(self._sweep, point["name"])
        place = {name: point[name] for name in ("segment", "name", "step")}
        return {"trial": self._trial["trial"], **place}

    def event(self, event: Event) -> None:
        """An event of the run: see `pipelines.training.supervisor.ReportListener`."""
        match event:
            case Logged(step=step, values=values):
                self._trial_log.trained(values["seconds_per_step"] * max(0, step - self._logged))
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
        """Why the run has to stop: its process or the sweep's driver requested it; None: it does not."""
        if self._reason is None and time.monotonic() - self._asked_at > _POLL_S:
            self._asked_at, actor = time.monotonic(), self._trial_args.stop_requests
            with contextlib.suppress(ray.exceptions.RayError):  # the driver has died, and this process ends soon
                self._reason = ray.get(actor.reason.remote(self._trial["trial"]), timeout=_ACTOR_S)
        return self._reason

    def run(self) -> None:
        """The thread: all stages."""
        with tempfile.TemporaryDirectory(prefix="objgan-trial-") as scratch:
            caught: BaseException | None = None
            try:
                self._train(Path(scratch))
            except BaseException as error:  # the error of a trial must not end the others
                caught = error
            cause = self._error or caught
            state, line = end_of(cause), "" if cause is None else line_of(cause)
            if state == "crashed":
                self._reports.put(TrialCrashed(line))
            else:
                self._end(state, None if state in ("finished", "interrupted") else line)

    def _train(self, scratch: Path) -> None:
        sweep, config = self._sweep, self._config()
        self._recover(TrainJob(sweep.stage, config, sweep.data, scratch / "check"))
        done: dict[str, Path] = {} if sweep.encoders is None else {"encoders": sweep.encoders}
        for stage in sweep.stages:
            self._stage, self._logged, self._waiting = stage, 0, {}
            store = self._lineage.run(stage)
            job = TrainJob(
                stage,
                config,
                sweep.data,
                store.local or scratch / stage,
                {need: done[need] for need in needed_stages(config, stage)},
                storage=None if store.local is not None else store.uri,
                judges=judges_of(sweep, stage),
            )
            done[stage] = self._run_stage(job, store)

    def _run_stage(self, job: TrainJob, store: Storage) -> Path:
        trial = self._trial
        with (
            Lease.acquire(store, who=f"trial {trial['trial']}", wait=_LEASE_S) as lease,
            trial_run(self._sweep, trial["trial"], trial["number"], job.stage, trial["settings"], store) as tracking,
        ):
            return train(open_run(job), lease, self, tracking).checkpoint

    def _config(self) -> Config:
        config = trial_settings(self._sweep, self._settings)
        compute = config.compute.model_copy(update={"threads": self._trial_args.threads or config.compute.threads})
        return config.model_copy(update={"compute": compute})

    def _recover(self, job: TrainJob) -> None:
        """Report what an earlier process measured, if the sweep has not recorded it."""
        self._steps = OpenRun(job).steps
        training, stage = job.training, self._sweep.stage
        checkpoints = CheckpointStore(self._lineage.run(stage), training.keep_checkpoints, stage_class(stage).objective)
        self._trial_log.recover(checkpoints, self._settings, *self._sweep.goal.names)
        for index, point in enumerate(self._trial_log.points):
            if point["step"] > self._trial["reported"]:
                self._report(index)

    def _take(self, step: int, name: str, measures: dict[str, float]) -> None:
        """Record and report a measured checkpoint that is durable."""
        for goal in self._sweep.goal.names:
            if goal not in measures:
                self._error = SettingsRefused(f"{goal} was not measured at step {step}, only {', '.join(measures)}")
            elif not math.isfinite(measures[goal]):
                self._error = FloatingPointError(f"{goal} is {measures[goal]} at step {step}")
            else:
                continue
            self.stop(str(self._error))
            return
        if not self._trial_log.add(step, name, measures, self._settings):
            return
        if Goal(*stage_class(self._sweep.stage).objective) != self._sweep.goal:
            self._trial_log.pin(self._sweep)
        self._report(len(self._trial_log.points) - 1)

    def _report(self, index: int) -> None:
        points = self._trial_log.points[: index + 1]
        step, value = points[-1]["step"], points[-1]["measures"][self._sweep.goal.metric]
        report = {"step": step, "goal": value, "done": False, "row": self._row(points)}
        if step < self._steps:
            self._reports.put(report)
        else:
            # A trial that has reported its last step counts as finished, so its run has to end first.
            self._final = report

    def _end(self, state: str, error: str | None = None) -> None:
        """The last report. After the last step, it contains the last measures."""
        points = self._trial_log.points
        row = {**self._row(points), "state": state, "error": error}
        step = points[-1]["step"] if points else 0
        self._reports.put({**(self._final or {"step": step}), "done": True, "row": row})

    def _row(self, points: list[dict[str, Any]]) -> dict[str, Any]:
        """What the report changes in the trial's row."""
        best = self._trial_log.best(self._sweep, points)
        return {
            "points": [{name: point[name] for name in _POINT} for point in points],
            "checkpoint": None if best is None else best["name"],
            "segment": 0 if best is None else best["segment"],
            "donors": self._lineage.donors,
            "seconds": self._trial_log.seconds,
            "training_s": self._trial_log.training_s,
        }
