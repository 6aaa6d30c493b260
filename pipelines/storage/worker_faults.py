"""Errors of a worker as data, so that they reach the driver unchanged: Ray would wrap them in errors of its own."""

from collections.abc import Mapping
from typing import Any

from objgan.errors import InputError
from pipelines.storage.attempts import WorkerDied
from pipelines.storage.retry import StorageAway, StorageRefused

FAULTS = (InputError, WorkerDied, OSError)
"""What `as_facts` takes; any other error is a bug, whose trace Ray shows."""


def as_facts(error: BaseException) -> dict[str, Any]:
    """One of FAULTS as JSON."""
    if isinstance(error, InputError):
        return {"refused": str(error), "by_storage": isinstance(error, StorageRefused)}
    if isinstance(error, OSError):
        # The whole path, which also names the disk.
        name = str(error.filename) if error.filename else None
        return {"failed": [error.errno, error.strerror or str(error), name]}
    return {"died": str(error)}


def raise_fault(facts: Mapping[str, Any]) -> None:
    """Raise what `as_facts` wrote; quiet where a worker reports success.

    Raises:
        InputError, OSError, WorkerDied: as the worker raised it.
    """
    if "died" in facts:
        raise WorkerDied(facts["died"])
    if "refused" in facts:
        raise (StorageRefused if facts["by_storage"] else InputError)(facts["refused"])
    if "failed" in facts:
        number, text, name = facts["failed"]
        raise OSError(number, text, name) if number is not None else StorageAway(text)
