"""A block of input is the planned images of one shard; the worker that converts it writes the shard.

No image passes through the object store, and the content of a shard does not depend on the number of workers. The
worker also writes a receipt: from the receipts, a resumed command knows which shards are finished.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

import objgan
import objgan.files
from objgan.stated_captions import StatedCaptions
from pipelines.data.prepare.coco_records import IMAGES, Row
from pipelines.data.prepare.external_sort import take
from pipelines.data.prepare.isolation import convert_apart
from pipelines.data.prepare.rows import CaptionWriter, Conversion, Converted, Record, convert
from pipelines.data.shards.description import described
from pipelines.data.shards.format import SCHEMA_VERSION, Shard, write_shard
from pipelines.data.shards.image_files import open_place, read_bytes
from pipelines.data.shards.rejected import Reject
from pipelines.storage.attempts import MOST_ATTEMPTS, Attempts
from pipelines.storage.storage import Storage
from pipelines.storage.worker_faults import FAULTS, as_facts, raise_fault

Runner = Callable[[list[pa.Table], dict[str, Any]], Iterator[str]]
"""Calls `write_block(block, **arguments)` for every block and yields the reports in the blocks' order."""

_READERS = 8
"""Images that a worker fetches at the same time from remote storage."""
_RETRIES = 2 * MOST_ATTEMPTS
"""Ray's retries of a task: enough that `Attempts`, which names the shard, gives up first, even if Ray counts tasks that
only waited for a worker that died."""


@dataclass(frozen=True)
class ConversionReport:
    """Result of a block: its shard, if it has any row; its rejects; kept: whether the shard existed already."""

    shard: Shard | None
    inputs: str
    rejected: tuple[Reject, ...]
    kept: bool = False


def run_on_ray(blocks: list[pa.Table], arguments: dict[str, Any]) -> Iterator[str]:
    """One call of a Ray Data worker per block. Ray must be running.

    Actors receive the next block before they have finished the current one; tasks would idle an eighth of the time
    between two blocks, but a few blocks are faster on workers that Ray has started already.
    """
    context = ray.data.DataContext.get_current()
    before = context.execution_options.preserve_order, context.enable_progress_bars
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    cpus = int(ray.cluster_resources().get("CPU", 1))
    pool = ray.data.ActorPoolStrategy(min_size=1, initial_size=max(1, min(cpus, len(blocks))))
    # Ray's default is to retry without end. Each shard may kill a worker once or twice.
    bounds = {"max_restarts": _RETRIES * len(blocks), "max_task_retries": _RETRIES}
    as_actors: dict[str, Any] = {"fn_constructor_kwargs": arguments, "compute": pool, **bounds}
    as_tasks = {"fn_kwargs": arguments, "max_retries": _RETRIES}
    function, options = (_Converter, as_actors) if len(blocks) > 2 * cpus else (write_block, as_tasks)
    try:
        # from_arrow makes one block of each table: the blocks are the shards, not a number that Ray chooses.
        rows = ray.data.from_arrow(blocks).map_batches(function, batch_size=None, batch_format="pyarrow", **options)
        yield from (row["report"] for row in rows.iter_rows())
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars = before


class _Converter:
    """An actor that converts many blocks."""

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments

    def __call__(self, block: pa.Table) -> pa.Table:
        return write_block(block, **self._arguments)


def run_here(blocks: list[pa.Table], arguments: dict[str, Any]) -> Iterator[str]:
    """Convert one block after the other in this process: the same shards without Ray."""
    return (write_block(block, **arguments)["report"][0].as_py() for block in blocks)


def block_of(image_ids: np.ndarray, split: str, shard: str) -> pa.Table:
    """Images that become one shard, in one row."""
    return pa.table({"split": [split], "shard": [shard], "image_ids": pa.array([image_ids], pa.list_(pa.int64()))})


def images_in(block: pa.Table) -> int:
    """The number of a block's images."""
    return len(block["image_ids"][0])


@dataclass(frozen=True)
class _Task:
    """A shard to be made of images of schema `coco_records.IMAGE_ROWS`. inputs: sha256 of all that it is made of."""

    split: str
    name: str
    images: list[Row]
    inputs: str


def _task(block: pa.Table, json_files: dict[str, str], **arguments: Any) -> _Task:
    """json_files: digests of the JSON."""
    split, name = (block[column][0].as_py() for column in ("split", "shard"))
    images = _images(block, Path(arguments["out"]) / WORK)
    common = [split, name, arguments["size"], arguments["categories"], arguments["images"] is None, json_files]
    common += [arguments[key] for key in ("classes", "language", "shapes", "written")]
    rows, sizes = [_without_sizes(image) for image in images], [image["bytes"] for image in images]
    inputs = json.dumps([SCHEMA_VERSION, objgan.__version__, {"common": common}, rows, sizes], sort_keys=True)
    return _Task(split, name, images, hashlib.sha256(inputs.encode()).hexdigest())


def _images(block: pa.Table, work: Path) -> list[Row]:
    """The rows of a block's images, sorted by id; of several with one id, the first is the image."""
    rows = take(work, "image", block["image_ids"][0].values.to_numpy())
    return [row for row, before in zip(rows, [None, *rows], strict=False) if not before or row["id"] != before["id"]]


def _without_sizes(image: Row) -> Row:
    return {name: image[name] for name in IMAGES.names}


