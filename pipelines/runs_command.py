"""`python -m pipelines runs [list|status|gc|send]`."""

import argparse
import json

from objgan.errors import InputError
from pipelines.backlog import shown
from pipelines.cleaning import collect, reconcile, send
from pipelines.progress import say
from pipelines.runs import choose, describe, find_runs, table
from pipelines.storage import Storage


class NotSent(SystemExit):
    """MLflow is still away."""

    def __str__(self) -> str:
        return "MLflow does not answer"


def runs_command(options: argparse.Namespace, uri: str) -> None:
    """Look at runs, tidy them up, or send what they kept for MLflow at `uri`.

    Raises:
        InputError: no such run, or none named where one is needed.
        NotSent: where MLflow still does not answer.
    """
    base = Storage(options.storage)
    if options.action == "list":
        _list(base, options.json)
        return
    if options.action == "gc":
        collect(base, options.dry_run, say)
        reconcile(base, uri, options.dry_run, say)
        return
    if options.run is None:
        known = ", ".join(seen.name for seen in find_runs(base)[:20]) or "none"
        raise InputError(f"runs {options.action}: say which run; known in {shown(base)} are {known}")
    if options.action == "status":
        _status(base, options.run, options.json)
    elif not send(base, options.run, uri, say):
        raise NotSent(1)


def _list(base: Storage, as_json: bool) -> None:
    runs = find_runs(base)
    if as_json:
        say(json.dumps([seen.facts() for seen in runs], indent=1))
    else:
        say(table(runs) if runs else f"no runs in {shown(base)}")


def _status(base: Storage, wanted: str, as_json: bool) -> None:
    chosen = choose(base, wanted)
    if as_json:
        facts = [seen.facts() for seen in chosen]
        say(json.dumps(facts[0] if len(facts) == 1 else facts, indent=1))
    else:
        say("\n\n".join(describe(seen) for seen in chosen))
