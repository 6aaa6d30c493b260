"""The Ray job in which a command runs, if any; `python -m cluster submit` sets the variables.

OBJGAN_RUNS   `new`: the command must not continue an earlier run; any other value has no effect
OBJGAN_TAGS   JSON: tags of every MLflow run of the command
"""

import json
import os
from typing import Any

from objgan.errors import InputError
from pipelines.storage.storage import Storage

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def job_environment() -> dict[str, Any] | None:
    """The runtime environment of the Ray job whose driver this process is; None: it is not a job's driver."""
    try:
        config = json.loads(os.environ[_JOB])
    except (KeyError, ValueError):
        return None
    environment = config.get("runtime_env") if isinstance(config, dict) else None
    return environment if isinstance(environment, dict) else {}


def tags() -> dict[str, str]:
    """Tags of the submission (user, id, git revision); empty outside of a job."""
    try:
        values = json.loads(os.environ.get("OBJGAN_TAGS") or "{}")
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in values.items()} if isinstance(values, dict) else {}


def refuse_reuse(storage: Storage, *marks: str) -> None:
    """Check that a job that was submitted as new does not continue an earlier run of the same name.

    marks: files of a run that has begun

    Raises:
        InputError: it would.
    """
    if os.environ.get("OBJGAN_RUNS") != "new":
        return
    if any(storage.exists(mark) for mark in marks):
        raise InputError(f"{storage} already holds a run: submit with --resume to continue it, or choose another name")
