"""`generate`: files of pictures for a few captions, or shards of pictures for many."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from objgan.errors import InputError
from objgan.generation import Generated, ObjGAN
from objgan.sections import ComputeConfig
from objgan.serving import INPUTS
from pipelines.cli import options as cli
from pipelines.cli.commands import check_held, held
from pipelines.evaluation.judges import JUDGE
from pipelines.evaluation.trained_judges import ObjectJudge
from pipelines.generation.bulk import (
    MANIFEST,
    SETTINGS,
    BulkJob,
    Opened,
    find_finished,
    generate_shards,
    open_bulk,
    run_on_ray,
)
from pipelines.models.champion import model_named
from pipelines.models.generate import GenerateJob, local_model, read_captions
from pipelines.models.generate import generate as generate_pictures
from pipelines.runtime.console import say
from pipelines.runtime.ray_job import refuse_reuse
from pipelines.runtime.ray_session import check_resources, check_without_work, ray_session
from pipelines.storage.fetching import at_hand
from pipelines.storage.storage import RUNS
from pipelines.tracking.tracker import tracking_uri

_BULK = (
    *(f"{name}_column" for name in INPUTS),
    *("workers", "device", "shard_rows", "address", "wait", "dry_run"),
)
"""Options that only shards have."""


def generate(options: cli.GenerateOptions) -> None:
    """Generate images for captions.

    Raises:
        InputError: options that do not fit together, or wrong input.
    """
    if options.makes_shards:
        return _generate_shards(options)
    for name in _BULK:
        if getattr(options, name) not in (None, False):
            raise InputError(f"--{name.replace('_', '-')} is for Parquet shards of --captions LOCATION: leave it out")
    if options.format == "parquet":
        raise InputError("--format parquet needs --captions LOCATION")
    if not isinstance(options.out, Path):
        raise InputError(
            f"--out {options.out.partition('://')[0]}://...: files of pictures need a path; shards take a URI"
        )
    captions = []
    if options.captions is not None:
        if not isinstance(options.captions, Path):
            raise InputError("--format png takes --captions from a text file on this machine, no URI")
        captions = read_captions(options.captions)
    captions += [options.caption] if options.caption is not None else []
    uri = tracking_uri(RUNS)
    model = model_named(options.model, uri)
    job = GenerateJob(model, tuple(captions), options.out, options.n, options.seed, options.layout, uri)
    with at_hand("--judges", options.judges) as judges:
        generate_pictures(job, None if judges is None else partial(_judge_of, judges / JUDGE))


def _judge_of(folder: Path, model: ObjGAN) -> Callable[[Generated], str]:
    judge = ObjectJudge(folder, model)
    return lambda one: judge.describe(one.image, one.layout)


def _generate_shards(options: cli.GenerateOptions) -> None:
    if options.judges is not None:
        raise InputError("--judges is for files of pictures, not for shards: leave it out")
    for name, other in (("CAPTION", options.caption), ("--layout", options.layout)):
        if other is not None:
            raise InputError(f"--captions and {name} exclude each other; layouts may be a column of the captions")
    uri = tracking_uri(RUNS)
    with local_model(model_named(options.model, uri), uri) as model:
        opened = open_bulk(_job(options, model))
        if options.dry_run:
            return _check(options, opened)
        refuse_reuse(opened.out, SETTINGS)
        with held(options, "generate", MANIFEST) as job_status, contextlib.ExitStack() as stack:
            done = find_finished(opened)
            if len(done) < len(opened.plan.parts):
                stack.enter_context(ray_session(options.address))
                compute = ComputeConfig(workers=options.workers or 1, device=opened.device)
                opened = opened.on("cuda" if check_resources(compute) else "cpu")
            generate_shards(opened, lambda job, parts: run_on_ray(job, parts, options.workers), job_status, done)


def _job(options: cli.GenerateOptions, model: Path) -> BulkJob:
    assert options.captions is not None
    return BulkJob(
        model=model,
        captions=options.captions,
        out=options.out,
        columns={name: getattr(options, f"{name}_column") for name in INPUTS},
        n=options.n,
        seed=options.seed,
        shard_rows=options.shard_rows,
        device=options.device or "auto",
    )


def _check(options: cli.GenerateOptions, opened: Opened) -> None:
    """Make all checks of the command, without writing anything."""
    check_held(options, SETTINGS)
    check_without_work(ComputeConfig(workers=options.workers or 1, device=opened.device), options.address)
    done = len(find_finished(opened))
    say(f"would make {len(opened.plan.parts) - done} shards in {opened.out}; {done} are finished")
