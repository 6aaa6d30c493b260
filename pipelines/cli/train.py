"""`train`: makes a job of its options and checks it; then trains, replays a step or profiles."""

import shlex
import tempfile
from pathlib import Path

from objgan.config import Config
from objgan.stages import stage_class
from pipelines.cli.options import TrainOptions
from pipelines.evaluation.image_judges import ImageJudges
from pipelines.redaction import typed_again
from pipelines.runtime.console import say
from pipelines.runtime.ray_job import refuse_reuse
from pipelines.runtime.ray_session import check_resources, check_without_work, ray_session
from pipelines.storage.fetching import fetched
from pipelines.storage.lease import Lease, check_free
from pipelines.storage.storage import RUNS, Storage
from pipelines.tracking.tracker import check_store, prepare_store, tracked_run, tracking_uri
from pipelines.training.driver import train as train_stage
from pipelines.training.job import SETTINGS_FILE, OpenRun, TrainJob, best_checkpoint, needed_stages, open_run
from pipelines.training.profiling import profile_steps
from pipelines.training.replay import check_replay, replay


def train(options: TrainOptions, config: Config) -> None:
    """Train, replay or profile; with `--dry-run`, only check.

    Raises:
        InputError: a check failed.
    """
    stage_class(options.stage)
    if options.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            _check(options, config, Path(scratch))
        return
    if options.replay is not None:
        with tempfile.TemporaryDirectory() as scratch:
            replay(fetched("--replay", options.replay, Path(scratch)), _replay_needs(options, RUNS))
        return
    run = open_run(_job(options, config))
    if options.profile:
        trace = run.job.folder / "profile" / "trace.json"
        say(profile_steps(run, trace))
        say(f"trace: {trace} (open it in https://ui.perfetto.dev)")
        return
    _train(options, run)


def _check(options: TrainOptions, config: Config, scratch: Path) -> None:
    """Make all checks of the command, without writing anything."""
    if options.replay is not None:
        check_replay(fetched("--replay", options.replay, scratch), _replay_needs(options, scratch))
        say(f"# would repeat the step in {typed_again(str(options.replay))}")
        return
    run = open_run(_job(options, config, scratch))
    store = run.store
    if not options.profile:
        check_free(store)
        refuse_reuse(store, SETTINGS_FILE)
        store.check_unchanged()
        check_without_work(config.compute, options.address)
        check_store(tracking_uri(RUNS), store)
    newest = run.checkpoints.newest(set_aside=False)
    begun = f"resume from {newest[0]}" if newest else "begin"
    say(f"# {options.stage}: would {begun} in {store}, {run.steps} steps in total, on data {run.job.data}")


def _replay_needs(options: TrainOptions, near: Path) -> dict[str, Path]:
    encoders = options.encoders
    return {} if encoders is None else {"encoders": fetched("--encoders", encoders, near / options.run / "encoders")}


def _train(options: TrainOptions, run: OpenRun) -> None:
    uri, store = tracking_uri(RUNS), run.store
    tags = {"objgan.run": options.run, "objgan.step": options.stage}
    # The lease comes first: a refused driver must not change the MLflow run of the holder.
    with Lease.acquire(store, wait=options.wait) as lease:
        refuse_reuse(store, SETTINGS_FILE)
        prepare_store(uri, store)
        with ray_session(options.address):
            check_resources(run.job.config.compute)
            with tracked_run(uri, f"{options.run}-{options.stage}", store, tags) as tracking:
                done = train_stage(run, lease, tracking=tracking)
    say(f"{options.stage}: best checkpoint {done.checkpoint} (step {done.step})")


def _job(options: TrainOptions, config: Config, near: Path = RUNS) -> TrainJob:
    root = Storage(options.storage)
    store = root.child(options.run).child(options.stage)
    local, init_from, judges = store.local, options.init_from, options.judges
    if init_from is not None:
        init_from = fetched("--init-from", init_from, near / options.run / "init_from")
    if judges is not None:
        judges = fetched("--judges", judges, near / options.run)
    return TrainJob(
        options.stage,
        config,
        options.data,
        RUNS / options.run / options.stage if local is None else local,
        {name: _checkpoint(options, root, name, near) for name in needed_stages(config, options.stage)},
        storage=None if local is not None else store.uri,
        init_from=init_from,
        judges=None if judges is None else ImageJudges(judges),
    )


def _checkpoint(options: TrainOptions, root: Storage, stage: str, near: Path) -> Path:
    """The checkpoint of an earlier stage: the given one, or the best one of the same run."""
    if options.encoders is not None:
        return fetched("--encoders", options.encoders, near / options.run / "encoders")
    where = "" if options.storage == "runs" else f" --storage {shlex.quote(typed_again(options.storage))}"
    advice = f"train it first (train {stage} --run {options.run}{where}) or give --{stage} DIR"
    return best_checkpoint(root, options.run, stage, advice)
