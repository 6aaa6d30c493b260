"""Commands that only read prepared data. They do not import Ray."""

import json

from objgan.errors import InputError
from objgan.files import write_atomically
from pipelines.cli.options import InspectOptions, VerifyOptions
from pipelines.data.report.survey import survey
from pipelines.data.report.table import lines, numbers
from pipelines.data.shards.manifest import SPLITS
from pipelines.data.verify.verify import verify as verify_data
from pipelines.runtime.console import say


def verify(options: VerifyOptions) -> None:
    """Report all faults of prepared data."""
    found = verify_data(options.data, options.processes)
    say(found.summary())
    if found.faults:
        raise InputError(f"data: {found.where} is damaged: copy these files again, or prepare into another folder")


def inspect(options: InspectOptions) -> None:
    """Print statistics, and write a page with plots and samples."""
    splits = SPLITS if options.split is None else (options.split,)
    found = survey(options.data, options.samples, options.seed, splits)
    # Imports torch, for the colours of the drawings: an error above should not wait for it.
    from pipelines.data.report.page import page

    drawn = f"{len(found.samples)} of {found.total.images:,} images, drawn by seed {options.seed}"
    try:
        write_atomically(options.out, page(found, drawn))
    except OSError as error:
        raise InputError(f"--out: cannot write {options.out} ({error.strerror}): choose another file") from None
    if options.json:
        say(json.dumps({**numbers(found), "page": str(options.out)}, ensure_ascii=False, indent=1))
        return
    for line in lines(found):
        say(line)
    say(f"\npage: {options.out} ({options.out.stat().st_size / 1e6:.1f} MB, {len(found.samples)} samples)")
