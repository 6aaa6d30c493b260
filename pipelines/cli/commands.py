"""The commands. Each checks its settings and inputs before anything starts."""

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from objgan.config import STAGES, Config
from objgan.errors import InputError
from objgan.files import copy_folder
from objgan.generation import ObjGAN
from objgan.languages import check_language
from objgan.sections import ComputeConfig
from pipelines.cli import options as cli
from pipelines.cli import train as train_command
from pipelines.cli.coco_source import source_of
from pipelines.cli.options import with_workers
from pipelines.data.prepare.prepare import Options
from pipelines.data.prepare.prepare import check as check_prepare
from pipelines.data.prepare.prepare import prepare as prepare_data
from pipelines.data.prepare.vector_sources import default_vectors
from pipelines.data.sample import make_sample
from pipelines.data.shards.manifest import MANIFEST
from pipelines.evaluation.evaluate import evaluate as evaluate_model
from pipelines.evaluation.evaluate import log_to_version, save
from pipelines.evaluation.judge_training import judge_jobs
from pipelines.evaluation.judges import JudgePaths
from pipelines.evaluation.prompts_file import NO_PROMPTS, read_prompts_file
from pipelines.evaluation.protocols import protocol
from pipelines.evaluation.worker import Evaluation, OpenEvaluation
from pipelines.models.champion import is_version, model_named
from pipelines.models.generate import GenerateJob, local_model
from pipelines.models.generate import generate as generate_pictures
from pipelines.models.registry import assemble
from pipelines.models.registry import register as register_model
from pipelines.recipes import resolve, to_yaml
from pipelines.redaction import place_of
from pipelines.runs.status import FILE as STATUS
from pipelines.runs.status import JobStatus
from pipelines.runtime.console import lines_with, say
from pipelines.runtime.ray_job import refuse_reuse
from pipelines.runtime.ray_session import check_resources, check_without_work, ray_session
from pipelines.storage.fetching import at_hand
from pipelines.storage.file_lock import exclusive
from pipelines.storage.lease import Lease, check_free
from pipelines.storage.retry import Work, only_logged
from pipelines.storage.storage import RUNS, Storage
from pipelines.tracking.tracker import ask_server, check_store, prepare_store, tracked_run, tracking_uri
from pipelines.training.driver import train as train_stage
from pipelines.training.job import SETTINGS_FILE, best_checkpoint, check_groups, open_run
from pipelines.workflow.run import Run, Sample, describe_run, execute, model_folder, sample_source, stage_config
from pipelines.workflow.steps import Plan

DEMO_CAPTIONS = (
    "two red kites above a boat on the sea",
    "a large pizza next to a clock on the grass",
    "a blue car and a stop sign on the street",
    "three white sheep in the snow under a green umbrella",
)


def demo(options: cli.DemoOptions) -> None:
    """`run` on sample data, then images for four captions."""
    work = _execute(options, Run(_config(options), options.out, Sample(options.images)))
    if work is None:
        return
    job = GenerateJob(str(model_folder(work)), DEMO_CAPTIONS, options.out / "pictures")
    *_, sheet = generate_pictures(job)
    say(f"\ncontact sheet: {sheet}")
    say(f"MLflow:        {_mlflow_command(tracking_uri(RUNS))}")
    say('your own:      .venv/bin/python -m pipelines generate "a large pizza on the grass" --out runs/mine')


def run(options: cli.RunOptions) -> None:
    """All steps, from COCO files or sample data to a registered model."""
    config, source = _config(options), source_of(options) or Sample()
    prompts = read_prompts_file(options.prompts) if options.prompts else NO_PROMPTS
    with at_hand("--judges", options.judges) as judges:
        work = _execute(options, Run(config, options.out, source, options.name, options.alias, judges, prompts))
    if work is None:
        return
    say(f"model:  {model_folder(work)}, registered as models:/{options.name}@{options.alias}")
    say(f"pictures: {work.folder('evaluate') / 'details'}")
    say(f"MLflow: {_mlflow_command(tracking_uri(RUNS))}")


