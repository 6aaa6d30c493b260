"""Held-out measures of a finished model, by a pool of Ray Data actors."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import ray.data
import torch
from PIL import Image

from objgan.files import folder_aside, write_atomically
from objgan.generation import ObjGAN
from objgan.training import step_seed
from pipelines.data.loading.reader import ShardReader, evaluation_batch
from pipelines.evaluation.captions_and_layouts import Sources, open_sources
from pipelines.evaluation.judges import Judges
from pipelines.evaluation.rows import picture_of_rows
from pipelines.evaluation.scores import SampleMetrics, Score, score, text_table
from pipelines.evaluation.synthesis import Synthesis, read_prompts
from pipelines.evaluation.worker import Evaluation, EvaluationTask, Measurer, stage_of, tasks_of
from pipelines.runs.status import JobStatus
from pipelines.runtime.console import Log
from pipelines.storage.attempts import WorkerDied

_PICTURED = 4
_MOST_STARTS = 3
"""Of a batch, that end with the worker's death."""
_RESTARTS = 10
"""Of a worker, by Ray, whose own default is to restart it for ever."""
Runner = Callable[[Evaluation, Sequence[EvaluationTask]], Iterator[SampleMetrics]]
"""Does the tasks and yields what each found, in any order of the tasks' batches that is always the same."""


@dataclass(frozen=True)
class EvaluationResult:
    """Scores by name, figures by sample, and pictures by `stage/name`; why other measures were skipped."""

    protocol: str
    scores: dict[str, Score]
    samples: pa.Table
    pictures: dict[str, Image.Image]
    skipped: dict[str, str]

    @property
    def means(self) -> dict[str, float]:
        """The scores' values."""
        return {name: one.value for name, one in self.scores.items()}

    @property
    def counts(self) -> dict[str, int]:
        """The number of samples behind each score."""
        return {name: one.count for name, one in self.scores.items()}

    def text(self) -> str:
        """A table for people."""
        return text_table(self.scores, self.skipped)


def run_on_ray(what: Evaluation, tasks: Sequence[EvaluationTask]) -> Iterator[SampleMetrics]:
    """An actor pool of `what.workers`. Ray must be running.

    Raises:
        WorkerDied: several workers died at one batch, or one while it loaded the model.
    """
    context = ray.data.DataContext.get_current()
    before, context.execution_options.preserve_order = context.execution_options.preserve_order, True
    try:
        rows = ray.data.from_items([asdict(task) for task in tasks], override_num_blocks=len(tasks)).map_batches(
            _Actor,
            fn_constructor_args=(what, _make_starts()),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=what.workers),
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
        )
        for row in rows.iter_rows():
            if row["died"]:
                raise WorkerDied(row["died"])
            yield SampleMetrics.from_bytes(row["findings"])
    except ray.exceptions.RayActorError as error:
        if error.actor_init_failed:
            raise
        raise WorkerDied(f"evaluate: a worker died {_RESTARTS + 1} times: look for a lack of memory") from error
    finally:
        context.execution_options.preserve_order = before


def run_here(what: Evaluation, tasks: Sequence[EvaluationTask]) -> Iterator[SampleMetrics]:
    """One task after the other in this process: the same findings without Ray."""
    measurer = Measurer(what)
    return (measurer(task) for task in tasks)


def check(what: Evaluation) -> None:
    """Find what is wrong before anything starts; needs no Ray.

    Raises:
        InputError: as `evaluate`.
    """
    model = ObjGAN.load(what.model, device="cpu")
    open_sources(what.data, what.protocol.split, model)
    Judges(what.judges, model)


