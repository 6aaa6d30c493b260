"""`generate --captions`: many captions to shards of pictures, by a pool of Ray Data actors; resumes by shard.

Ray Data passes the parts of the input to the actors, not the rows: an actor reads its part and writes its shard. So
neither captions nor pictures pass through the driver or the object store, and finished shards are not read again.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray.data
import torch

import objgan
from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.serving import Params
from pipelines.command_line import Location
from pipelines.data.shards.progress import ShardProgress
from pipelines.generation.captions import CaptionFiles, Columns, Part, Plan
from pipelines.generation.shards import (
    FOLDER,
    ShardMaker,
    ShardReport,
    finished,
    read_errors,
    remove_unfinished,
    shard_name,
)
from pipelines.runs.status import JobStatus
from pipelines.runtime.worker_starts import MOST_STARTS, make_starts
from pipelines.storage.attempts import WorkerDied
from pipelines.storage.storage import Storage
from pipelines.storage.worker_faults import FAULTS, as_facts, raise_fault

logger = logging.getLogger(__name__)
SETTINGS, MANIFEST, REJECTED = "settings.json", "manifest.json", "rejected.jsonl"
PICTURES_PER_SHARD = 1000
"""Half a minute to a few minutes of one core: what a killed worker loses."""
_RESTARTS = 100
"""Restarts of a worker by Ray, which has no limit by default. `MOST_STARTS` ends work that kills workers before."""
_READERS = 16


@dataclass(frozen=True)
class BulkJob:
    """What to generate, as data.

    model:      folder of the model, on this machine
    captions:   file or folder, or its URI; all workers read it
    out:        folder or URI; all workers write to it
    columns:    of the captions, see `pipelines.generation.captions`
    n, seed:    as `objgan.serving.Params`
    shard_rows: captions of a shard; None: as many as give about 1,000 pictures
    device:     "cpu" or "cuda"; "auto": as the job began, or else a GPU where there is one
    """

    model: Path
    captions: Location
    out: Location
    columns: Columns
    n: int = 1
    seed: int | None = None
    shard_rows: int | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Opened:
    """A job whose inputs were checked.

    settings: everything that the pictures depend on
    """

    job: BulkJob
    captions: CaptionFiles
    plan: Plan
    out: Storage
    params: Params
    settings: dict[str, Any]

    @property
    def device(self) -> str:
        """Of all workers; "auto" while it is open."""
        return str(self.settings["device"])

    @property
    def identity(self) -> str:
        """Digest of the settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def on(self, device: str) -> "Opened":
        """The same on a device, where none was chosen."""
        chosen = device if self.device == "auto" else self.device
        return replace(self, settings=self.settings | {"device": chosen})


Runner = Callable[[Opened, Sequence[Part]], Iterator[ShardReport]]
"""Makes the shards of these parts, and yields their reports in any order."""


