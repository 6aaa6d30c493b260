"""Warnings about a data set: a kind without usable records, many rejects, values that contradict each other."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from objgan.errors import InputError
from pipelines.data.shards.manifest import CONTRADICTIONS
from pipelines.data.shards.rejected import RejectCounts

NOUNS = {"image": "images", "caption": "captions", "annotation": "objects", "mask": "masks"}
_MANY_REJECTED, _MANY_DOUBTFUL, _MOST = 0.2, 0.05, 0.5

# Reasons whose cause is another rejected record.
_CONSEQUENCES = ("its image was rejected", "without a caption", "without an object")

# Name of the count -> the kind it counts, its text, and the likely cause if most are like that.
_DOUBTS = {
    "outside": ("masks", "masks have over 20 % of their pixels outside their box", ""),
    "oversized": ("areas", "areas are over 1.2 x their box", ""),
    "tiny": (
        "boxes",
        "boxes are under 2 pixels wide and high",
        "are they fractions? COCO's boxes are in pixels",
    ),
    "cut": (
        "boxes",
        "boxes extend beyond the image border",
        "are they corners [x1, y1, x2, y2]? COCO's boxes are [x, y, width, height]",
    ),
}


def contradictions(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of the counts of all shards, by the names `CONTRADICTIONS`."""
    total = sum((Counter(part) for part in parts), Counter[str]())
    return {name: total[name] for name in CONTRADICTIONS}


def refuse_lost(totals: Mapping[str, int], rejected: RejectCounts, listed: Path) -> None:
    """Refuse a data set that lost all records of a kind.

    totals: records of the input: "image", "caption", "annotation"
    listed: file that lists all rejects, for the message

    Raises:
        InputError: every record of a kind was rejected; it names the most frequent reason and its count.
    """
    lost = [kind for kind, total in totals.items() if total and rejected.kinds[kind] >= total]
    causes = [kind for kind in lost if rejected.commonest(kind)[0] not in _CONSEQUENCES] or lost
    if "image" in causes:
        causes = ["image"]  # rejected captions and objects are a consequence
    if causes:
        lines = "; ".join(
            f"none of the {totals[kind]} {NOUNS[kind]} can be used: {why(rejected, kind)}" for kind in causes
        )
        raise InputError(f"prepare: {lines}; all of them are listed in {listed}")


def why(rejected: RejectCounts, kind: str) -> str:
    """The most frequent reason of a kind, its count, and an example."""
    reason, number = rejected.commonest(kind)
    example = rejected.examples[kind, reason]
    shown = f" (for example {example.detail})" if example.detail else ""
    return f"{number} of them: {reason}{shown}"


def marks(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What in the data is no annotation but was made by `prepare`, one sentence each."""
    shapes = manifest["settings"]["shapes"]
    if shapes != "masks":
        yield f"no mask is an annotation: each is the {shapes} of its object's box (data.shapes={shapes})"
    if are_written(manifest):
        yield "no caption is by a person: all are written from classes and boxes (--captions-from classes)"


def are_written(manifest: Mapping[str, Any]) -> bool:
    """Whether `prepare` wrote the captions; then those in shards count as input."""
    return "captions_from" in manifest["source"]


def concerns(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Warnings about likely mistakes in the data, one sentence each."""
    yield from _rejected(manifest)
    if not manifest["totals"]["annotation"]:
        yield "the input has no objects: only the stage encoders can be trained"
    if manifest["coverage"]["reason"]:
        yield _little_known(**manifest["coverage"])
    for share, text, hint in _doubtful(manifest):
        if share > _MANY_DOUBTFUL:
            yield f"{text}: {hint}" if hint and share > _MOST else text


def doubts(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Boxes, masks and areas that contradict each other but are too few for a warning."""
    for share, text, _ in _doubtful(manifest):
        if share <= _MANY_DOUBTFUL:
            yield text


def _doubtful(manifest: Mapping[str, Any]) -> Iterator[tuple[float, str, str]]:
    """(share, sentence, likely cause) of each kind of contradiction that occurs."""
    counts = manifest["contradictions"]
    for name, (of, text, hint) in _DOUBTS.items():
        if counts[name]:
            share = counts[name] / max(1, counts[of])
            yield share, f"{counts[name]} of {counts[of]} {text} ({share:.1%})", hint


def _little_known(words: int, known: int, reason: str) -> str:
    share = known / max(1, words)
    return f"only {known} of {words} words of the held-out captions ({share:.0%}) are in the vocabulary: {reason}"


def _rejected(manifest: Mapping[str, Any]) -> Iterator[str]:
    totals, rejected = manifest["totals"], manifest["rejected"]
    total = {**totals, "mask": manifest["counts"]["masks"] + rejected["kinds"]["mask"]}
    for kind, noun in NOUNS.items():
        lost = rejected["kinds"][kind]
        if lost > _MANY_REJECTED * total[kind]:
            reasons = {key: n for key, n in rejected["reasons"].items() if key.startswith(f"{kind}: ")}
            key, number = max(reasons.items(), key=lambda item: item[1])
            reason = key.removeprefix(f"{kind}: ")
            yield f"{lost} of {total[kind]} {noun} ({lost / total[kind]:.0%}) were rejected, {number} of them: {reason}"
