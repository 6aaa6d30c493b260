"""A part of the captions -> a Parquet file of pictures, which appears whole.

The file says in its metadata what it was made of, so that no list of finished shards can disagree with the shards.
"""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from objgan.generation import ObjGAN
from objgan.serving import OUTPUTS, Params, answer
from pipelines.generation.captions import CaptionFiles, Part, Record
from pipelines.storage.storage import Storage, is_damage

FOLDER = "pictures"
"""Of the shards, in `out`: other programs read a folder of Parquet files that has nothing else in it."""
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("row", pa.int64()),
        ("sample", pa.int64()),
        ("seed", pa.int64()),
        ("caption", pa.string()),
        ("image_png", pa.binary()),
        ("layout", pa.string()),
        ("unknown_words", pa.string()),
        ("facts", pa.string()),
        ("error", pa.string()),
    ]
)
"""Columns of `objgan.serving.OUTPUTS`; the image is the bytes of a PNG file, the id a text."""
_FACTS = b"objgan.shard"
_PREFIX = "part-"


@dataclass(frozen=True)
class ShardReport:
    """A finished shard.

    identity: of everything that all shards are made of: model, captions, settings
    pictures: rows of the shard with a picture
    errors:   rows of the input without
    """

    identity: str
    part: Part
    pictures: int
    errors: int

    @classmethod
    def from_json(cls, text: str | bytes) -> "ShardReport":
        """What `json.dumps(asdict(report))` wrote."""
        facts = json.loads(text)
        return cls(**facts | {"part": Part(**facts["part"])})


def shard_name(part: Part) -> str:
    """File of a part's shard."""
    return f"{FOLDER}/{_PREFIX}{part.number:06d}.parquet"


def remove_unfinished(out: Storage) -> None:
    """Remove what killed writers left. Only the holder of `out` may do this."""
    for name in out.names(FOLDER, hidden=True):
        if name.startswith(f".{_PREFIX}"):
            out.delete(f"{FOLDER}/{name}")


def finished(out: Storage, part: Part, identity: str) -> ShardReport | None:
    """The report of a part's shard; None: there is none, it is damaged, or made of something else."""
    try:
        with io.BufferedReader(out.open(shard_name(part))) as file:
            facts = (pq.read_metadata(file).metadata or {}).get(_FACTS)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        if not is_damage(error):
            raise
        return None
    report = None if facts is None else ShardReport.from_json(facts)
    if report is None or (report.identity, report.part) != (identity, part):
        return None
    return report


def read_errors(out: Storage, part: Part) -> Iterator[dict[str, Any]]:
    """Row, id and error of the rows of a shard that have no picture."""
    with io.BufferedReader(out.open(shard_name(part))) as file:
        for batch in pq.ParquetFile(file).iter_batches(columns=["row", "id", "error"]):
            yield from (row for row in batch.to_pylist() if row["error"] is not None)


@dataclass(frozen=True)
class ShardMaker:
    """Makes shards, one after another, with one model."""

    model: ObjGAN
    captions: CaptionFiles
    out: Storage
    params: Params
    identity: str

    def __call__(self, part: Part) -> ShardReport:
        """Make a shard, unless it is there.

        Raises:
            InputError: the captions or `out` cannot be used.
            RuntimeError: a row makes the model fail; the message names it.
        """
        if (report := finished(self.out, part, self.identity)) is not None:
            return report
        rows = list(self._rows(part))
        errors = sum(row["error"] is not None for row in rows)
        report = ShardReport(self.identity, part, pictures=len(rows) - errors, errors=errors)
        self.out.write(shard_name(part), _file(rows, report))
        return report

    def _rows(self, part: Part) -> Iterator[dict[str, Any]]:
        for number, record in enumerate(self.captions.read(part), part.first):
            try:
                for row in _answers(self.model, record, self.params):
                    yield row | {"row": number}
            except RuntimeError as error:
                raise RuntimeError(f"generate: row {number} of the captions, in {part.file}: {error}") from error


def _answers(model: ObjGAN, record: Record, params: Params) -> Iterator[dict[str, Any]]:
    if isinstance(record, str):
        yield dict.fromkeys(OUTPUTS) | {"error": record}
        return
    for row in answer(model, [record], params):
        image, name = row["image_png"], row["id"]
        changed = {
            "id": None if name is None else str(name),
            "image_png": None if image is None else base64.b64decode(image),
        }
        yield row | changed


def _file(rows: Sequence[dict[str, Any]], report: ShardReport) -> bytes:
    """The Parquet file of rows; the same bytes for the same rows."""
    columns = {name: [_encodable(row[name]) for row in rows] for name in SCHEMA.names}
    table = pa.table(columns, schema=SCHEMA.with_metadata({_FACTS: json.dumps(asdict(report))}))
    buffer = io.BytesIO()
    names = [name for name in SCHEMA.names if name != "image_png"]
    pq.write_table(
        table,
        buffer,
        compression=dict.fromkeys(names, "zstd") | {"image_png": "none"},
        use_dictionary=False,
        write_statistics=names,
    )
    return buffer.getvalue()


def _encodable(value: Any) -> Any:
    """Text with half surrogate pairs, which only rows with an error have, in letters that UTF-8 has."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
