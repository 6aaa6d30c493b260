"""The commands `show` and `space`, which do not import Ray."""

import json
import sys
import time

from objgan.errors import InputError
from objgan.files import write_atomically
from pipelines.recipes import resolve
from pipelines.runs.sweeps import find_sweep
from pipelines.runtime.console import say
from pipelines.storage.storage import Storage
from tune.cli.arguments import ShowOptions, SpaceOptions
from tune.confirm import result as confirmation
from tune.report.export import export_recipe
from tune.report.tables import rows, summary, table
from tune.space.default_space import default_space
from tune.space.file import write_space
from tune.sweep.results import SweepResult, Trial
from tune.sweep.spec_file import known_sweep
from tune.sweep.sweep import Sweep
from tune.sweep.trial_store import load_result

_POLL_S = 2.0
"""Seconds between two reads of a sweep's storage."""
_PICTURES_S = 30.0
"""Seconds between two drawings of its plots, which take some seconds of a core."""


def show(options: ShowOptions) -> None:
    """Show a sweep, running or not."""
    sweep = known_sweep(options.storage, options.run)
    store = sweep.store()
    if options.follow:
        if options.json:
            raise InputError("--follow shows a table: leave out --json")
        _follow(sweep, options.pictures)
    result = load_result(store)
    if result is None:
        raise InputError(f"{store}: the sweep has no trials yet")
    if options.json:
        facts = {"state": result.state, "seconds": result.seconds, "trials": rows(result, sweep.goal)}
        say(json.dumps(facts, indent=1))
    else:
        say(f"{table(result, sweep.goal)}\n\n{summary(sweep, result)}")
        if (info := find_sweep(Storage(options.storage), options.run)) is not None and info.to_resume:
            say(f"to resume: {info.to_resume}")
        if (confirmed := confirmation.load(store)) is not None:
            say(f"\n{confirmed.text()}")
    if options.pictures:
        _draw(sweep, result)
    if options.export_recipe is not None:
        export_recipe(sweep, result, options.export_recipe)


def _draw(sweep: Sweep, result: SweepResult) -> None:
    # Imports plots: a second.
    from tune.cli.artifacts import write_outcome

    write_outcome(sweep, result)


def _follow(sweep: Sweep, pictures: bool) -> None:
    """Print the table whenever it changes, over the last one on a terminal, until the sweep no longer runs.

    pictures: draw the plots of changed tables, too
    """
    shown: str | None = None
    drawn: tuple[Trial, ...] = ()
    drawn_at = -_PICTURES_S
    while True:
        result = load_result(sweep.store())
        info = find_sweep(Storage(sweep.storage), sweep.run)
        if info is None or not info.alive or (result is not None and result.state != "running"):
            return
        text = "waiting for the first trial" if result is None else table(result, sweep.goal)
        if text != shown:
            # Clear the terminal, cursor to the top left.
            say(("\033[2J\033[H" if sys.stdout.isatty() else "") + text)
            shown = text
        due = pictures and time.monotonic() - drawn_at >= _PICTURES_S
        if due and result is not None and result.trials != drawn:
            _draw(sweep, result)
            drawn, drawn_at = result.trials, time.monotonic()
        time.sleep(_POLL_S)


def space(options: SpaceOptions) -> None:
    """Print the default space, or write it to a file."""
    head = f"# Search space of {' '.join(options.stages)}: edit it, and pass it with --space FILE.\n\n"
    config = resolve(options.recipe, options.config, options.assignments)
    text = head + write_space(default_space(options.stages, config, options.population))
    if options.out is None:
        sys.stdout.write(text)
        return
    if options.out.exists():
        raise InputError(f"--out: {options.out} exists, and may have been changed by hand: name another file")
    try:
        write_atomically(options.out, text)
    except OSError as error:
        raise InputError(f"--out: cannot write {options.out} ({error.strerror})") from None
