"""The alias `champion` of a registered model: which version has it, and its moves, each with an audit trail.

The trail is in tags of the version and in a line of its description. The order of the champions is in a tag of the
registered model: a version that is promoted again has more than one predecessor.
"""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from objgan.errors import InputError
from pipelines.command_line import user
from pipelines.models import CHAMPION, STATUS
from pipelines.models.card import with_line
from pipelines.models.registry import mlflow_at, mlflow_errors
from pipelines.redaction import redact

FROM = "objgan.promoted_from"
"""Tag of a version: the number of the champion before it, empty without one."""
HISTORY = "objgan.champions"
"""Tag of a registered model: JSON, the numbers of the champions in their order, now the last; "" where none was."""
_MOST_HISTORY = 200
"""A tag has room for 5000 characters in MLflow's databases."""
_NAME = "objgan"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_STALE_MS = 60_000
"""Age of a lock whose process was killed: a move takes about a second."""


class Version(NamedTuple):
    """A version of a registered model."""

    name: str
    number: str

    @property
    def uri(self) -> str:
        """As MLflow addresses it."""
        return f"models:/{self.name}/{self.number}"


def model_named(location: Path | str | None, tracking_uri: str) -> Path | str:
    """The location of a model, where an alias is replaced by the version that has it now.

    None: the champion of `objgan`, or its challenger while there is no champion

    Raises:
        InputError: the store cannot be used, or no version has this alias.
        StorageRefused: MLflow denies access.
    """
    if location is not None and not re.match(r"models:/.*@", str(location)):
        return location
    with mlflow_at(tracking_uri) as client:
        if location is None:
            location = f"models:/{_NAME}@{CHAMPION if find_champion(client, _NAME) else 'challenger'}"
        return find_version(client, str(location)).uri


def is_version(location: Path | str) -> bool:
    """Whether it is `models:/NAME/VERSION`."""
    return re.fullmatch(r"models:/+[^/@]+/\d+", str(location)) is not None


def registered_name(uri: str) -> str:
    """The NAME of `models:/NAME/VERSION` or `models:/NAME@ALIAS`.

    Raises:
        InputError: another address.
    """
    match = re.fullmatch(r"models:/+([^/@]+)(@[^/@]+|/\d+)", uri)
    if match is None:
        raise InputError(f"{uri} is no version of a registered model: give models:/NAME@ALIAS or models:/NAME/VERSION")
    return match[1]


def find_version(client: Any, uri: str) -> Version:
    """The version that `models:/NAME/VERSION` or `models:/NAME@ALIAS` means.

    Raises:
        InputError: another address, or no such version.
        StorageRefused: MLflow denies access.
    """
    name = registered_name(uri)
    _, at, alias = uri.partition("@")
    with mlflow_errors(f"unknown model {uri}", *_ABSENT):
        version = (
            client.get_model_version_by_alias(name, alias)
            if at
            else client.get_model_version(name, uri.rpartition("/")[2])
        )
    return Version(name, str(version.version))


def find_champion(client: Any, name: str) -> Version | None:
    """The version with the alias `champion`; None without one, or without a model of this name.

    Raises:
        StorageRefused: MLflow denies access.
    """
    with mlflow_errors(f"MLflow: cannot read the aliases of {name}", *_ABSENT):
        model = _registered_model(client, name)
    aliases = {} if model is None else model.aliases
    return Version(name, str(aliases[CHAMPION])) if CHAMPION in aliases else None


def promote_version(client: Any, new: Version, old: Version | None, status: str, why: str) -> None:
    """Move the alias `champion` from `old` to `new`, and write the trail.

    status: of the validation, `passed` or `forced`

    Raises:
        InputError: `old` is no longer the champion, or another process moves the alias at this moment.
        StorageRefused: MLflow denies access.
    """
    with _alone(client, new.name):
        if (now := find_champion(client, new.name)) != old:
            raise InputError(
                f"{new.name}@{CHAMPION} changed from {_label(old)} to {_label(now)} since the comparison: repeat it"
            )
        before = old.number if old else ""
        history = _history(client, new.name, before)
        _note(client, new, status, f"champion in place of {_label(old)}", why, {FROM: before})
        _keep(client, new.name, [*(history if history[-1:] == [before] else [*history, before]), new.number])
        client.set_registered_model_alias(new.name, CHAMPION, new.number)


