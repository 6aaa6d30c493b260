"""The files of prepared data, read where they lie, one at a time: what looks at everything once needs no cache."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from objgan.errors import InputError
from pipelines.shards import MANIFEST, SPLITS, Shard, check_manifest
from pipelines.storage import Storage


def read_manifest(storage: Storage) -> dict[str, Any]:
    """The manifest of the prepared data in a storage; whether its files are there is not looked at.

    Raises:
        InputError: there is none, it is one of another version, or parts of it are missing.
    """
    try:
        content = storage.json(MANIFEST)
    except (NotADirectoryError, IsADirectoryError):
        content = None
    if content is None:
        raise InputError(f"data: {storage} is not a prepared folder (it has no {MANIFEST}); run prepare first")
    manifest = check_manifest(content, str(storage))
    try:
        _look_through(manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise InputError(f"data: {storage}/{MANIFEST} is damaged ({told}); copy it again, or prepare again") from None
    return manifest


def _look_through(manifest: Mapping[str, Any]) -> None:
    """Fail, in whatever way, where a part is missing or of another kind."""
    for facts in (*manifest["shards"], *manifest["indices"]):
        shard = Shard(**facts)
        if not isinstance(shard.bytes, int) or not isinstance(shard.rows, int) or shard.split not in SPLITS:
            raise TypeError(f"{shard.name}: its split, rows or bytes")
    int(manifest["settings"]["image_size"])
    for name in ("rows", "counts", "totals", "domain", "columns"):
        dict(manifest[name])
    if not all(isinstance(name, str) for name in manifest["classes"]):
        raise TypeError("classes")
    rejected = manifest["rejected"]
    _ = [rejected[name] for name in ("file", "bytes", "sha256", "rows")], dict(rejected["kinds"] | rejected["reasons"])
    _ = str(manifest["digest"]), bool(manifest["columns"]["image"])


def read_bytes(storage: Storage, name: str) -> pa.Buffer:
    """A file's content; of a local one mapped, so that its size does not matter.

    Raises:
        OSError: missing, or it cannot be read.
    """
    if storage.local is None:
        return pa.py_buffer(storage.read(name))
    path = storage.local / name
    if not path.stat().st_size and path.is_file():  # nothing cannot be mapped
        return pa.py_buffer(b"")
    return pa.memory_map(str(path)).read_buffer()


def read_table(name: str, data: pa.Buffer) -> pa.Table:
    """The rows of a shard or an index.

    Raises:
        OSError, pa.ArrowException: not what its name says.
    """
    if name.endswith(".parquet"):
        return pq.read_table(pa.BufferReader(data))
    return pa.ipc.open_file(pa.BufferReader(data)).read_all()