def _execute(options: cli.RunOptions | cli.DemoOptions, run_: Run) -> Plan | None:
    """Do all steps; with `--dry-run` check them, and return None."""
    if _dry(options, run_.config):
        _check_run(options, run_)
        return None
    uri = tracking_uri(RUNS)
    ask_server(uri, Storage(run_.out))
    with ray_session(options.address):
        check_resources(run_.config.compute)
        return execute(run_, uri, options.wait)


def settings(options: cli.ShowSettingsOptions) -> None:
    """Print only the settings; `--dry-run` of other commands also checks data, runs and clusters."""
    say(to_yaml(_config(options)))


def sample(options: cli.SampleOptions) -> None:
    """Draw the embedded data set."""
    if options.dry_run:
        say(f"would draw {options.images} images from seed {options.seed} into {options.out}")
        return
    with Work() as work:

        def progress(done: int, total: int) -> None:
            work.advance()
            if done == total or done % max(1, total // 10) == 0:
                say(f"drawn {done}/{total}")

        make_sample(options.out, options.images, options.seed, progress=progress)
    say(f"{options.images} images with instances and captions: {options.out}")


def prepare(options: cli.PrepareOptions) -> None:
    """Convert COCO files to shards."""
    config, source = _config(options), source_of(options)
    vectors = options.vectors or default_vectors(config.data.language)
    how = Options(options.format, options.strict, options.retry_rejected, vectors)
    if _dry(options, config):
        check_held(options, MANIFEST)
        if options.address is not None:
            check_without_work(config.compute.model_copy(update={"workers": 1}), options.address)
        if source is not None:
            with lines_with(prefix="# "):
                check_prepare(source, options.out, config, how)
        return
    with held(options, "prepare", MANIFEST) as job_status, ray_session(options.address):
        if source is None:
            drawn = Sample()
            make_sample(options.out / "sample-coco", drawn.images, drawn.seed)
            source = sample_source(options.out / "sample-coco")
        prepare_data(source, options.out, config, options=replace(how, job_status=job_status))


def train(options: cli.TrainOptions) -> None:
    """Train or resume one stage."""
    config = _config(options)
    _dry(options, config)
    train_command.train(options, config)


def evaluate(options: cli.EvaluateOptions) -> None:
    """Measure a finished model."""
    uri = tracking_uri(RUNS)
    named = model_named(options.model, uri)
    with evaluation_of(options, named, uri) as evaluation:
        opened = OpenEvaluation(evaluation, device="cpu")
        with held(options, "evaluate") as job_status, ray_session(options.address):
            check_resources(ComputeConfig(workers=options.workers, device="cpu"))
            result = evaluate_model(opened, job_status=job_status)
            save(result, options.out, place_of(str(named)))
            if is_version(named):
                with only_logged(f"cannot log the metrics to the run of {named}"):
                    log_to_version(options.out, evaluation.model, evaluation.data, str(named), uri)
    say(result.text())
    say(f"metrics, samples and pictures: {options.out}")


@contextlib.contextmanager
def evaluation_of(options: cli.MeasuredOptions, model: Path | str, uri: str) -> Iterator[Evaluation]:
    """The evaluation of a model that a command's options ask for; model and judges are on this machine for the block.

    Raises:
        InputError: an unknown protocol, a wrong file of prompts, no model or no judges there.
    """
    prompts = read_prompts_file(options.prompts) if options.prompts else NO_PROMPTS
    wanted = protocol(options.protocol)
    with local_model(model, uri) as folder, at_hand("--judges", options.judges) as judges:
        paths = JudgePaths(judges, options.inception, options.detector)
        yield Evaluation(folder, options.data, wanted, options.seed, options.workers, paths, prompts=prompts)


def judges(options: cli.JudgesOptions) -> None:
    """Train or resume the second encoders and the judge of objects."""
    config = _config(options)
    dry = _dry(options, config)
    jobs, skipped = judge_jobs(config, options.data, options.out)
    runs = {name: open_run(job) for name, job in jobs.items()}
    uri, first = tracking_uri(RUNS), next(iter(runs.values())).store
    if dry:
        check_held(options)
        check_without_work(config.compute, options.address)
        check_store(uri, first)
        return
    ask_server(uri, first)
    with held(options, "judges"), ray_session(options.address):
        check_resources(config.compute)
        prepare_store(uri, first)
        for name, run in runs.items():
            with tracked_run(uri, name, run.store, {"objgan.step": name}) as tracking:
                done = train_stage(run, tracking=tracking)
            copy_folder(done.checkpoint, options.out / name)
            measures = "  ".join(f"{measure} {value:.4f}" for measure, value in done.measures.items())
            say(f"{name}: {options.out / name} (step {done.step}); held out: {measures}")
    for name, why in skipped.items():
        say(f"{name}: skipped, {why}")


def register(options: cli.RegisterOptions) -> None:
    """Register a model folder, or the stages of a run."""
    uri = tracking_uri(RUNS)
    if options.model is not None and options.run is not None:
        raise InputError("register: give --model LOCATION or --run ID, not both")
    if options.model is None and options.run is None:
        raise InputError("register: give --model LOCATION or --run ID")
    with local_model(options.model or _assemble_run(str(options.run)), uri) as folder:
        ObjGAN.load(folder, device="cpu")
        prepare_store(uri)
        done = register_model(folder, name=options.name, alias=options.alias, tracking_uri=uri)
    say(done.text(options.alias))


@contextlib.contextmanager
def held(options: cli.HeldOptions | cli.GenerateOptions, stage: str, *marks: str) -> Iterator[JobStatus]:
    """Hold the folder `--out`: by a lock on this machine, by a lease among machines.

    marks: files of a finished folder; one that has them keeps no status
    """
    store = Storage(options.out)
    lock = exclusive(options.out) if isinstance(options.out, Path) else contextlib.nullcontext()
    with lock, Lease.acquire(store, wait=options.wait):
        refuse_reuse(store, *marks)
        try:
            with JobStatus(store, stage, None if stage == "judges" else Path(store.path).resolve().name) as job_status:
                yield job_status
        finally:
            quick = store.patient(1.0)
            with contextlib.suppress(OSError, InputError):
                if any(map(quick.exists, marks)):
                    quick.delete(STATUS)


def check_held(options: cli.HeldOptions | cli.GenerateOptions, *marks: str) -> None:
    """Make the checks of `held`, without writing anything."""
    store = Storage(options.out)
    check_free(store)
    refuse_reuse(store, *marks)
    store.check_unchanged()


def _config(options: cli.SettingsOptions) -> Config:
    least, most = (isinstance(options, cli.WorkersOptions) and options.workers) or (None, None)
    workers = [] if least is None else [f"compute.workers={least}", f"compute.max_workers={most or 'null'}"]
    config = resolve(options.recipe, options.config, with_workers(options.assignments, workers))
    check_language(config.data.language)
    return config


def _dry(options: cli.DryRunOptions, config: Config) -> bool:
    if options.dry_run:
        say(to_yaml(config))
    return options.dry_run


def _check_run(options: cli.RunOptions | cli.DemoOptions, run_: Run) -> None:
    """Print the steps, and make all checks of `run` before its first step, without writing anything."""
    work, config = run_.plan(), run_.config
    say("\n".join(f"# {line}" for line in describe_run(run_, work).splitlines()))
    for stage in config.stages:
        check_groups(stage_config(config, stage), stage)
    check_held(options, "config.json")
    check_without_work(config.compute, options.address)
    check_store(tracking_uri(RUNS), Storage(run_.out))
    if not isinstance(run_.source, Sample) and work.result("prepare") is None:
        out, how = work.folder("prepare") / "data", Options(all_stages=True)
        with lines_with(prefix="# "):
            check_prepare(run_.source, out, config, how)


def _assemble_run(run_: str) -> Path:
    from objgan.checkpoint import read_config

    def checkpoint(stage: str) -> Path:
        return best_checkpoint(Storage(RUNS), run_, stage, f"train {stage} --run {run_}")

    folder, last = RUNS / run_, checkpoint(STAGES[-1])
    config = read_config(last)
    checkpoints = {stage: checkpoint(stage) for stage in config.stages}
    with Lease.acquire(Storage(folder)):
        settings_ = Storage(folder).child(STAGES[-1]).json(SETTINGS_FILE) or {}
        assemble(config, last, checkpoints, folder, {"data": settings_.get("data")})
    return folder / "model"


def _mlflow_command(uri: str) -> str:
    return f".venv/bin/mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri.startswith("sqlite") else uri
