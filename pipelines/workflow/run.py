"""The whole way as steps: [sample], prepare, encoders, boxes, shapes, images, assemble, evaluate, register."""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from objgan.config import STAGES, Config, config_to_json
from objgan.domain import Domain
from objgan.files import sha256, write_atomically
from objgan.sections import ComputeConfig
from objgan.stages import stage_class
from pipelines.command_line import counted
from pipelines.data.loading.data_folder import open_data
from pipelines.data.loading.reader import ShardReader
from pipelines.data.prepare.card import source_lines
from pipelines.data.prepare.prepare import Options, prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.data.sample import make_sample
from pipelines.evaluation.evaluate import evaluate, log_to_version, save
from pipelines.evaluation.judge_training import identity
from pipelines.evaluation.judges import JudgePaths
from pipelines.evaluation.prompts_file import NO_PROMPTS, PromptsFile
from pipelines.evaluation.worker import Evaluation, OpenEvaluation
from pipelines.models.registry import assemble, register
from pipelines.runs.status import JobStatus
from pipelines.runtime.ray_job import refuse_reuse
from pipelines.storage.lease import Lease
from pipelines.storage.retry import Work
from pipelines.storage.storage import Storage
from pipelines.tracking.tracker import Tracking, prepare_store, tracked_run
from pipelines.training.driver import train
from pipelines.training.job import TrainJob, check_groups, needed_stages, open_run, stage_settings
from pipelines.workflow.steps import Action, Plan, Step, describe, plan, run_plan

logger = logging.getLogger(__name__)
DEFAULT_SAMPLE = 2000


@dataclass(frozen=True)
class Sample:
    """The embedded data set as a source: how many pictures, from which seed."""

    images: int = DEFAULT_SAMPLE
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """Everything that `run` does, as data; nothing happens before `execute`."""

    config: Config
    out: Path
    source: CocoSource | Sample = field(default_factory=Sample)
    model_name: str = "objgan"
    alias: str = "challenger"
    judges: Path | None = None
    """What the command `judges` wrote; without it no image is judged."""
    prompts: PromptsFile = NO_PROMPTS

    def plan(self) -> Plan:
        """The steps and where their results lie. Reads the source's files to identify them."""
        steps = [*self._data_steps(), *self._training_steps()]
        steps.append(Step("assemble", {}, ("prepare", *self.config.stages)))
        judged = {} if self.judges is None else {"judges": identity(self.judges)}
        asked = {"prompts": sha256(self.prompts.path)} if self.prompts.entries else {}
        steps.append(Step("evaluate", {"seed": self.config.seed, **judged, **asked}, ("assemble", "prepare")))
        steps.append(Step("register", {"name": self.model_name, "alias": self.alias}, ("assemble", "evaluate")))
        return plan(self.out, steps)

    def _data_steps(self) -> list[Step]:
        settings = {"data": self.config.data.model_dump(mode="json")}
        if isinstance(self.source, Sample):
            sample = Step("sample", {"images": self.source.images, "seed": self.source.seed})
            return [sample, Step("prepare", settings, ("sample",))]
        return [Step("prepare", {**settings, "source": self.source.digests()})]

    def _training_steps(self) -> list[Step]:
        return [
            Step(name, stage_settings(self.config, name), ("prepare", *needed_stages(self.config, name)))
            for name in self.config.stages
        ]


def execute(run: Run, uri: str, wait: float | None = None) -> Plan:
    """Do what is not done yet; after a kill the same call goes on. Returns the plan, all steps finished.

    wait: seconds to queue while another process works in the same folder

    Raises:
        InputError: wrong input, or another process works in the same folder.
    """
    check_workers(run.config)
    work = run.plan()
    logger.info(describe_run(run, work))
    store = Storage(run.out)
    with Lease.acquire(store, wait=wait), contextlib.ExitStack() as stack:
        refuse_reuse(store, "config.json")
        job_status = stack.enter_context(JobStatus(store, "run", None))
        prepare_store(uri, store)
        write_atomically(run.out / "config.json", config_to_json(run.config))
        tags = {"objgan.recipe": run.config.recipe}
        with tracked_run(uri, run.out.name, store, tags) as tracking:
            tracking.tracker().parameters({"recipe": run.config.recipe, "seed": run.config.seed})
            results = run_plan(work, _actions(run, work), uri, tracking.run or "", job_status.progress)
            _summarise(tracking, results)
    return work


def describe_run(run: Run, work: Plan) -> str:
    """One line per step, and one for each stage that the settings skip."""
    shapes, skipped = run.config.data.shapes, [stage for stage in STAGES if stage not in run.config.stages]
    reasons = [f"skipped  {stage:<10} data.shapes={shapes} stands in for masks" for stage in skipped]
    return "\n".join([describe(work), *reasons])


def stage_config(config: Config, stage: str) -> Config:
    """The settings with no more workers than the stage's batch has groups: `run` asks for them for all stages alike."""
    compute, groups = config.compute, getattr(config, stage).training.groups
    if compute.most_workers <= groups:
        return config
    most = None if compute.max_workers is None else min(compute.max_workers, groups)
    fitting = compute.model_copy(update={"workers": min(compute.workers, groups), "max_workers": most})
    return config.model_copy(update={"compute": fitting})


def check_workers(config: Config) -> None:
    """Check that the workers of each stage can share its batch, and log where they are fewer than requested."""
    for stage in config.stages:
        fitting, groups = stage_config(config, stage), getattr(config, stage).training.groups
        check_groups(fitting, stage)
        if fitting is not config:
            fewer, why = counted(groups, "worker"), f"a batch has only {counted(groups, 'group')}"
            logger.info(f"{stage}: using {fewer}, because {why} ({stage}.training.group)")


