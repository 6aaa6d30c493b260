"""A sweep with Ray Tune: plans, starts and stops trials, and resumes them after a kill.

Ray Tune decides which trial runs when. The state of the trials is JSON in the sweep's storage
(`tune.sweep.trial_store`). A resumed sweep is a new run of Ray Tune over the trials that have not ended.
"""

import contextlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import ray
import ray.tune

from objgan.errors import InputError
from pipelines.data.loading.data_folder import open_data
from pipelines.runtime.ray_session import own_cores, ray_session
from pipelines.storage.lease import Lease
from pipelines.storage.retry import Work, only_logged
from pipelines.storage.storage import Storage
from pipelines.training.job import identity
from tune.engine.driver import SweepDriver, make_stop_requests
from tune.engine.preflight import check_sweep
from tune.engine.schedulers import Rungs, make_scheduler
from tune.engine.search import Suggestions, suggest
from tune.engine.trial import SweepTrial, TrialArgs
from tune.sweep.checkpoint_lineage import CheckpointLineage
from tune.sweep.resources import Allotment, plan_resources
from tune.sweep.results import Observer, SweepResult, Trial
from tune.sweep.spec_file import changed, load_sweep, save_sweep
from tune.sweep.sweep import Sweep
from tune.sweep.training_job import judges_of
from tune.sweep.trial_store import ENDED, TrialStore, trial_id

logger = logging.getLogger(__name__)
_RAY = ".tune"
_INPUTS = "inputs.json"
_PLACES = ("run", "storage", "data", "encoders", "judges")
_ENVIRONMENT = {
    # Not used: Ray Tune's own signal handler, result files and saved state.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    # A trial that fails reports no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # The sweep's own lines say which trial failed, and why.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_sweep(
    sweep: Sweep,
    observers: Sequence[Observer],
    address: str | None = None,
    resume: bool = False,
    lease: Lease | None = None,
) -> SweepResult:
    """Run all trials of a sweep, or those that are left of it.

    Args:
        sweep: each trial is a run `trials/ID/STAGE` below it
        observers: are called at every change of a trial, in this process
        address: of a Ray cluster; None: this machine
        resume: continue a sweep that was killed or interrupted, has crashed trials, or spent its budget
        lease: the caller's lease on the sweep's storage; None: it is acquired here

    Raises:
        InputError: the sweep cannot run, another process holds it, or it exists already; nothing was started.
        LeaseLost: another driver took the sweep over.
    """
    sweep = _absolute(sweep)
    rungs = check_sweep(sweep)
    store = sweep.store()
    os.environ.update(_ENVIRONMENT)
    with contextlib.nullcontext(lease) if lease is not None else Lease.acquire(store) as held:
        rows = open_sweep(sweep, resume)
        if _is_done(sweep, rows):
            logger.info(f"sweep {sweep.run}: finished before ({store})")
            for row in rows.result().trials:
                for observer in observers:
                    observer.trial(row)
            return rows.result()
        work = _Advance()
        sweep_driver = SweepDriver(sweep, rows, [*observers, work])
        with work, sweep_driver.handle_signals(), ray_session(address, dashboard=True):
            allotment = plan_resources(sweep, ray.cluster_resources(), own_cores(address))
            _announce(sweep, rows, allotment)
            stop_requests = make_stop_requests()
            try:
                sweep_driver.begin(stop_requests, held, allotment)
                _tune(
                    sweep,
                    rungs,
                    _Trials(sweep, rows, sweep_driver),
                    TrialArgs(sweep, stop_requests, allotment.threads),
                    allotment,
                )
            finally:
                ray.kill(stop_requests)
                with only_logged(f"cannot remove {store}/{_RAY}"):
                    store.delete(_RAY)
        sweep_driver.finish()
        return rows.result()


class _Advance(Work):
    """Observer: a sweep has advanced once a trial has reported."""

    def trial(self, trial: Trial) -> None:
        """See `Observer`."""
        self.advanced = self.advanced or bool(trial.points)


def open_sweep(sweep: Sweep, resume: bool) -> TrialStore:
    """Create a sweep's storage, or check that it holds the same sweep, which may continue.

    Raises:
        InputError: it may not; the message names the command to use.
    """
    store = sweep.store()
    stored, inputs = load_sweep(store), _inputs(sweep)
    if stored is None:
        if resume:
            raise InputError(f"--resume {sweep.run}: there is no sweep in {store}")
        save_sweep(sweep)
        store.write(_INPUTS, json.dumps(inputs, indent=1) + "\n")
        rows = TrialStore(store)
        rows.put_state("running", 0.0, left=sweep.budget.trials)
        return rows
    _check_same(sweep, stored, inputs, resume)
    rows = TrialStore(store)
    if not resume and not _is_done(sweep, rows):
        ended, whole = len(rows.ended()), sweep.budget.trials
        raise InputError(
            f"{store} holds a sweep with {ended} of {whole} trials ended: continue it with --resume {sweep.run}, "
            f"or use another --run"
        )
    save_sweep(sweep)
    return rows