def note_failure(client: Any, version: Version, why: str) -> None:
    """Write to the trail that a version did not pass the comparison.

    Raises:
        StorageRefused: MLflow denies access.
    """
    with mlflow_errors(f"MLflow: cannot write to {version.uri}", *_ABSENT):
        _note(client, version, "failed", "not promoted", why, {})


def roll_back(client: Any, name: str, why: str) -> tuple[Version, Version | None]:
    """Give the alias back to the version that had it before; returns the versions that lose and get it.

    Repeated, it goes back through all champions to the time without one.

    Raises:
        InputError: no champion, one that `promote` did not make, or its predecessor was deleted.
        StorageRefused: MLflow denies access.
    """
    with _alone(client, name):
        old = find_champion(client, name)
        if old is None:
            raise InputError(f"{name} has no champion: nothing to roll back")
        history = _history(client, name, old.number)
        if history[-1:] != [old.number] or len(history) < 2:
            raise InputError(f"{old.uri} became champion without `promote`: set the alias in MLflow")
        new = find_version(client, Version(name, history[-2]).uri) if history[-2] else None
        _note(client, old, "rolled back", f"champion is again {_label(new)}", why, {})
        _keep(client, name, history[:-1])
        if new is None:
            client.delete_registered_model_alias(name, CHAMPION)
        else:
            client.set_registered_model_alias(name, CHAMPION, new.number)
    return old, new


def _history(client: Any, name: str, now: str) -> list[str]:
    """The numbers of the champions in their order.

    now: the champion's number; without the tag, which earlier versions of `promote` did not write, the versions' own
         tags say which champion was before it
    """
    if (text := client.get_registered_model(name).tags.get(HISTORY)) is not None:
        return _listed(text, name)
    history = [now]
    while history[0] and (before := _before(client, name, history[0])) is not None and before not in history:
        history.insert(0, before)
    return history


def _listed(text: str, name: str) -> list[str]:
    with contextlib.suppress(ValueError):
        numbers = json.loads(text)
        if isinstance(numbers, list) and all(isinstance(number, str) for number in numbers):
            return numbers
    raise InputError(f"tag {HISTORY} of model {name} is no list of versions: delete the tag, and repeat the command")


def _before(client: Any, name: str, number: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        before = client.get_model_version(name, number).tags.get(FROM)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        return None  # deleted
    return None if before is None else str(before)


def _keep(client: Any, name: str, history: list[str]) -> None:
    client.set_registered_model_tag(name, HISTORY, json.dumps(history[-_MOST_HISTORY:]))


def _label(version: Version | None) -> str:
    return f"version {version.number}" if version else "none"


def _note(client: Any, version: Version, status: str, what: str, why: str, tags: dict[str, str]) -> None:
    """Tags, and a line at the end of the description."""
    when, who, why = datetime.now(UTC).isoformat(timespec="seconds"), user(), redact(" ".join(why.split()))[:500]
    tags = {STATUS: status, "objgan.decided_at": when, "objgan.decided_by": who, "objgan.decided_why": why, **tags}
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.number, key, value)
    before = client.get_model_version(version.name, version.number).description or ""
    line = f"{when} {who}: {what} ({status}: {why})"
    client.update_model_version(version.name, version.number, with_line(before, line))


@contextlib.contextmanager
def _alone(client: Any, name: str, suffix: str = ".moving-alias") -> Iterator[None]:
    """Hold a model's aliases: while one process moves one, another is refused.

    MLflow has no conditional update. But it creates a registered model of a name only once, whichever machine asks.
    A lock that a killed process left is removed under a second lock: otherwise, of two processes that see it, the later
    one would remove the lock that the other has just created.
    """
    from mlflow.exceptions import MlflowException

    lock = name + suffix
    with mlflow_errors(f"MLflow: cannot move {name}@{CHAMPION}", *_ABSENT):
        if _is_stale(client, lock):
            with _alone(client, name, f"{suffix}.removal"):
                if _is_stale(client, lock):
                    client.delete_registered_model(lock)
        try:
            client.create_registered_model(lock, description="Lock of `promote`: exists for about a second.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            raise InputError(f"another process is moving {name}@{CHAMPION}: look at the result, then repeat") from None
        try:
            yield
        finally:
            client.delete_registered_model(lock)


def _is_stale(client: Any, lock: str) -> bool:
    model = _registered_model(client, lock)
    return model is not None and time.time() * 1000 - model.creation_timestamp > _STALE_MS


def _registered_model(client: Any, name: str) -> Any:
    """What MLflow has of this name; None without it."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        return None