def _job_status(run: Run, folder: Path, stage: str) -> JobStatus:
    return JobStatus(Storage(folder), stage, run.out.resolve().name)


def _actions(run: Run, work: Plan) -> Mapping[str, Action]:
    actions: dict[str, Action] = {
        "sample": lambda step, folder, tracking: _sample(run, folder),
        "prepare": lambda step, folder, tracking: _prepare(run, work, folder, tracking),
        "assemble": lambda step, folder, tracking: assemble(
            run.config,
            _data(work),
            _checkpoints(work, run.config.stages),
            folder,
            {**data_sources(_data(work)), "identity": work.identities["assemble"]},
        ),
        "evaluate": lambda step, folder, tracking: _evaluate(run, work, folder, tracking),
        "register": lambda step, folder, tracking: _register(run, work, folder, tracking),
    }
    return actions | {
        name: lambda step, folder, tracking: _train(run, work, step, folder, tracking) for name in run.config.stages
    }


def _sample(run: Run, folder: Path) -> dict[str, Any]:
    assert isinstance(run.source, Sample)
    logger.info(f"drawing {run.source.images} pictures")
    with Work() as work:
        make_sample(folder / "coco", run.source.images, run.source.seed, progress=work.advance)
    return {}


def _prepare(run: Run, work: Plan, folder: Path, tracking: Tracking) -> dict[str, Any]:
    source = run.source
    if isinstance(source, Sample):
        source = sample_source(work.folder("sample") / "coco")
    with _job_status(run, folder, "prepare") as job_status:
        options = Options(job_status=job_status, all_stages=True)
        manifest = prepare(source, folder / "data", run.config, options=options)
    check_stages(run.config, folder / "data")
    tracking.tracker().dataset(manifest["digest"], str((folder / "data").resolve()), manifest["rows"])
    return {"digest": manifest["digest"]}


def check_stages(config: Config, data: Path) -> None:
    """Check, before the first stage is trained, that all stages can be.

    Raises:
        InputError: the data lack a column, or no usable image is left in a split.
    """
    folder = open_data(data, config.compute)
    for stage in config.stages:
        for split in ("train", "validation"):
            words = getattr(config, stage).training.max_words
            ShardReader(folder, split, stage_class(stage).columns, config, words)


def sample_source(folder: Path) -> CocoSource:
    """The files that `sample` writes, as a source."""
    annotations = folder / "annotations"
    return CocoSource(folder / "images", annotations / "instances.json", annotations / "captions.json")


def _train(run: Run, work: Plan, step: Step, folder: Path, tracking: Tracking) -> dict[str, Any]:
    # Their classes are known now, and evaluation, which reads them, comes after hours.
    run.prompts.prompts(Domain.load(_data(work) / "domain").classes)
    needs = _checkpoints(work, needed_stages(run.config, step.name))
    config = stage_config(run.config, step.name)
    done = train(open_run(TrainJob(step.name, config, _data(work), folder, needs)), tracking=tracking)
    return {"checkpoint": done.checkpoint.name, "at_step": done.step, "measures": done.measures}


def _evaluate(run: Run, work: Plan, folder: Path, tracking: Tracking) -> dict[str, Any]:
    workers = run.config.compute.workers
    evaluation = Evaluation(
        model_folder(work),
        _data(work),
        seed=run.config.seed,
        workers=workers,
        judges=JudgePaths(run.judges),
        prompts=run.prompts,
    )
    with _job_status(run, folder, "evaluate") as job_status:
        result = evaluate(OpenEvaluation(evaluation, device="cpu"), job_status=job_status)
    save(result, folder)
    logger.info(result.text())
    tracker = tracking.tracker()
    manifest = open_data(_data(work), run.config.compute).manifest
    tracker.dataset(manifest["digest"], str(_data(work).resolve()), manifest["rows"])
    tracker.metrics(result.means, 0)
    for name, image in result.pictures.items():
        tracker.picture(name, image, 0)
    return {"measures": result.means}


def _register(run: Run, work: Plan, folder: Path, tracking: Tracking) -> dict[str, Any]:
    done = register(
        model_folder(work),
        name=run.model_name,
        alias=run.alias,
        tracking_uri=tracking.uri,
        run_id=tracking.run,
        tags={"objgan.identity": work.identities["register"]},
    )
    log_to_version(work.folder("evaluate"), model_folder(work), _data(work), done.uri, tracking.uri)
    logger.info(done.text(run.alias))
    return {"model": done.uri}


def model_folder(work: Plan) -> Path:
    """The finished model's folder."""
    return work.folder("assemble") / "model"


def _data(work: Plan) -> Path:
    return work.folder("prepare") / "data"


def data_sources(data: Path) -> dict[str, Any]:
    """What `model.json` says of the data that a model was made of."""
    manifest = open_data(data, ComputeConfig()).manifest
    facts = {"source": source_lines(data), "rows": manifest["rows"], "counts": manifest["counts"]}
    return {"data": manifest["digest"], "data_set": facts}


def _checkpoints(work: Plan, stages: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for name in stages:
        result = work.result(name)
        if result is None:
            raise RuntimeError(f"step {name} has not finished")
        found[name] = work.folder(name) / result["checkpoint"]
    return found


def _summarise(tracking: Tracking, results: Mapping[str, Any]) -> None:
    tracker = tracking.tracker()
    tracker.metrics({f"seconds/{name}": result["seconds"] for name, result in results.items()}, 0)
    tracker.metrics(results["evaluate"]["measures"], 0)
