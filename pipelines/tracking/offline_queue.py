"""What a run had to tell while MLflow was away, kept in the run's storage until it is sent.

`mlflow_backlog/00000007-3fa2c1.jsonl` holds some records, one a line, in the order in which they were told; a picture
lies beside it as a PNG file. Files are only ever added whole and removed whole, so a kill at any moment loses nothing.
"""

import contextlib
import io
import json
import os
import secrets
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from PIL import Image

from objgan.json_input import OWN, parse_json
from pipelines.storage.storage import Storage

FOLDER = "mlflow_backlog"
# A record must not hold up the training that it is told of: the records stay in memory, and are written next time.
_PATIENCE = 5.0


def _now() -> int:
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Parameters:
    """Settings by dotted name."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Metrics:
    """Numbers of a step, and when they were told (unix milliseconds)."""

    values: Mapping[str, float]
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

    values: Mapping[str, str]


Record = Parameters | Metrics | Picture | Status | Tags


@dataclass(frozen=True)
class Queued:
    """How much a backlog holds, the folder that it is in, and the run as `runs send` takes it."""

    metrics: int
    pictures: int
    others: int
    folder: str
    run: str

    def __bool__(self) -> bool:
        return bool(self.metrics or self.pictures or self.others)

    def text(self) -> str:
        """One line that says what is kept, where, and the command that sends it."""
        what = [_count(self.metrics, "metric"), _count(self.pictures, "picture")]
        if not (self.metrics or self.pictures):
            what = [_count(self.others, "note") + " (settings, status)"]
        are = "is" if len(what) == 1 and self.others == 1 else "are"
        return (
            f"MLflow was not reached: {' and '.join(what)} {are} kept in {self.folder}; sent by the next command of "
            f"this run, or by `python -m pipelines runs send {shlex.quote(self.run)}`"
        )


class OfflineQueue:
    """The records of a run that are still to be sent, oldest first."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage.patient(_PATIENCE)
        self._storage.log = _quiet  # whoever uses it says what becomes of the records
        self._writer = secrets.token_hex(3)  # two processes of a run never write the same file
        self._number = max((int(name.partition("-")[0]) for name in self.names()), default=0)

    def names(self) -> list[str]:
        """Its files, oldest first."""
        found = self._storage.names(FOLDER)
        return [name for name in found if name.endswith(".jsonl") and name.partition("-")[0].isdigit()]

    def add(self, records: Iterable[Record]) -> str:
        """Keep records, after everything that is there; the name of the new file.

        Raises:
            OSError: the storage does not take it; nothing was added.
        """
        name = f"{self._number + 1:08d}-{self._writer}.jsonl"
        lines = [self._line(record, name, place) for place, record in enumerate(records)]
        self._storage.write(f"{FOLDER}/{name}", "".join(json.dumps(line) + "\n" for line in lines))
        self._number += 1
        return name

    def read(self, name: str) -> list[Record]:
        """The records of a file; none where another process has sent and removed it, or where it is no backlog."""
        try:
            records = [self._record(line) for line in self._lines(name)]
        except (ValueError, KeyError, TypeError):
            # It would hold up all that comes after it.
            self._storage.rename(f"{FOLDER}/{name}", f"{FOLDER}/{name}.broken")
            return []
        return [record for record in records if record is not None]

    def remove(self, name: str) -> None:
        """Forget a file that was sent."""
        stem = name.removesuffix(".jsonl")
        pictures = [other for other in self._storage.names(FOLDER) if other.startswith(stem) and other != name]
        for each in (name, *pictures):
            self._storage.delete(f"{FOLDER}/{each}")
        if self._storage.local is not None:
            with contextlib.suppress(OSError):  # not empty: another process has just added something
                (self._storage.local / FOLDER).rmdir()

    def kept(self) -> Queued:
        """What it holds; a metric that was told again after a resume counts once."""
        lines = [line for name in self.names() for line in self._lines(name)]
        metrics = {(key, line["step"]) for line in lines for key in line.get("metrics", ())}
        pictures = {(line["picture"], line["step"]) for line in lines if "picture" in line}
        others = sum(not line.keys().isdisjoint(("parameters", "status", "tags")) for line in lines)
        place = shown(self._storage)
        run = place if self._storage.local is not None else self._storage.address
        return Queued(len(metrics), len(pictures), others, f"{place}/{FOLDER}", run)

    def _lines(self, name: str) -> list[dict]:
        try:
            return [parse_json(line, OWN) for line in self._storage.read(f"{FOLDER}/{name}").splitlines()]
        except FileNotFoundError:
            return []

    def _line(self, record: Record, name: str, place: int) -> dict[str, object]:
        match record:
            case Parameters(values):
                return {"parameters": dict(values)}
            case Metrics(values, step, when):
                return {"metrics": dict(values), "step": step, "time": when}
            case Status(status, when):
                return {"status": status, "time": when}
            case Tags(values):
                return {"tags": dict(values)}
            case Picture(title, step, _):
                file = f"{name.removesuffix('.jsonl')}-{place}.png"
                self._storage.write(f"{FOLDER}/{file}", record.png())
                return {"picture": title, "step": step, "file": file}

    def _record(self, line: dict) -> Record | None:
        if "metrics" in line:
            return Metrics(line["metrics"], line["step"], line["time"])
        if "parameters" in line:
            return Parameters(line["parameters"])
        if "tags" in line:
            return Tags(line["tags"])
        if "status" in line:
            return Status(line["status"], line["time"])
        try:
            return Picture(line["picture"], line["step"], self._storage.read(f"{FOLDER}/{line['file']}"))
        except FileNotFoundError:
            return None


def shown(storage: Storage) -> str:
    """A storage as a person types it: relative where it lies below the working directory."""
    if storage.local is None:
        return str(storage)
    relative = os.path.relpath(storage.local)
    return str(storage.local) if relative.startswith("..") else relative


def _quiet(text: str) -> None:
    pass


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
