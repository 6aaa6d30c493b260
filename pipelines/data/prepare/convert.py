"""A block of input is the planned images of one shard; the worker that converts it writes the shard.

No picture passes through the object store, and what a shard holds does not depend on how many workers there are. Beside
the shard, the worker leaves a receipt: with it, a command that was killed finds out what is finished.
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

import pyarrow as pa
import ray.data

import objgan
import objgan.files
from objgan.errors import InputError
from pipelines.data.prepare.coco_records import IMAGES, Row
from pipelines.data.prepare.external_sort import take
from pipelines.data.prepare.isolation import convert_apart
from pipelines.data.prepare.rows import Conversion, Converted, Record, convert
from pipelines.data.shards.format import SCHEMA_VERSION, Shard, write_shard
from pipelines.data.shards.image_files import open_place, read_bytes
from pipelines.data.shards.rejected import Reject
from pipelines.storage.attempts import MOST_ATTEMPTS, Attempts, WorkerDied
from pipelines.storage.retry import StorageAway, StorageRefused
from pipelines.storage.storage import Storage

Runner = Callable[[list[pa.Table], dict[str, Any]], Iterator[str]]
"""Calls `write_block(block, **arguments)` for every block and yields the reports in the blocks' order."""

_READERS = 8
"""Images that a worker fetches at once from a remote storage."""
_RETRIES = 2 * MOST_ATTEMPTS
"""Of a task, by Ray: enough that `Attempts`, which names the shard, comes first, also where a task is counted that only
waited for a worker that died."""


@dataclass(frozen=True)
class ConversionReport:
    """What became of a block: its shard, if any row came out; what did not; whether it was there already."""

    shard: Shard | None
    inputs: str
    rejected: tuple[Reject, ...]
    kept: bool = False


def run_on_ray(blocks: list[pa.Table], arguments: dict[str, Any]) -> Iterator[str]:
    """One call of a Ray Data worker a block. Ray must be running.

    Workers that stay get the next block before they have finished the one at hand; tasks would idle an eighth of the
    time until the next arrives, but of few blocks any idle worker that Ray has already may take one.
    """
    context = ray.data.DataContext.get_current()
    before = context.execution_options.preserve_order, context.enable_progress_bars
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    cpus = int(ray.cluster_resources().get("CPU", 1))
    pool = ray.data.ActorPoolStrategy(min_size=1, initial_size=max(1, min(cpus, len(blocks))))
    # Ray's own default is to retry for ever. Each shard may cost a worker once or twice.
    bounds = {"max_restarts": _RETRIES * len(blocks), "max_task_retries": _RETRIES}
    stay: dict[str, Any] = {"fn_constructor_kwargs": arguments, "compute": pool, **bounds}
    come_and_go = {"fn_kwargs": arguments, "max_retries": _RETRIES}
    how = (_Stays, stay) if len(blocks) > 2 * cpus else (write_block, come_and_go)
    try:
        # from_arrow makes a block of each table: the blocks are the shards, whatever number Ray would choose.
        rows = ray.data.from_arrow(blocks).map_batches(how[0], batch_size=None, batch_format="pyarrow", **how[1])
        yield from (row["report"] for row in rows.iter_rows())
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars = before


class _Stays:
    """A worker of many blocks."""

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments

    def __call__(self, block: pa.Table) -> pa.Table:
        return write_block(block, **self._arguments)


def run_here(blocks: list[pa.Table], arguments: dict[str, Any]) -> Iterator[str]:
    """One block after the other in this process: the same shards without Ray."""
    return (write_block(block, **arguments)["report"][0].as_py() for block in blocks)


def block_of(images: pa.Table, split: str, shard: str, inputs: str) -> pa.Table:
    """Images of schema `coco_records.IMAGES` that become one shard."""
    for name, value in (("split", split), ("shard", shard), ("inputs", inputs)):
        images = images.append_column(name, pa.array([value] * len(images), pa.string()))
    return images


def inputs_of(images: pa.Table, sizes: Sequence[int], facts: dict[str, Any]) -> str:
    """sha256 of all that a shard is made of: its images, the bytes of their files, and what is common to all shards."""
    facts_of_block = [SCHEMA_VERSION, objgan.__version__, facts, images.to_pylist(), list(sizes)]
    return hashlib.sha256(json.dumps(facts_of_block, sort_keys=True).encode()).hexdigest()


def write_block(block: pa.Table, **arguments: Any) -> pa.Table:
    """In a worker: see whether a block's shard is there, or make it; report as one row of JSON.

    Faults of storage and wrong inputs are part of the report: they reach the driver as they are, whatever lies between.
    """
    try:
        report = asdict(finished(block, Path(arguments["out"])) or _make(block, **arguments))
    except InputError as error:
        report = {"refused": str(error), "by_storage": isinstance(error, StorageRefused)}
    except WorkerDied as error:
        report = {"died": str(error)}
    except OSError as error:
        report = {"failed": [error.errno, error.strerror or str(error), _name(error)]}
    return pa.table({"report": [json.dumps(report)]})


