"""The commands `show` and `space`, which do not import Ray."""

import json
import sys

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
from tune.sweep.spec_file import known_sweep
from tune.sweep.trial_store import load_result


def show(options: ShowOptions) -> None:
    """Show a sweep, running or not."""
    sweep = known_sweep(options.storage, options.run)
    store = sweep.store()
    result = load_result(store)
    if result is None:
        raise InputError(f"{store}: the sweep has no trials yet")
    if options.json:
        print(
            json.dumps({"state": result.state, "seconds": result.seconds, "trials": rows(result, sweep.goal)}, indent=1)
        )
    else:
        say(f"{table(result, sweep.goal)}\n\n{summary(sweep, result)}")
        if (info := find_sweep(Storage(options.storage), options.run)) is not None and info.to_resume:
            say(f"to resume: {info.to_resume}")
        if (confirmed := confirmation.load(store)) is not None:
            say(f"\n{confirmed.text()}")
    if options.pictures:
        # Imports plots: a second.
        from tune.cli.artifacts import write_outcome

        write_outcome(sweep, result, say)
    if options.export_recipe is not None:
        export_recipe(sweep, result, options.export_recipe, say)


def space(options: SpaceOptions) -> None:
    """Print the default space, or write it to a file."""
    head = f"# Search space of {' '.join(options.stages)}: edit it, and pass it with --space FILE.\n\n"
    text = head + write_space(
        default_space(options.stages, resolve(options.recipe, options.config, options.assignments))
    )
    if options.out is None:
        sys.stdout.write(text)
        return
    if options.out.exists():
        raise InputError(f"--out: {options.out} exists, and may have been changed by hand: name another file")
    try:
        write_atomically(options.out, text)
    except OSError as error:
        raise InputError(f"--out: cannot write {options.out} ({error.strerror})") from None
