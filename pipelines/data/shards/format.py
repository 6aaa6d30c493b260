"""Prepared data: Arrow shards of flat columns, one row per image, and the manifest that lists them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from objgan.errors import InputError
from objgan.files import file_aside, read_json, write_atomically
from pipelines.data.shards.concerns import are_written, concerns, doubts, marks
from pipelines.data.shards.manifest import ACCOUNTS, MANIFEST, SPLITS, validate_manifest

SCHEMA_VERSION = 5
ROWS_PER_SHARD = 256
COUNTED = ["captions", "masks", "crowds", "colours", "scene"]

SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("file_name", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("split", pa.string()),
        ("image", pa.binary()),
        ("captions", pa.list_(pa.string())),
        ("tokens", pa.list_(pa.string())),
        ("annotation_ids", pa.list_(pa.int64())),
        ("labels", pa.list_(pa.int32())),
        ("boxes", pa.list_(pa.float32())),
        ("areas", pa.list_(pa.float32())),
        ("crowds", pa.list_(pa.bool_())),
        ("masks", pa.list_(pa.string())),
        ("colours", pa.list_(pa.string())),
        ("scene", pa.string()),
    ],
    metadata={"objgan.schema_version": str(SCHEMA_VERSION)},
)
"""width, height: of the original, pixels. image: JPEG of the whole image scaled to a square, null without pixels.
tokens: one string per caption, its words joined by spaces. Objects: largest box first; boxes: 4 numbers per object,
xywh, fractions; areas: fractions of the image; masks: COCO's compressed run lengths in the stored square, or null;
colours: one name per object, null if unknown. scene: a name, null if unknown. The names are those of
`objgan.attributes`. Shards of a data set also have metadata (see `pipelines.data.shards.description`). Facts that a
reader needs of all rows at once are in a separate file, the split's index (`pipelines.data.shards.index`).
"""


@dataclass(frozen=True)
class Shard:
    """A shard or an index, as the manifest lists it."""

    name: str
    split: str
    rows: int
    bytes: int
    sha256: str
    inputs: str = ""
    """sha256 of the inputs that it was made from; empty for an index."""
    contradictions: Mapping[str, int] = field(default_factory=dict)
    """Of its objects, by the names `manifest.CONTRADICTIONS`; empty for an index."""


def shard_name(split: str, number: int, suffix: str = "arrow") -> str:
    """File name of a shard; its ending is one of `FORMATS`."""
    return f"{split}-{number:05d}.{suffix}"


def index_name(split: str) -> str:
    """File name of a split's index, which neither `train-*.arrow` nor pyarrow's data sets take for a shard."""
    return f"_index-{split}.arrow"


class _Hashed:
    """A file that computes the digest and the number of the bytes written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.closed = file, False
        self.digest, self.bytes = hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self.digest.update(view)
        self.bytes += view.nbytes
        return self._file.write(view)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Does nothing: the code that opened the file closes it."""


def write_shard(folder: Path, name: str, split: str, table: pa.Table, schema: pa.Schema = SCHEMA) -> Shard:
    """Write rows with the columns of `schema`, described or not; the file appears complete or not at all.

    `NAME.arrow`: an uncompressed Arrow IPC file of one record batch, to be mapped. `NAME.parquet`: for other tools.
    """
    if not table.schema.equals(schema) or table.schema.metadata != schema.metadata:
        raise ValueError(f"{name}: not a table of the shards' schema: {table.schema}")
    with file_aside(folder / name) as file:
        hashed = _Hashed(file)
        sink = pa.PythonFile(hashed, "w")
        if name.endswith(".parquet"):
            pq.write_table(table.combine_chunks(), sink)
        else:
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table.combine_chunks(), max_chunksize=max(len(table), 1))
    return Shard(name, split, len(table), hashed.bytes, hashed.digest.hexdigest())


def read_shard(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The rows of a shard, or some of their columns. Arrow is memory-mapped: data are read when they are used.

    Raises:
        InputError: missing, not a shard, or of another schema version.
    """
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, columns=columns, partitioning=None)
        else:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"shard: cannot read {path} ({error}); prepare the data again") from None
    version = (table.schema.metadata or {}).get(b"objgan.schema_version", b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise InputError(f"shard: {path} has schema version {version}, this code reads {SCHEMA_VERSION}")
    return table if columns is None else table.select(columns)


def shards_of(manifest: Mapping[str, Any], split: str) -> list[Shard]:
    """The shards of a split, in order."""
    return [Shard(**shard) for shard in manifest["shards"] if shard["split"] == split]


def read_split(
    folder: Path, manifest: Mapping[str, Any], split: str, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """The split's shards, one memory-mapped table each."""
    return (read_shard(folder / shard.name, columns) for shard in shards_of(manifest, split))


def count_rows(table: pa.Table) -> Counter[str]:
    """The counts of the manifest, over rows with at least the columns `COUNTED`."""
    masks, crowds, colours = (pc.list_flatten(table[name]) for name in ("masks", "crowds", "colours"))
    return Counter(
        images=len(table),
        captions=len(pc.list_flatten(table["captions"])),
        objects=len(masks),
        masks=len(masks) - masks.null_count,
        crowds=pc.sum(crowds).as_py() or 0,
        colours=len(colours) - colours.null_count,
        scenes=len(table) - table["scene"].null_count,
    )


def dataset_digest(shards: list[Shard], domain: Mapping[str, str]) -> str:
    """sha256 of the digests of all shards, indices and domain files: the identity of the data at any location."""
    parts = [[shard.name, shard.sha256] for shard in shards] + sorted([name, text] for name, text in domain.items())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def save_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json`: from now on the folder counts as prepared."""
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def load_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder; checks that all its files exist with the right size.

    Raises:
        InputError: not a prepared folder, written by a newer version, or a shard is missing or cut short.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise InputError(f"data: {folder} is not a prepared folder (it has no {MANIFEST}); run prepare first")
    manifest = check_manifest(read_json(path, "manifest"), str(folder))
    for shard in [*manifest["shards"], *manifest["indices"]]:
        _check_file(folder / shard["name"], shard["bytes"])
    for facts in (manifest["rejected"], manifest["text_ids"]):
        if facts is not None:
            _check_file(folder / facts["file"], facts["bytes"])
    for name in manifest["domain"]:
        _check_file(folder / "domain" / name, None)
    return manifest


def check_manifest(manifest: Any, folder: str) -> dict[str, Any]:
    """A manifest that this code can read, checked as a whole. folder: its location, for messages.

    Raises:
        InputError: not a manifest, of another schema version, or with anything in it that `prepare` does not write.
    """
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if type(version) is not int or "shards" not in manifest:
        raise InputError(
            f"data: {folder}/{MANIFEST} is not a manifest of prepared data; run prepare into another folder"
        )
    if version > SCHEMA_VERSION:
        raise InputError(f"data: {folder} has schema version {version}, this code reads up to {SCHEMA_VERSION}: update")
    if version < SCHEMA_VERSION:
        raise InputError(f"data: {folder} has schema version {version}, too old: prepare into another folder")
    validate_manifest(manifest, folder)
    return dict(manifest)


def _check_file(path: Path, size: int | None) -> None:
    if not path.is_file():
        raise InputError(f"data: {path} is missing; delete {MANIFEST} beside it and prepare again")
    if size is not None and path.stat().st_size != size:
        raise InputError(
            f"data: {path} has {path.stat().st_size} bytes instead of {size}; delete {MANIFEST} and prepare again"
        )


def summary(manifest: Mapping[str, Any]) -> str:
    """A few lines: the contents, and the rejected records by reason."""
    counts, settings = manifest["counts"], manifest["settings"]
    rows = ", ".join(f"{split} {manifest['rows'][split]}" for split in SPLITS)
    lines = [
        f"images:   {counts['images']} ({rows}), {settings['image_size']} x {settings['image_size']} pixels"
        + ("" if manifest["columns"]["image"] else " (no pixels: boxes and captions only)"),
        f"captions: {counts['captions']}, {counts['words']} words in the vocabulary",
        f"objects:  {counts['objects']} of {len(manifest['classes'])} classes, {counts['masks']} with a mask, "
        f"{counts['crowds']} crowds",
        f"shards:   {len(manifest['shards'])}, {sum(shard['bytes'] for shard in manifest['shards']) / 1e6:.1f} MB",
    ]
    if manifest["columns"]["image"] and not manifest["columns"]["masks"]:
        lines.append("masks:    none; to train the stage images, prepare with --set data.shapes=ellipse (or box)")
    vectors = manifest["vectors"]
    if vectors["source"] == "pipeline":
        lines.append(
            f"vectors:  {vectors['channels']} channels; {vectors['found']} of {vectors['words']} words have one in the "
            f"pipeline, {vectors['derived']} get one from neighbouring words, the others zeros"
        )
    else:
        made = "fitted on the training captions" if vectors["source"] == "captions" else f"of {vectors['source']}"
        lines.append(f"vectors:  {vectors['channels']} channels, {made}")
    if manifest["columns"]["attributes"]:
        lines.append(f"known:    the colours of {counts['colours']} objects, the scenes of {counts['scenes']} images")
    if manifest["text_ids"]:
        listed = manifest["text_ids"]
        lines.append(f"ids:      {listed['rows']} texts became numbers, as listed in {listed['file']}")
    return "\n".join([*lines, *_accounts(manifest)])


def _accounts(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Input, rows in shards and rejects of each kind; reasons; warnings."""
    counts, rejected = manifest["counts"], manifest["rejected"]
    for kind, kept in ACCOUNTS:
        lost = rejected["kinds"][kind]
        origin = "written:" if kind == "caption" and are_written(manifest) else "input:"
        yield f"{origin:<10}{manifest['totals'][kind]} {kind}s = {counts[kept]} in shards + {lost} rejected"
    for reason, number in rejected["reasons"].items():
        yield f"rejected: {number} {reason}"
    if rejected["rows"]:
        yield f"all of them are listed in {rejected['file']}"
    yield from (f"made:     {text}" for text in marks(manifest))
    yield from (f"doubtful: {text}" for text in doubts(manifest))
    yield from (f"warning:  {text}" for text in concerns(manifest))