def read_report(text: str) -> ConversionReport:
    """The report of a worker.

    Raises:
        InputError, OSError, WorkerDied: what the worker met.
    """
    facts = json.loads(text)
    if "died" in facts:
        raise WorkerDied(facts["died"])
    if "refused" in facts:
        raise (StorageRefused if facts["by_storage"] else InputError)(facts["refused"])
    if "failed" in facts:
        number, text, name = facts["failed"]
        raise OSError(number, text, name) if number is not None else StorageAway(text)
    return _report(facts)


def receipt_path(out: Path, shard: str) -> Path:
    """Where the receipt of a shard lies."""
    return out / WORK / "receipts" / f"{shard}.json"


def write_receipt(out: Path, name: str, report: ConversionReport) -> None:
    """Note that a shard is finished."""
    objgan.files.write_atomically(receipt_path(out, name), json.dumps(asdict(report)))


def read_receipt(out: Path, name: str) -> ConversionReport | None:
    """What was noted of a shard; None: nothing, or nothing legible."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return _report(json.loads(receipt_path(out, name).read_text()))
    return None


def finished(block: pa.Table, out: Path) -> ConversionReport | None:
    """The report of a block that was made before, from the same inputs, and whose shard is still what it was."""
    noted = read_receipt(out, block["shard"][0].as_py())
    if noted is None or noted.inputs != block["inputs"][0].as_py():
        return None
    if noted.shard is not None:
        path = out / noted.shard.name
        if not path.is_file() or objgan.files.sha256(path) != noted.shard.sha256:
            return None
    return ConversionReport(noted.shard, noted.inputs, noted.rejected, kept=True)


WORK = ".work"
"""Folder in the prepared one, of what is needed until it is finished."""


def _make(block: pa.Table, images: list[str] | None, out: str, run: str, **settings: Any) -> ConversionReport:
    split, name, inputs = (block[column][0].as_py() for column in ("split", "shard", "inputs"))
    records = records_of(block, Path(out) / WORK)
    with Attempts(Path(out) / WORK, name, inputs, run) as attempts:
        converted = _converted(records, _conversion(split, **settings), images, attempts)
        shard = None
        if converted.rows:
            shard = write_shard(Path(out), name, split, converted.table())
            shard = replace(shard, inputs=inputs, contradictions=dict(sorted(converted.contradictions.items())))
        rejected = tuple(Reject(**{**asdict(one), "shard": name}) for one in converted.rejected)
        report = ConversionReport(shard, inputs, rejected)
        write_receipt(Path(out), name, report)
    return report


def _conversion(split: str, size: int, categories: list[int], language: str = "en") -> Conversion:
    return Conversion(split, None, size, {category: label for label, category in enumerate(categories)}, language)


def _converted(records: list[Record], how: Conversion, images: list[str] | None, attempts: Attempts) -> Converted:
    """Rows from records and the images of each part; where a worker died of it before, in a process aside."""
    places = None if images is None else [open_place(location) for location in images]
    if not attempts.is_suspect:
        # For want of memory, the record that takes it is found as one that kills a worker is.
        with contextlib.suppress(MemoryError), _fetcher(places, [record.image for record in records]) as fetch:
            return convert(records, replace(how, fetch=fetch))
    return convert_apart(records, replace(how, fetch=None if places is None else partial(_read, places)), attempts)


@contextlib.contextmanager
def _fetcher(places: list[Storage] | None, wanted: Sequence[Row]) -> Iterator[Callable[[Row], bytes] | None]:
    """Reads an image file by its record; of a remote storage, several are on their way at a time.

    places: of each part of the data set
    """
    if places is None:
        yield None
        return
    with ThreadPoolExecutor(_READERS) as pool:
        coming = {
            image["image_id"]: pool.submit(_read, places, image)
            for image in wanted
            if places[image["part"]].local is None
        }

        def fetch(image: Row) -> bytes:
            return coming[image["image_id"]].result() if image["image_id"] in coming else _read(places, image)

        try:
            yield fetch
        finally:
            pool.shutdown(cancel_futures=True)


def _read(places: list[Storage], image: Row) -> bytes:
    return read_bytes(places[image["part"]], image["file_name"])


def records_of(block: pa.Table, work: Path) -> list[Record]:
    """The block's images with their objects and captions."""
    records = {image["image_id"]: Record(image) for image in block.select(IMAGES.names).to_pylist()}
    for one in take(work, "annotation", list(records)):
        records[one["image_id"]].objects.append(one)
    for one in take(work, "caption", list(records)):
        records[one["image_id"]].captions.append(one)
    return list(records.values())


def _report(facts: dict[str, Any]) -> ConversionReport:
    shard = None if facts["shard"] is None else Shard(**facts["shard"])
    return ConversionReport(shard, facts["inputs"], tuple(Reject(**one) for one in facts["rejected"]), facts["kept"])


def _name(error: OSError) -> str | None:
    """The file's name alone would not say on which disk."""
    return str(error.filename) if error.filename else None