def open_bulk(job: BulkJob) -> Opened:
    """Check model and settings, read the captions once, and compare with what `out` was begun with.

    Raises:
        InputError: no model, wrong captions or settings, or `out` was begun with others.
    """
    params = Params.read({"n": job.n, "seed": job.seed, "on_error": "row"})
    ObjGAN.load(job.model, device="cpu")
    captions = CaptionFiles(job.captions, job.columns)
    rows = job.shard_rows or max(1, PICTURES_PER_SHARD // job.n)
    logger.info("generate: reading the captions")
    plan = captions.plan(rows)
    out = Storage(job.out)
    begun = _begun(out)
    device = begun["device"] if begun is not None and job.device == "auto" else job.device
    settings = {
        "captions": plan.digest,
        "columns": dict(job.columns),
        "model": hashlib.sha256((job.model / "model.json").read_bytes()).hexdigest(),
        "objgan": objgan.__version__,
        "n": job.n,
        "seed": job.seed,
        "shard_rows": rows,
        "device": device,
    }
    if begun is not None:
        _compare(begun, settings, out)
    elif out.names(FOLDER):
        raise InputError(f"generate: {out}/{FOLDER} holds files, but {out} no {SETTINGS}: give another --out")
    logger.info(f"generate: {plan.rows} captions, {job.n} pictures each, in {len(plan.parts)} shards")
    return Opened(job, captions, plan, out, params, settings)


def _begun(out: Storage) -> dict[str, Any] | None:
    """The settings that `out` was begun with; None: it is new."""
    begun = out.json(SETTINGS)
    if begun is None:
        return None
    if not isinstance(begun, dict) or "device" not in begun:
        raise InputError(f"generate: {out}/{SETTINGS} is of another command: give another --out")
    return begun


def _compare(begun: Mapping[str, Any], settings: Mapping[str, Any], out: Storage) -> None:
    """Refuse other settings than those that `out` was begun with."""
    changed = [
        f"other {name}" if name in ("captions", "model") else f"{name}: {begun.get(name)} -> {settings.get(name)}"
        for name in settings
        if begun.get(name) != settings[name]
    ]
    if changed:
        raise InputError(f"generate: {out} was begun differently ({'; '.join(changed)}); give another --out")


def find_finished(opened: Opened) -> dict[int, ShardReport]:
    """The shards that exist and are whole, by number."""
    files = {f"{FOLDER}/{name}" for name in opened.out.names(FOLDER)}
    parts = [part for part in opened.plan.parts if shard_name(part) in files]
    with ThreadPoolExecutor(_READERS) as pool:
        reports = pool.map(lambda part: finished(opened.out, part, opened.identity), parts)
        return {report.part.number: report for report in reports if report is not None}


def generate_shards(
    opened: Opened, run: Runner, job_status: JobStatus | None = None, done: Mapping[int, ShardReport] | None = None
) -> dict[str, Any]:
    """Make the missing shards, list the rejected rows, and write the manifest. Only the holder of `out` may do this.

    done: what `find_finished` returns; None: look for it

    The same job gives the same bytes, also after interruptions, and on any number of workers. Returns the manifest.

    Raises:
        InputError: storage refuses, the captions were changed or damaged meanwhile, or `out` was begun differently.
        WorkerDied: a shard kills its workers.
    """
    begin(opened)
    reports = dict(find_finished(opened) if done is None else done)
    missing = [part for part in opened.plan.parts if part.number not in reports]
    with ShardProgress(len(opened.plan.parts), opened.plan.rows, "generate", "captions") as progress:
        for report in reports.values():
            progress.add(report.part.rows, kept=True)
        for report in run(opened, missing) if missing else ():
            reports[report.part.number] = report
            progress.add(report.part.rows, kept=False)
            if job_status is not None:
                job_status.progress(len(reports), len(opened.plan.parts), report.pictures)
                job_status.rejected(report.errors)
    return _finish(opened, [reports[part.number] for part in opened.plan.parts])


def begin(opened: Opened) -> None:
    """Record the settings, and remove what killed commands left.

    Raises:
        InputError: `out` was begun with others.
    """
    begun = _begun(opened.out)
    if begun is None:
        opened.out.write(SETTINGS, json.dumps(opened.settings, indent=1) + "\n")
    else:
        _compare(begun, opened.settings, opened.out)
    remove_unfinished(opened.out)


def _finish(opened: Opened, reports: Sequence[ShardReport]) -> dict[str, Any]:
    rejected = sum(report.errors for report in reports)
    with tempfile.TemporaryDirectory(prefix="objgan-") as scratch:
        first = _list_rejected(opened.out, reports, Path(scratch) / REJECTED)
        opened.out.send(Path(scratch) / REJECTED, REJECTED)
    manifest = {
        "settings": opened.settings,
        "rows": opened.plan.rows,
        "pictures": sum(report.pictures for report in reports),
        "rejected": rejected,
        "shards": [
            {
                "name": shard_name(report.part),
                "pictures": report.pictures,
                "errors": report.errors,
                **asdict(report.part),
            }
            for report in reports
        ],
    }
    opened.out.write(MANIFEST, json.dumps(manifest, indent=1) + "\n")
    captions = opened.plan.rows - rejected
    logger.info(f"generate: {manifest['pictures']} pictures of {captions} captions in {opened.out}/{FOLDER}")
    if first is not None:
        logger.info(
            f"generate: {rejected} of {opened.plan.rows} captions rejected, listed in {opened.out}/{REJECTED}; the "
            f"first, row {first['row']}: {first['error']}"
        )
    return manifest


def _list_rejected(out: Storage, reports: Sequence[ShardReport], path: Path) -> dict[str, Any] | None:
    """Write a line of JSON for each row without a picture, in order. Returns the first of them."""
    first = None
    with path.open("w", encoding="utf-8") as file:
        for report in reports:
            for row in read_errors(out, report.part) if report.errors else ():
                first = first or row
                file.write(json.dumps({"file": report.part.file, **row}, ensure_ascii=False) + "\n")
    return first


def run_here(opened: Opened, parts: Sequence[Part]) -> Iterator[ShardReport]:
    """One shard after another in this process: the same shards without Ray."""
    return map(_maker(opened, opened.job.model), parts)


def run_on_ray(opened: Opened, parts: Sequence[Part], workers: int | None) -> Iterator[ShardReport]:
    """A pool of actors, each of which loads the model once. Ray must be running.

    workers: None: one for each GPU, or else for each core

    Raises:
        InputError, OSError: as a worker raised it.
        WorkerDied: workers died too often.
    """
    model = {
        path.relative_to(opened.job.model).as_posix(): path.read_bytes()
        for path in opened.job.model.rglob("*")
        if path.is_file()
    }
    kind, resources = ("GPU", {"num_gpus": 1}) if opened.device == "cuda" else ("CPU", {"num_cpus": 1})
    workers = workers or max(1, int(ray.cluster_resources().get(kind, 1)))
    tasks = [{"part": json.dumps(asdict(part))} for part in parts]
    try:
        # Workers on other machines have no access to the model's folder: it may be a copy that the driver fetched.
        rows = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
            _Actor,
            fn_constructor_args=(replace(opened, plan=Plan((), "")), [ray.put(model)], make_starts()),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(tasks)), max_tasks_in_flight_per_actor=1),
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
            **resources,
        )
        for row in rows.iter_rows():
            raise_fault(json.loads(row["report"]))
            yield ShardReport.from_json(row["report"])
    except ray.exceptions.RayActorError as error:
        if error.actor_init_failed:
            raise
        raise WorkerDied(f"generate: a worker died {_RESTARTS + 1} times: check whether memory ran out") from error


