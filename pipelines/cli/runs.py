"""`python -m pipelines runs [list|status|gc|send|relocate]` and `check-mlflow`, which do not import Ray."""

import json

from objgan.config import STAGES
from objgan.errors import InputError
from pipelines.cli.options import CheckMlflowOptions, RunsOptions
from pipelines.redaction import place_of
from pipelines.runs.listing import choose, describe, find_runs, name_within, table
from pipelines.runs.sweeps import find_sweep
from pipelines.runtime.console import say
from pipelines.storage.storage import RUNS, Storage
from pipelines.tracking.mlflow_client import sqlite_path
from pipelines.tracking.offline_queue import shown
from pipelines.tracking.relocation import relocate
from pipelines.tracking.tracker import known_run, prepare_store, tracking_uri


class NotSent(SystemExit):
    """MLflow is still unreachable."""

    def __str__(self) -> str:
        return "MLflow is not reachable"


def runs(options: RunsOptions) -> None:
    """List runs, show one, remove leftovers, upload queued metrics to MLflow, or correct a moved store.

    Raises:
        InputError: no such run, a missing name, or a store that cannot be corrected.
        NotSent: MLflow is still unreachable.
    """
    base = Storage(options.storage)
    if options.action == "list":
        _list(base, options.json)
        return
    if options.action == "gc":
        _tidy(base, options.dry_run)
        return
    if options.action == "relocate":
        _relocate(options.dry_run)
        return
    if options.run is None:
        known = ", ".join(info.name for info in find_runs(base)[:20]) or "none"
        raise InputError(f"runs {options.action}: name a run; runs in {shown(base)}: {known}")
    if options.action == "status":
        _status(base, options.run, options.json)
    else:
        _send(base, options.run)


def check_mlflow(options: CheckMlflowOptions) -> None:
    """Check that MLflow is reachable; a run that began before may continue without it.

    Raises:
        InputError: it is unreachable, and no stage of the run has begun.
    """
    stores = [Storage(options.storage).child(options.run).child(stage) for stage in STAGES] if options.run else []
    begun = next((store for store in stores if known_run(store) is not None), None)
    try:
        prepare_store(tracking_uri(RUNS))
    except InputError as error:
        if begun is None:
            raise
        say(f"{error}; the run has begun, so its metrics are queued until MLflow is reachable")
        return
    say("MLflow is reachable")


def _list(base: Storage, as_json: bool) -> None:
    runs = find_runs(base)
    if as_json:
        say(json.dumps([info.facts() for info in runs], indent=1))
    else:
        say(table(runs) if runs else f"no runs in {shown(base)}")


def _tidy(base: Storage, dry: bool) -> None:
    from pipelines.runs.cleanup import collect, collect_models, reconcile  # imports torch: a second

    uri = tracking_uri(RUNS)
    collect(base, dry)
    collect_models(uri, dry)
    reconcile(base, uri, dry)


def _relocate(dry: bool) -> None:
    uri = tracking_uri(RUNS)
    store = sqlite_path(uri)
    if store is None:
        raise InputError(f"runs relocate: {place_of(uri)} is no sqlite store: set MLFLOW_TRACKING_URI to one")
    old, new, changed = relocate(store, dry)
    say(f"{'would change' if dry else 'changed'} {changed} places of files: {old} -> {new}")


def _send(base: Storage, run: str) -> None:
    from pipelines.runs.cleanup import send

    if not send(base, run, tracking_uri(RUNS)):
        raise NotSent(1)


def _status(base: Storage, wanted: str, as_json: bool) -> None:
    name = name_within(base, wanted)
    if (sweep := find_sweep(base, name)) is not None:
        trials = [info for info in find_runs(base) if info.name.startswith(f"{name}/")]
        if as_json:
            say(json.dumps({**sweep.facts(), "runs": [info.facts() for info in trials]}, indent=1))
        else:
            say("\n\n".join([sweep.text(), *([table(trials)] if trials else [])]))
        return
    chosen = choose(base, wanted)
    if as_json:
        facts = [info.facts() for info in chosen]
        say(json.dumps(facts[0] if len(facts) == 1 else facts, indent=1))
    else:
        say("\n\n".join(describe(info) for info in chosen))
