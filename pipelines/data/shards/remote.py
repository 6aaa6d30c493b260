"""Reads the files of prepared data one at a time, without a cache, for commands that read everything once."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from objgan.errors import InputError
from objgan.json_input import LIMITS
from pipelines.data.shards.format import check_manifest
from pipelines.data.shards.manifest import MANIFEST
from pipelines.storage.storage import Storage


def read_manifest(storage: Storage) -> dict[str, Any]:
    """The manifest of the prepared data in a storage; does not check whether its files exist.

    Raises:
        InputError: there is none, it is one of another version, or parts of it are missing.
    """
    try:
        content = storage.json(MANIFEST, LIMITS)
    except (NotADirectoryError, IsADirectoryError):
        content = None
    if content is None:
        raise InputError(
            f"data: {storage} is not a prepared folder (it has no {MANIFEST}): run prepare, or upload its output"
        )
    return check_manifest(content, str(storage))


def read_bytes(storage: Storage, name: str) -> pa.Buffer:
    """A file's content; a local file is memory-mapped, so its size does not matter.

    Raises:
        OSError: missing, or it cannot be read.
    """
    if storage.local is None:
        return pa.py_buffer(storage.read(name))
    path = storage.local / name
    if not path.stat().st_size and path.is_file():  # an empty file cannot be mapped
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