def _maker(opened: Opened, folder: Path) -> ShardMaker:
    model = ObjGAN.load(folder, opened.device)
    return ShardMaker(model, opened.captions, opened.out, opened.params, opened.identity)


class _Actor:
    """A maker of shards with Ray Data's interface."""

    def __init__(self, opened: Opened, model: Sequence[Any], starts: Any) -> None:
        """`model`: reference to the files of its folder, in a list, which Ray does not replace by them."""
        if opened.device == "cpu":
            torch.set_num_threads(1)  # sums in one order, however many cores a machine has
        with tempfile.TemporaryDirectory(prefix="objgan-model-") as scratch:
            for name, data in ray.get(model[0]).items():
                path = Path(scratch) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self._make = _maker(opened, Path(scratch))
        self._starts = starts

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
        part = Part(**json.loads(str(batch["part"][0])))
        try:
            deaths = ray.get(self._starts.count.remote(shard_name(part)))
            if deaths >= MOST_STARTS:
                raise WorkerDied(
                    f"generate: {deaths} workers died one after the other at rows {part.first} to "
                    f"{part.first + part.rows - 1} of the captions, in {part.file}: check whether memory ran out"
                )
            report = asdict(self._make(part))
        except FAULTS as error:
            report = as_facts(error)
        return {"report": [json.dumps(report)]}
