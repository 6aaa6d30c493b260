"""Input records that are in no shard, one line of JSON each."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from objgan.files import file_aside
from objgan.json_input import parse_json

KINDS = ("image", "annotation", "caption", "mask")


@dataclass(frozen=True)
class Reject:
    """One input record that is not in the shards.

    kind:     "image", "annotation", "caption"; or "mask": the object is in a shard without its segmentation
    id:       of the image, the annotation or the caption; null if the record has none
    image_id: the image that it belongs to
    stage:    "read" (the record itself), "join" (what belongs together), "split", "pixels" or "objects"
    reason:   the same text for all rejects of a sort
    detail:   particular to this record
    shard:    the file that would hold it; null if it was rejected before
    """

    kind: str
    id: int | None
    image_id: int | None
    stage: str
    reason: str
    detail: str = ""
    shard: str | None = None

    def line(self) -> str:
        """The line in the file."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"

    def name(self) -> str:
        """For a message."""
        name = self.kind if self.id is None else f"{self.kind} {self.id}"
        return f"{name}, {self.reason}{f' ({self.detail})' if self.detail else ''}"


class Unusable(ValueError):
    """A record cannot be used. reason: the same text for all records of a sort; detail: what is particular to this."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.detail = reason, detail


class RejectCounts:
    """Counts of rejects by kind and reason, the first reject, and an example of each reason."""

    def __init__(self, rejects: Iterable[Reject] = ()) -> None:
        self.kinds: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.first: Reject | None = None
        self.examples: dict[tuple[str, str], Reject] = {}
        for reject in rejects:
            self.add(reject)

    def __len__(self) -> int:
        return self.kinds.total()

    def add(self, reject: Reject) -> None:
        """Count a reject."""
        self.first = self.first or reject
        self.kinds[reject.kind] += 1
        self.reasons[f"{reject.kind}: {reject.reason}"] += 1
        self.examples.setdefault((reject.kind, reject.reason), reject)

    def commonest(self, kind: str) -> tuple[str, int]:
        """The most frequent reason of a kind, and its count; of equal ones, the first."""
        numbers = {reason: self.reasons[f"{kind}: {reason}"] for of, reason in self.examples if of == kind}
        return max(numbers.items(), key=lambda item: item[1])

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "rows": len(self),
            "kinds": {kind: self.kinds[kind] for kind in KINDS},
            "reasons": dict(sorted(self.reasons.items())),
        }


def read_rejects(path: Path) -> Iterator[Reject]:
    """The lines of a file of rejects."""
    with path.open("rb") as file:
        for line in file:
            yield Reject(**parse_json(line))


def write_rejects(path: Path, rejects: Iterable[Reject]) -> RejectCounts:
    """Write a file of rejects atomically, and count them."""
    counts = RejectCounts()
    with file_aside(path) as file:
        for reject in rejects:
            counts.add(reject)
            file.write(reject.line().encode())
    return counts