def write_block(block: pa.Table, json_files: dict[str, str], **arguments: Any) -> pa.Table:
    """In a worker: convert a block unless its shard exists; return the report as one row of JSON.

    Faults of storage and wrong inputs are part of the report, so that they reach the driver unchanged.
    """
    try:
        task = _task(block, json_files, **arguments)
        report = asdict(_finished(task, Path(arguments["out"])) or _make(task, **arguments))
    except FAULTS as error:
        report = as_facts(error)
    return pa.table({"report": [json.dumps(report)]})


def read_report(text: str) -> ConversionReport:
    """The report of a worker.

    Raises:
        InputError, OSError, WorkerDied: as the worker raised it.
    """
    facts = json.loads(text)
    raise_fault(facts)
    return _report(facts)


def receipt_path(out: Path, shard: str) -> Path:
    """The path of a shard's receipt."""
    return out / WORK / "receipts" / f"{shard}.json"


def write_receipt(out: Path, name: str, report: ConversionReport) -> None:
    """Record that a shard is finished."""
    objgan.files.write_atomically(receipt_path(out, name), json.dumps(asdict(report)))


def read_receipt(out: Path, name: str) -> ConversionReport | None:
    """The receipt of a shard; None: there is none, or it is not readable."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return _report(json.loads(receipt_path(out, name).read_text()))
    return None


def _finished(task: _Task, out: Path) -> ConversionReport | None:
    """The report of a shard that was made before from the same inputs, if it is unchanged."""
    receipt = read_receipt(out, task.name)
    if receipt is None or receipt.inputs != task.inputs:
        return None
    if receipt.shard is not None:
        path = out / receipt.shard.name
        if not path.is_file() or objgan.files.sha256(path) != receipt.shard.sha256:
            return None
    return ConversionReport(receipt.shard, receipt.inputs, receipt.rejected, kept=True)


WORK = ".work"
"""Folder in the prepared one, for files that are needed until it is finished."""


def _make(
    task: _Task, images: list[str] | None, out: str, run: str, classes: list[str], **settings: Any
) -> ConversionReport:
    records = _joined(task.images, Path(out) / WORK)
    split, name, inputs = task.split, task.name, task.inputs
    with Attempts(Path(out) / WORK, name, inputs, run) as attempts:
        converted = _converted(records, _conversion(split, classes=classes, **settings), images, attempts)
        shard = None
        if converted.rows:
            schema = described(classes, settings["size"], settings["shapes"], settings["written"] is not None)
            shard = write_shard(Path(out), name, split, converted.table().cast(schema))
            shard = replace(shard, inputs=inputs, contradictions=dict(sorted(converted.contradictions.items())))
        rejected = tuple(replace(reject, shard=name) for reject in converted.rejected)
        report = ConversionReport(shard, inputs, rejected)
        write_receipt(Path(out), name, report)
    return report


def _conversion(
    split: str, categories: list[int], classes: list[str], written: dict[str, int] | None, **settings: Any
) -> Conversion:
    """`written`: `longest` and `objects` of the captions to write; None: captions are not written."""
    labels = {category: label for label, category in enumerate(categories)}
    writer = None
    if written is not None:
        captions = StatedCaptions(classes, None, written["longest"])
        writer = CaptionWriter(captions, written["objects"])
    return Conversion(split, None, labels=labels, writer=writer, **settings)


def _converted(
    records: list[Record], conversion: Conversion, images: list[str] | None, attempts: Attempts
) -> Converted:
    """Rows from records and the images of each part; if a worker died of them before, in a separate process."""
    places = None if images is None else [open_place(location) for location in images]
    if not attempts.is_suspect:
        # If memory runs out, the record that takes it is found in the same way as one that kills a worker.
        with contextlib.suppress(MemoryError), _fetcher(places, [record.image for record in records]) as fetch:
            return convert(records, replace(conversion, fetch=fetch))
    return convert_apart(
        records, replace(conversion, fetch=None if places is None else partial(_read, places)), attempts
    )


@contextlib.contextmanager
def _fetcher(places: list[Storage] | None, wanted: Sequence[Row]) -> Iterator[Callable[[Row], bytes] | None]:
    """Reads an image file by its record; from remote storage, several at the same time.

    places: of each part of the data set
    """
    if places is None:
        yield None
        return
    with ThreadPoolExecutor(_READERS) as pool:
        futures = {
            image["image_id"]: pool.submit(_read, places, image)
            for image in wanted
            if places[image["part"]].local is None
        }

        def fetch(image: Row) -> bytes:
            return futures[image["image_id"]].result() if image["image_id"] in futures else _read(places, image)

        try:
            yield fetch
        finally:
            pool.shutdown(cancel_futures=True)


def _read(places: list[Storage], image: Row) -> bytes:
    return read_bytes(places[image["part"]], image["file_name"])


def records_of(block: pa.Table, work: Path) -> list[Record]:
    """The block's images with their objects and captions."""
    return _joined(_images(block, work), work)


def _joined(images: list[Row], work: Path) -> list[Record]:
    records = {image["image_id"]: Record(_without_sizes(image)) for image in images}
    for row in take(work, "annotation", list(records)):
        records[row["image_id"]].objects.append(row)
    for row in take(work, "caption", list(records)):
        records[row["image_id"]].captions.append(row)
    return list(records.values())


def _report(facts: dict[str, Any]) -> ConversionReport:
    shard = None if facts["shard"] is None else Shard(**facts["shard"])
    return ConversionReport(
        shard, facts["inputs"], tuple(Reject(**reject) for reject in facts["rejected"]), facts["kept"]
    )
