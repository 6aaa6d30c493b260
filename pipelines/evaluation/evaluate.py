"""Held-out metrics of a finished model, by a pool of Ray Data actors."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import ray.data
import torch
from PIL import Image

from objgan.files import folder_aside, read_json, sha256, write_atomically
from objgan.generation import ObjGAN
from objgan.json_input import OWN
from objgan.sections import ComputeConfig
from objgan.training import step_seed
from pipelines.data.loading.data_folder import open_data
from pipelines.data.loading.reader import ShardReader, evaluation_batch
from pipelines.evaluation.rows import picture_of_rows
from pipelines.evaluation.scores import SampleMetrics, Score, score, text_table
from pipelines.evaluation.worker import Evaluation, EvaluationTask, Measurer, OpenEvaluation, stage_of
from pipelines.models.card import Measured
from pipelines.models.registry import log_measures
from pipelines.redaction import place_of
from pipelines.runs.status import JobStatus
from pipelines.runtime.worker_starts import MOST_STARTS, make_starts
from pipelines.storage.attempts import WorkerDied

logger = logging.getLogger(__name__)
MEASURES, DETAILS = "measures.json", "details"
_PICTURED = 4
_RESTARTS = 10
"""Restarts of a worker by Ray; Ray's default has no limit."""
Runner = Callable[[OpenEvaluation, Sequence[EvaluationTask]], Iterator[SampleMetrics]]
"""Measures the tasks and yields their metrics in a fixed order."""


@dataclass(frozen=True)
class EvaluationResult:
    """Scores by name, metrics by sample, pictures by `stage/name`; and the reasons for skipped metrics.

    source: SHA-256 of the model's `model.json`, digest of the data, and the seed
    """

    protocol: str
    scores: dict[str, Score]
    samples: pa.Table
    pictures: dict[str, Image.Image]
    skipped: dict[str, str]
    source: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, float]:
        """The scores' values."""
        return {name: entry.value for name, entry in self.scores.items()}

    @property
    def counts(self) -> dict[str, int]:
        """The number of samples behind each score."""
        return {name: entry.count for name, entry in self.scores.items()}

    def text(self) -> str:
        """The scores as a table."""
        return text_table(self.scores, self.skipped)


def run_on_ray(opened: OpenEvaluation, tasks: Sequence[EvaluationTask]) -> Iterator[SampleMetrics]:
    """A pool of `evaluation.workers` actors, each of which opens the evaluation once. Ray must be running.

    Raises:
        WorkerDied: several workers died at one batch, or one while it loaded the model.
    """
    evaluation, context = opened.evaluation, ray.data.DataContext.get_current()
    before, context.execution_options.preserve_order = context.execution_options.preserve_order, True
    try:
        rows = ray.data.from_items([asdict(task) for task in tasks], override_num_blocks=len(tasks)).map_batches(
            _Actor,
            fn_constructor_args=(_absolute(evaluation), make_starts()),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=evaluation.workers),
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
        )
        for row in rows.iter_rows():
            if row["died"]:
                raise WorkerDied(row["died"])
            yield SampleMetrics.from_bytes(row["metrics"])
    except ray.exceptions.RayActorError as error:
        if error.actor_init_failed:
            raise
        raise WorkerDied(f"evaluate: a worker died {_RESTARTS + 1} times: check whether memory ran out") from error
    finally:
        context.execution_options.preserve_order = before


def run_here(opened: OpenEvaluation, tasks: Sequence[EvaluationTask]) -> Iterator[SampleMetrics]:
    """One task after the other in this process: the same metrics without Ray."""
    return map(Measurer(opened), tasks)