def _check_same(sweep: Sweep, stored: Sweep, inputs: dict[str, Any], resume: bool) -> None:
    """The places of the sweep and of its inputs may change, but not their contents; `resume`: ranges, too."""
    store, places = sweep.store(), {name: getattr(sweep, name) for name in _PLACES}
    moved = replace(stored, **places)
    if resume and sweep.search != "grid" and set(sweep.space.knobs) == set(stored.space.knobs):
        moved = replace(moved, space=sweep.space)
    different = changed(sweep, moved)
    before = store.json(_INPUTS) or {}
    different += [f"{name}: {before.get(name)} -> {now}" for name, now in inputs.items() if before.get(name) != now]
    if different:
        raise InputError(f"{store} was begun differently ({'; '.join(different[:4])}): undo that or use another --run")


def _inputs(sweep: Sweep) -> dict[str, Any]:
    data = open_data(sweep.data, sweep.config.compute)
    encoders = None if sweep.encoders is None else identity(sweep.encoders)
    judges = judges_of(sweep, sweep.stage)
    return {
        "data": data.manifest["digest"],
        "encoders": encoders,
        "judges": None if judges is None else dict(judges.identity()),
    }


def _is_done(sweep: Sweep, rows: TrialStore) -> bool:
    return rows.state == "finished" and len(rows.ended()) >= sweep.budget.trials


def _absolute(sweep: Sweep) -> Sweep:
    """Trials have working directories of their own."""
    data = sweep.data.resolve() if isinstance(sweep.data, Path) else sweep.data
    encoders, judges = (None if place is None else place.resolve() for place in (sweep.encoders, sweep.judges))
    return replace(sweep, data=data, encoders=encoders, judges=judges, storage=Storage(sweep.storage).uri)


def _announce(sweep: Sweep, rows: TrialStore, allotment: Allotment) -> None:
    left = sweep.budget.trials - len(rows.ended())
    before = f", {len(rows.ended())} ended before" if rows.ended() else ""
    logger.info(
        f"sweep {sweep.run}: {left} trials of {' and '.join(sweep.stages)}{before}, {allotment.concurrent} at once "
        f"with {allotment.units:g} {'GPU' if allotment.use_gpu else 'CPU'} each"
    )


class _Trials:
    """The remaining trials, as configurations for Ray Tune."""

    def __init__(self, sweep: Sweep, rows: TrialStore, sweep_driver: SweepDriver) -> None:
        self._sweep, self._rows, self._sweep_driver = sweep, rows, sweep_driver
        self.past: Mapping[str, Trial] = dict(rows.rows)
        known = {row.number for row in rows.rows.values()}
        self._new = [number for number in range(sweep.budget.trials) if number not in known]

    def unfinished(self) -> list[dict[str, Any]]:
        """Trials that an earlier process started and that have not ended."""
        rows = sorted((row for row in self.past.values() if row.state not in ENDED), key=lambda row: row.number)
        return [self._config(row) for row in rows]

    def next(self) -> dict[str, Any] | None:
        """A new trial; None: there is none, or the sweep has to end."""
        if not self._new or self._sweep_driver.asked is not None:
            return None
        number = self._new.pop(0)
        settings = suggest(self._sweep, number, self._rows.rows.values())
        row = Trial(trial_id(self._sweep.seed, number), number, settings)
        self._sweep_driver.put(row)
        return self._config(row)

    def everything(self) -> list[dict[str, Any]]:
        """All of them, as a population needs them."""
        return [*self.unfinished(), *iter(self.next, None)]

    def count(self) -> int:
        """The number of remaining trials."""
        return len(self._new) + sum(row.state not in ENDED for row in self.past.values())

    def _config(self, row: Trial) -> dict[str, Any]:
        settings = row.settings
        if self._sweep.scheduler == "pbt":
            settings = CheckpointLineage(self._sweep.store(), row.id, self._sweep.stage).settings or settings
        reported = row.points[-1].step if row.points else 0
        return {"trial": row.id, "number": row.number, "settings": settings, "reported": reported}


def _tune(sweep: Sweep, rungs: Rungs, trials: _Trials, trial_args: TrialArgs, allotment: Allotment) -> None:
    sweep_driver, folder = trials._sweep_driver, sweep.store().child(_RAY)
    trainable = ray.tune.with_parameters(SweepTrial, trial_args=trial_args)
    resources = ray.tune.PlacementGroupFactory([allotment.driver])
    population = trials.everything() if sweep.scheduler == "pbt" else None
    search = None if population else Suggestions(trials.unfinished(), trials.next, sweep.goal)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(trainable, resources),
        param_space={"job": ray.tune.grid_search(population)} if population else {},
        tune_config=ray.tune.TuneConfig(
            num_samples=1 if population else trials.count(),
            max_concurrent_trials=None if population else allotment.concurrent,
            search_alg=search,
            scheduler=make_scheduler(sweep, rungs, trials.past.values(), trial_args.stop_requests),
            reuse_actors=True,
        ),
        run_config=ray.tune.RunConfig(
            name="sweep",
            storage_path=folder.path,
            storage_filesystem=None if folder.local is not None else folder.filesystem,
            callbacks=[sweep_driver],
            stop=sweep_driver,
            failure_config=ray.tune.FailureConfig(max_failures=sweep.budget.retries),
            # A trial that failed may have no checkpoint at all.
            checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # At the end Ray Tune reads its own error files again, and on a full disk one may be cut off. Our records, and the
    # error raised while they were written, say more.
    try:
        with contextlib.suppress(UnpicklingError, EOFError):
            tuner.fit()
    except ray.tune.TuneError as error:
        raise sweep_driver.failure or error from None
