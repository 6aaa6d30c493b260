"""The sweep command. It makes all checks before anything starts."""

import logging
import shlex
from dataclasses import replace

from objgan.errors import InputError
from pipelines.runs.sweeps import needed_to_resume, resume_command
from pipelines.runtime.console import say
from pipelines.runtime.ray_job import refuse_reuse
from pipelines.runtime.ray_session import own_cores, ray_session
from pipelines.storage.lease import Lease
from pipelines.storage.storage import RUNS, Storage
from pipelines.tracking.tracker import tracking_uri
from pipelines.training.job import best_checkpoint
from pipelines.training.supervisor import INTERRUPTED, TERMINATED
from tune.cli.arguments import SweepOptions
from tune.cli.artifacts import log_confirmed, log_registered, write_outcome
from tune.cli.estimate import own_resources, plan_text
from tune.cli.options import sweep_of
from tune.confirm import result as confirmation
from tune.confirm.promote import ALIAS, find_candidate, promote
from tune.confirm.retrain import confirm
from tune.engine.engine import run_sweep
from tune.engine.preflight import check_sweep
from tune.report.export import best_trial, export_recipe
from tune.report.study_log import StudyLog
from tune.report.tables import summary, table
from tune.sweep.resources import plan_resources
from tune.sweep.results import SweepResult
from tune.sweep.spec_file import FILE
from tune.sweep.sweep import Sweep
from tune.sweep.tracking import TrialRuns, sweep_run
from tune.sweep.trial_store import ENDED, load_result

logger = logging.getLogger(__name__)
_FEW_REPORTS = 4


class SweepStopped(SystemExit):
    """The sweep ended with unfinished trials: it was stopped, or trials crashed. All results are stored."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(code)
        self.text = text

    def __str__(self) -> str:
        return self.text


def sweep(options: SweepOptions) -> None:
    """Run or resume a sweep; then confirm, export and register its best trial."""
    asked, begun = sweep_of(options)
    reports = check_sweep(asked).reports
    if asked.scheduler == "asha" and reports < _FEW_REPORTS:
        logger.warning(
            f"a trial of stage {asked.stage} reports {reports} times; asha needs {_FEW_REPORTS} or more to "
            f"compare trials more than once: lower {asked.stage}.training.checkpoint_every, or use --scheduler median"
        )
    if asked.goal.requires and asked.scheduler != "none":
        logger.warning(
            f"{asked.scheduler} compares {asked.goal.metric} alone, and may give up trials that would keep "
            f"{asked.goal.requires[0]}: consider --scheduler none"
        )
    _check_afterwards(options, asked)
    if options.dry_run:
        _dry_run(options, asked)
        return
    if (cores := own_cores(options.address)) is not None:
        plan_resources(asked, own_resources(), cores)
    if options.resume is None:
        refuse_reuse(asked.store(), FILE)
    uri = tracking_uri(RUNS)
    # The lease comes first: a refused driver must not change the MLflow runs of the holder.
    with Lease.acquire(asked.store()) as lease, sweep_run(asked, uri) as tracked:
        result = _run(options, tracked, begun, lease)
        say(f"\n{table(result, tracked.goal)}\n\n{summary(tracked, result)}")
        if result.state in ("interrupted", "incomplete"):
            raise _stopped(options, tracked, result)
        if result.reason is not None:
            say(f"to resume: {resume_command(options.storage, tracked.run)} with {needed_to_resume(result.reason)}")
        _afterwards(options, tracked, result, uri)
    say(f"sweep:    {asked.store()} (pictures, trials.csv, best.yaml)")
    say(f"MLflow:   {_mlflow_command(uri)}")


def _run(options: SweepOptions, tracked: Sweep, begun: bool, lease: Lease) -> SweepResult:
    observer = TrialRuns(tracked)
    try:
        result = run_sweep(tracked, [observer, StudyLog(tracked)], options.address, resume=begun, lease=lease)
    finally:
        stored = load_result(tracked.store())
        observer.close(() if stored is None else stored.trials)
    write_outcome(tracked, result)
    return result


def _afterwards(options: SweepOptions, tracked: Sweep, result: SweepResult, uri: str) -> None:
    if options.export_recipe is not None:
        export_recipe(tracked, result, options.export_recipe)
    confirmed = _confirm(options, tracked, result) if options.confirm else None
    if options.register is None:
        return
    if confirmed is not None and confirmed.outcome == "worse":
        say("not registered, because the recipe's settings are better")
        return
    done = promote(find_candidate(tracked, best_trial(tracked, result), options.rest), options.register, uri, confirmed)
    log_registered(tracked, done.uri)
    say(done.text(ALIAS))


def _confirm(options: SweepOptions, tracked: Sweep, result: SweepResult) -> confirmation.Confirmed:
    best = best_trial(tracked, result)
    with ray_session(options.address):
        import ray

        # As many runs at once as trials would fit.
        planned = replace(tracked, budget=replace(tracked.budget, trials=2 * options.confirm))
        allotment = plan_resources(planned, ray.cluster_resources(), own_cores(options.address))
        logger.info(f"\nconfirm: trial {best.number}'s settings and the recipe's, {options.confirm} other seeds each")
        confirmed = confirm(tracked, best, options.confirm, allotment)
    confirmation.save(confirmed, tracked.store())
    log_confirmed(tracked, confirmed)
    say(f"\n{confirmed.text()}")
    return confirmed


def _check_afterwards(options: SweepOptions, asked: Sweep) -> None:
    if options.rest is None:
        return
    if options.register is None:
        raise InputError("--rest goes with --register NAME: it names the run with the other stages of the model")
    own = {*asked.stages, *(["encoders"] if asked.encoders is not None else [])}
    for stage in asked.config.stages:
        if stage not in own:
            advice = f"train it first (train {stage} --run {options.rest}), or leave out --rest"
            best_checkpoint(Storage(asked.storage), options.rest, stage, advice)


def _dry_run(options: SweepOptions, asked: Sweep) -> None:
    if options.address is None:
        cluster = own_resources()
    else:
        with ray_session(options.address):
            import ray

            cluster = ray.cluster_resources()
    text, fits = plan_text(asked, cluster, options.address, options.confirm)
    say(text)
    if not fits:
        raise InputError('not enough resources for this sweep; see the line "room" above')


def _stopped(options: SweepOptions, tracked: Sweep, result: SweepResult) -> SweepStopped:
    ended = sum(trial.state in ENDED for trial in result.trials)
    crashed = [trial for trial in result.trials if trial.state == "crashed"]
    why = f", {len(crashed)} crashed (trial {crashed[-1].number}: {crashed[-1].error})" if crashed else ""
    how = resume_command(options.storage, tracked.run)
    text = f"{ended} of {tracked.budget.trials} trials ended{why}; resume with: {how}"
    return SweepStopped(text, {INTERRUPTED: 130, TERMINATED: 143}.get(str(result.reason), 1))


def _mlflow_command(uri: str) -> str:
    return f".venv/bin/mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri.startswith("sqlite") else uri