def evaluate(
    opened: OpenEvaluation, runner: Runner = run_on_ray, job_status: JobStatus | None = None
) -> EvaluationResult:
    """Measure every stage for which the data have columns, and generated images by the given judges.

    The same model, data, protocol and seed give the same result with any number of workers. job_status: gets progress
    """
    evaluation, sources, tasks = opened.evaluation, opened.sources, opened.tasks()
    protocol, seed = evaluation.protocol, evaluation.seed
    logger.info(f"evaluate: {len(tasks)} batches under protocol {protocol.name} on {evaluation.workers} worker(s)")
    samples = SampleMetrics.join(_counted(runner(opened, tasks), len(tasks), job_status))
    scores, skipped = score(samples, protocol, seed)
    pictures = {
        f"{name}/{title}": image
        for name, reader in sources.stages.items()
        for title, image in _pictures(opened.model, name, reader, seed).items()
    }
    with torch.no_grad():
        pictures["rows"] = picture_of_rows(opened.synthesis, opened.prompts(opened.places[:_PICTURED]))
    skipped = sources.skipped | opened.judges.skipped | skipped
    digest = sources.data.manifest["digest"]
    sums = {"model_sha256": sha256(evaluation.model / "model.json"), "data_digest": digest}
    return EvaluationResult(protocol.name, scores, samples.table(), pictures, skipped, {**sums, "seed": seed})


def _counted(results: Iterator[SampleMetrics], total: int, job_status: JobStatus | None) -> Iterator[SampleMetrics]:
    for done, samples in enumerate(results, 1):
        if job_status is not None:
            job_status.progress(done, total, max((len(ids) for ids in samples.ids.values()), default=0))
        yield samples


def save(result: EvaluationResult, folder: Path, model: str = "") -> None:
    """Write `measures.json`, `samples.parquet` and the pictures. model: its location, if known"""
    facts = {
        **({"model": model} if model else {}),
        **result.source,
        "protocol": result.protocol,
        "measures": result.means,
        "samples": result.counts,
        "intervals": {name: entry.interval for name, entry in result.scores.items()},
        "ceilings": {name: entry.ceiling for name, entry in result.scores.items() if entry.ceiling is not None},
        "skipped": result.skipped,
    }
    write_atomically(folder / MEASURES, json.dumps(facts, indent=1) + "\n")
    with folder_aside(folder / DETAILS) as aside:
        parquet.write_table(result.samples, aside / "samples.parquet")
        for name, image in result.pictures.items():
            image.save(aside / f"{name.replace('/', '_')}.png")


def log_to_version(folder: Path, model: Path, data: Path | str, uri: str, tracking_uri: str) -> None:
    """Log what `save` wrote into `folder` to the run of a registered version, to its logged model and to its card.

    model, data: what was measured, and on what; uri: `models:/NAME/VERSION`

    Raises:
        InputError, StorageRefused: MLflow cannot be used, or there is no such version.
    """
    measured = Measured.of(read_json(folder / MEASURES, "metrics", OWN))
    place = place_of(str(data.resolve() if isinstance(data, Path) else data))
    rows = open_data(data, ComputeConfig()).manifest["rows"]
    log_measures(uri, model, replace(measured, place=place, rows=rows), tracking_uri, folder / DETAILS)


def _absolute(evaluation: Evaluation) -> Evaluation:
    """The same with absolute paths, because workers have their own working directory."""
    data = evaluation.data.resolve() if isinstance(evaluation.data, Path) else evaluation.data
    return replace(evaluation, model=evaluation.model.resolve(), data=data, judges=evaluation.judges.absolute())


class _Actor:
    """A measurer with Ray Data's interface."""

    def __init__(self, evaluation: Evaluation, starts: Any) -> None:
        self._measurer, self._starts = Measurer(OpenEvaluation(evaluation)), starts

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
        task = EvaluationTask(str(batch["kind"][0]), int(batch["number"][0]))
        deaths = ray.get(self._starts.count.remote(f"{task.kind} {task.number}"))
        if deaths >= MOST_STARTS:
            return {"metrics": [b""], "died": [self._death(task, deaths)]}
        return {"metrics": [self._measurer(task).to_bytes()], "died": [""]}

    def _death(self, task: EvaluationTask, deaths: int) -> str:
        ids = self._measurer.image_ids(task)
        images = ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
        return (
            f"evaluate: {deaths} workers died one after the other at batch {task.number} of {task.kind} (images "
            f"{images}): run verify on the data, or check whether memory ran out"
        )


def _pictures(model: ObjGAN, name: str, reader: ShardReader, seed: int) -> dict[str, Image.Image]:
    batch = evaluation_batch(reader, 0, min(_PICTURED, len(reader)), seed, _PICTURED).to(model.device)
    torch.manual_seed(step_seed(seed, 0, -3))
    with torch.no_grad():
        return stage_of(model, name).pictures(batch)