def evaluate(
    what: Evaluation, log: Log, runner: Runner = run_on_ray, job_status: JobStatus | None = None
) -> EvaluationResult:
    """Measure every stage that the data can show, and generated images by the judges that there are.

    The same for the same model, data, protocol and seed, whatever the number of workers. standing: hears how far it is

    Raises:
        InputError: no model or data, data or judges of other classes, or nothing that can be measured.
    """
    what = _absolute(what)
    model = ObjGAN.load(what.model, device="cpu")
    sources = open_sources(what.data, what.protocol.split, model)
    skipped = sources.skipped | Judges(what.judges, model).skipped
    tasks = tasks_of(what, sources)
    log(f"evaluate: {len(tasks)} batches under protocol {what.protocol.name} on {what.workers} worker(s)")
    found = SampleMetrics.join(_counted(runner(what, tasks), len(tasks), job_status))
    scores, more = score(found, what.protocol, what.seed)
    pictures = {
        f"{name}/{title}": image
        for name, reader in sources.stages.items()
        for title, image in _pictures(model, name, reader, what.seed).items()
    }
    pictures["rows"] = _picture_of_rows(what, model, sources)
    return EvaluationResult(what.protocol.name, scores, found.table(), pictures, skipped | more)


def _counted(found: Iterator[SampleMetrics], total: int, job_status: JobStatus | None) -> Iterator[SampleMetrics]:
    for done, one in enumerate(found, 1):
        if job_status is not None:
            job_status.progress(done, total, max((len(ids) for ids in one.ids.values()), default=0))
        yield one


def save(measured: EvaluationResult, folder: Path) -> None:
    """Write `measures.json`, `samples.parquet` and the pictures."""
    facts = {
        "protocol": measured.protocol,
        "measures": measured.means,
        "samples": measured.counts,
        "intervals": {name: one.interval for name, one in measured.scores.items()},
        "ceilings": {name: one.ceiling for name, one in measured.scores.items() if one.ceiling is not None},
        "skipped": measured.skipped,
    }
    write_atomically(folder / "measures.json", json.dumps(facts, indent=1) + "\n")
    with folder_aside(folder / "details") as aside:
        parquet.write_table(measured.samples, aside / "samples.parquet")
        for name, image in measured.pictures.items():
            image.save(aside / f"{name.replace('/', '_')}.png")


def _absolute(what: Evaluation) -> Evaluation:
    """Workers have a working directory of their own."""
    data = what.data.resolve() if isinstance(what.data, Path) else what.data
    return replace(what, model=what.model.resolve(), data=data, judges=what.judges.absolute())


class _Starts:
    """How often each batch was begun, which no worker's death erases."""

    def __init__(self) -> None:
        self._starts: Counter[EvaluationTask] = Counter()

    def count(self, task: EvaluationTask) -> int:
        """Count one more; how many there were before."""
        self._starts[task] += 1
        return self._starts[task] - 1


def _make_starts() -> Any:
    """The actor, on the driver's own node."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(num_cpus=0)(_Starts).options(scheduling_strategy=here).remote()


class _Actor:
    """A measurer behind Ray Data's interface."""

    def __init__(self, what: Evaluation, starts: Any) -> None:
        self._measurer, self._starts = Measurer(what), starts

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
        task = EvaluationTask(str(batch["kind"][0]), int(batch["number"][0]))
        deaths = ray.get(self._starts.count.remote(task))
        if deaths >= _MOST_STARTS:
            return {"findings": [b""], "died": [self._death(task, deaths)]}
        return {"findings": [self._measurer(task).to_bytes()], "died": [""]}

    def _death(self, task: EvaluationTask, deaths: int) -> str:
        ids = self._measurer.image_ids(task)
        images = ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
        return (
            f"evaluate: {deaths} workers died one after the other at batch {task.number} of {task.kind} (images "
            f"{images}): run verify on the data, or look for a lack of memory"
        )


def _picture_of_rows(what: Evaluation, model: ObjGAN, sources: Sources) -> Image.Image:
    places = what.protocol.places(len(sources.rows))[:_PICTURED]
    prompts = read_prompts(sources.rows, places, what.seed, model.domain.vocabulary.words)
    with torch.no_grad():
        return picture_of_rows(Synthesis(model, what.seed), prompts)


def _pictures(model: ObjGAN, name: str, reader: ShardReader, seed: int) -> dict[str, Image.Image]:
    batch = evaluation_batch(reader, 0, min(_PICTURED, len(reader)), seed, _PICTURED)
    torch.manual_seed(step_seed(seed, 0, -3))
    with torch.no_grad():
        return stage_of(model, name).pictures(batch)
