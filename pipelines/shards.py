"""Prepared data: Arrow shards of flat columns, one row an image, and the manifest that vouches for them."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from objgan.errors import InputError
from objgan.files import read_json, write_atomically

SCHEMA_VERSION = 2
SPLITS = ("train", "validation", "test")
MANIFEST = "manifest.json"
ROWS_PER_SHARD = 256

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
"""width, height: of the original, pixels. image: JPEG of the whole picture pressed into a square, null without pixels.
tokens: one string a caption, its words joined by blanks. Objects: largest box first; boxes: 4 an object, (x, y, w, h),
fractions; areas: fractions of the picture; masks: COCO's compressed run lengths in the stored square, or null; colours:
one name an object, null where unknown. scene: a name, null where unknown. The names are those of `objgan.attributes`.
What a reader must know of all rows at once stands in a file beside the shards, the split's index (`pipelines.index`).
"""


@dataclass(frozen=True)
class Shard:
    """What the manifest says of one file."""

    name: str
    split: str
    rows: int
    bytes: int
    sha256: str


def shard_name(split: str, number: int) -> str:
    """File name of a shard."""
    return f"{split}-{number:05d}.arrow"


def index_name(split: str) -> str:
    """File name of a split's index."""
    return f"{split}-index.arrow"


def write_shard(folder: Path, name: str, split: str, table: pa.Table, schema: pa.Schema = SCHEMA) -> Shard:
    """Write rows of schema `schema` as an uncompressed Arrow IPC file of one record batch; the file appears whole."""
    if not table.schema.equals(schema, check_metadata=True):
        raise ValueError(f"{name}: not a table of the shards' schema: {table.schema}")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(len(table), 1))
    data = sink.getvalue().to_pybytes()
    write_atomically(folder / name, data)
    return Shard(name, split, len(table), len(data), hashlib.sha256(data).hexdigest())


def read_shard(path: Path) -> pa.Table:
    """The rows of a shard, memory-mapped: nothing is read before it is looked at.

    Raises:
        InputError: missing, not an Arrow file, or of another schema version.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"shard: cannot read {path} ({error}); prepare the data again") from None
    version = (table.schema.metadata or {}).get(b"objgan.schema_version", b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise InputError(f"shard: {path} has schema version {version}, this code reads {SCHEMA_VERSION}")
    return table


def shards_of(manifest: Mapping[str, Any], split: str) -> list[Shard]:
    """The shards of a split, in order."""
    return [Shard(**shard) for shard in manifest["shards"] if shard["split"] == split]


def read_split(folder: Path, manifest: Mapping[str, Any], split: str) -> Iterator[pa.Table]:
    """The split's shards, one memory-mapped table each."""
    return (read_shard(folder / shard.name) for shard in shards_of(manifest, split))


def dataset_digest(shards: list[Shard], domain: Mapping[str, str]) -> str:
    """sha256 over the digests of all shards, indices and domain files: what later steps depend on, wherever it lies."""
    parts = [[shard.name, shard.sha256] for shard in shards] + sorted([name, text] for name, text in domain.items())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def save_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json`: from now on the folder counts as prepared."""
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def load_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder whose shards are all there, as long as they should be.

    Raises:
        InputError: not a prepared folder, written by a newer version, or a shard is missing or cut short.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise InputError(f"data: {folder} is not a prepared folder (it has no {MANIFEST}); run prepare first")
    manifest = read_json(path, "manifest")
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if not isinstance(version, int) or "shards" not in manifest:
        raise InputError(f"data: {path} is not a manifest of prepared data; run prepare into another folder")
    if version > SCHEMA_VERSION:
        raise InputError(f"data: {folder} has schema version {version}, this code reads up to {SCHEMA_VERSION}: update")
    if version < SCHEMA_VERSION:
        raise InputError(f"data: {folder} has schema version {version}, too old: prepare into another folder")
    for shard in [*manifest["shards"], *manifest["indices"]]:
        _check_file(folder / shard["name"], shard["bytes"])
    for name in manifest["domain"]:
        _check_file(folder / "domain" / name, None)
    return manifest


def _check_file(path: Path, size: int | None) -> None:
    if not path.is_file():
        raise InputError(f"data: {path} is missing; delete {MANIFEST} beside it and prepare again")
    if size is not None and path.stat().st_size != size:
        raise InputError(
            f"data: {path} has {path.stat().st_size} bytes instead of {size}; delete {MANIFEST} and prepare again"
        )


def summary(manifest: Mapping[str, Any]) -> str:
    """A few lines for people: what is there, and what was left out and why."""
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
    if manifest["columns"]["attributes"]:
        lines.append(f"known:    the colours of {counts['colours']} objects, the scenes of {counts['scenes']} images")
    lines += [f"left out: {number} {reason}" for reason, number in manifest["dropped"].items()]
    if manifest["rejected"]:
        first = manifest["rejected"][0]
        lines.append(
            f"rejected: {len(manifest['rejected'])} images, listed in {MANIFEST} "
            f"(the first: {first['file_name'] or first['image_id']}, {first['reason']})"
        )
    return "\n".join(lines)
