"""What a command knows of the Ray job that it runs in, if it does; `python -m cluster submit` sets the variables.

OBJGAN_RUNS   `new`: the command may not go on with a run that was begun before; anything else: as always
OBJGAN_TAGS   JSON: tags of every MLflow run of the command
"""

import json
import os
from typing import Any

from objgan.errors import InputError
from pipelines.storage.storage import Storage

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def job_environment() -> dict[str, Any] | None:
    """The runtime environment of the Ray job that this process is the driver of; None: it is not one."""
    try:
        config = json.loads(os.environ[_JOB])
    except (KeyError, ValueError):
        return None
    found = config.get("runtime_env") if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}


def tags() -> dict[str, str]:
    """Who submitted what, from which revision; nothing outside of a job."""
    try:
        told = json.loads(os.environ.get("OBJGAN_TAGS") or "{}")
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in told.items()} if isinstance(told, dict) else {}


def refuse_reuse(storage: Storage, *marks: str) -> None:
    """See that a job that was submitted as a new one does not go on with another's run, which its name may hide.

    marks: files that a begun run has

    Raises:
        InputError: it would.
    """
    if os.environ.get("OBJGAN_RUNS") != "new":
        return
    if any(storage.exists(mark) for mark in marks):
        raise InputError(
            f"{storage} holds a run that was begun before: submit with --resume to go on with it, or name another"
        )
