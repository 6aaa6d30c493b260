"""Records that MLflow has not received yet, stored in the run's storage until they are uploaded.

`mlflow_backlog/00000007-3fa2c1.jsonl` holds some records, one per line, in the order in which they were logged; a
picture is a PNG file beside it. A file is written and removed as a whole, so a kill at any moment loses nothing.
"""

import contextlib
import io
import json
import os
import secrets
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from PIL import Image

from objgan.json_input import OWN, parse_json
from pipelines.storage.storage import Storage

FOLDER = "mlflow_backlog"
# A storage that is away must not hold up training: the records stay in memory, and the next write includes them.
_PATIENCE = 5.0


def _now() -> int:
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Parameters:
    """Settings by dotted name."""

    parameters: Mapping[str, str]


@dataclass(frozen=True)
class Metrics:
    """Metrics of a step, and when they were logged (unix milliseconds)."""

    metrics: Mapping[str, float]
    step: int
    time: int = field(default_factory=_now)


@dataclass(frozen=True)
class Picture:
    """A picture of a step: an image, or the bytes of a PNG file."""

    name: str
    step: int
    image: Image.Image | bytes

    def png(self) -> bytes:
        """The bytes of the PNG file."""
        if isinstance(self.image, bytes):
            return self.image
        file = io.BytesIO()
        self.image.save(file, "PNG")
        return file.getvalue()


@dataclass(frozen=True)
class Status:
    """RUNNING, FINISHED, FAILED or KILLED, and since when (unix milliseconds)."""

    status: str
    time: int = field(default_factory=_now)


@dataclass(frozen=True)
class Tags:
    """Tags of the run."""

    tags: Mapping[str, str]


@dataclass(frozen=True)
class Dataset:
    """The data set that the run reads: digest, location, images of each split."""

    dataset: str
    source: str
    rows: Mapping[str, int]


Record = Parameters | Metrics | Picture | Status | Tags | Dataset
_KINDS: dict[str, type[Parameters | Metrics | Status | Tags | Dataset]] = {
    "parameters": Parameters,
    "metrics": Metrics,
    "status": Status,
    "tags": Tags,
    "dataset": Dataset,
}
"""Class of a line's record, by a key that no other line has."""


@dataclass(frozen=True)
class Queued:
    """The number of queued records, the folder that holds them, and the run as `runs send` takes it."""

    metrics: int
    pictures: int
    others: int
    folder: str
    run: str

    def __bool__(self) -> bool:
        return bool(self.metrics or self.pictures or self.others)

    def text(self) -> str:
        """One line: what is queued, where, and the command that uploads it."""
        counts = [_count(self.metrics, "metric"), _count(self.pictures, "picture")]
        if not (self.metrics or self.pictures):
            counts = [_count(self.others, "record") + " (settings, status)"]
        verb = "is" if len(counts) == 1 and self.others == 1 else "are"
        return (
            f"MLflow was not reachable: {' and '.join(counts)} {verb} queued in {self.folder}; the next command of "
            f"this run uploads the queue, or run `python -m pipelines runs send {shlex.quote(self.run)}`"
        )


class OfflineQueue:
    """The records of a run that are not uploaded yet, oldest first."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage.patient(_PATIENCE)  # the caller reports what happens to the records
        self._writer = secrets.token_hex(3)  # two processes of a run never write the same file
        self._number = max((int(name.partition("-")[0]) for name in self.names()), default=0)

    def names(self) -> list[str]:
        """Its files, oldest first."""
        names = self._storage.names(FOLDER)
        return [name for name in names if name.endswith(".jsonl") and name.partition("-")[0].isdigit()]

    def add(self, records: Iterable[Record]) -> str:
        """Store records in a new file, after all others; returns its name.

        Raises:
            OSError: the storage is not available; nothing was added.
        """
        name = f"{self._number + 1:08d}-{self._writer}.jsonl"
        lines = [json.dumps(self._line(record, f"{name[:-6]}-{i}.png")) + "\n" for i, record in enumerate(records)]
        self._storage.write(f"{FOLDER}/{name}", "".join(lines))
        self._number += 1
        return name

    def read(self, name: str) -> list[Record]:
        """The records of a file; none if another process has removed it, or if it is broken (it is then renamed)."""
        try:
            records = [self._record(line) for line in self._lines(name)]
        except (ValueError, KeyError, TypeError):
            # It would block all later records.
            self._storage.rename(f"{FOLDER}/{name}", f"{FOLDER}/{name}.broken")
            return []
        return [record for record in records if record is not None]

    def remove(self, name: str) -> None:
        """Remove a file that was uploaded, and its pictures."""
        stem = name.removesuffix(".jsonl")
        pictures = [other for other in self._storage.names(FOLDER) if other.startswith(stem) and other != name]
        for file in (name, *pictures):
            self._storage.delete(f"{FOLDER}/{file}")
        if self._storage.local is not None:
            with contextlib.suppress(OSError):  # not empty: another process has just added a file
                (self._storage.local / FOLDER).rmdir()

    def summary(self) -> Queued:
        """Counts of what is queued; a metric that was logged again after a resume counts once."""
        lines = [line for name in self.names() for line in self._lines(name)]
        metrics = {(key, line["step"]) for line in lines for key in line.get("metrics", ())}
        pictures = {(line["picture"], line["step"]) for line in lines if "picture" in line}
        others = sum(not line.keys().isdisjoint(_KINDS.keys() - {"metrics"}) for line in lines)
        place = shown(self._storage)
        run = place if self._storage.local is not None else self._storage.address
        return Queued(len(metrics), len(pictures), others, f"{place}/{FOLDER}", run)

    def _lines(self, name: str) -> list[dict]:
        try:
            return [parse_json(line, OWN) for line in self._storage.read(f"{FOLDER}/{name}").splitlines()]
        except FileNotFoundError:
            return []

    def _line(self, record: Record, file: str) -> dict[str, object]:
        """The record as JSON; a picture is written to `file`."""
        if not isinstance(record, Picture):
            return asdict(record)
        self._storage.write(f"{FOLDER}/{file}", record.png())
        return {"picture": record.name, "step": record.step, "file": file}

    def _record(self, line: dict) -> Record | None:
        """The record of a line; None for a picture whose file is missing."""
        for key, kind in _KINDS.items():
            if key in line:
                return kind(**line)
        with contextlib.suppress(FileNotFoundError):
            return Picture(line["picture"], line["step"], self._storage.read(f"{FOLDER}/{line['file']}"))
        return None


def shown(storage: Storage) -> str:
    """A storage as a user types it: relative if it is below the working directory."""
    if storage.local is None:
        return str(storage)
    relative = os.path.relpath(storage.local)
    return str(storage.local) if relative.startswith("..") else relative


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
