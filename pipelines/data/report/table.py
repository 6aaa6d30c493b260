"""The survey as lines for a terminal, and as numbers for programs."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from objgan.vocabulary import UNK
from pipelines.data.report.counts import AREA_EDGES, SIZES, Survey
from pipelines.data.shards.concerns import concerns, marks
from pipelines.data.shards.format import summary

_CLASSES, _PAIRS = 10, 3


def lines(survey: Survey) -> Iterator[str]:
    """The summary of `prepare`, then the distributions."""
    yield from summary(survey.manifest).splitlines()
    yield ""
    yield f"{'split':<12}{'images':>9}{'captions':>10}{'objects':>9}{'masks':>9}{'crowds':>8}{'words known':>13}"
    for name, split in [*survey.splits.items(), *([("all", survey.total)] if len(survey.splits) > 1 else [])]:
        known = f"{1 - split.unknown / split.words:.2%}" if split.words else "-"
        objects = f"{split.objects:>9}{split.masks:>9}{split.crowds:>8}"
        yield f"{name:<12}{split.images:>9}{split.captions:>10}{objects}{known:>13}"
    yield ""
    for title, counts in (("objects per image", survey.objects), ("words per caption", survey.words)):
        mean, median, largest = quantiles(counts)
        more = "+" if largest == len(counts) - 1 else ""
        yield f"{title:<18}mean {mean:5.1f}  median {median:3d}  most {largest}{more}  {sparks(counts)}"
    total = max(1, survey.total.objects)
    sizes = ", ".join(f"{name} {survey.sizes[name] / total:.0%}" for name in SIZES)
    yield f"{'object areas':<18}{sizes}  {sparks(survey.areas)}"
    used = int(np.count_nonzero(survey.vocabulary))
    yield f"{'vocabulary':<18}{len(survey.words_known) - UNK - 1} words, {used} of them in these captions"
    yield ""
    yield from _classes(survey)


def _classes(survey: Survey) -> Iterator[str]:
    top = np.argsort(-survey.class_objects, kind="stable")[:_CLASSES].tolist()
    width = max((len(survey.classes[label]) for label in top), default=0) + 2
    for label in top:
        count = int(survey.class_objects[label])
        bar = "#" * round(30 * count / max(1, int(survey.class_objects.max())))
        yield f"{survey.classes[label]:<{width}}{count:>9}  {bar}"
    absent = [name for name, count in zip(survey.classes, survey.class_objects, strict=True) if not count]
    if absent:
        more = ", ..." if len(absent) > _CLASSES else ""
        yield f"without any object: {len(absent)} classes ({', '.join(absent[:_CLASSES])}{more})"
    for first, second, number in pairs(survey, _PAIRS):
        yield f"together: {first} and {second} in {number} images"


def numbers(survey: Survey) -> dict[str, Any]:
    """All counts, as plain values for JSON."""
    manifest = survey.manifest
    spread = {}
    for name, counts in (("objects_per_image", survey.objects), ("words_per_caption", survey.words)):
        mean, median, _ = quantiles(counts)
        spread[name] = {"mean": mean, "median": median, "counts": counts.tolist()}
    classes = zip(survey.classes, survey.class_objects.tolist(), survey.class_images.tolist(), strict=True)
    upper = int(np.count_nonzero(np.triu(survey.together, 1)))
    return {
        "data": survey.where,
        "digest": manifest["digest"],
        "image_size": manifest["settings"]["image_size"],
        "splits": {name: asdict(split) for name, split in survey.splits.items()},
        **spread,
        "areas": {"edges": AREA_EDGES.tolist(), "counts": survey.areas.tolist()},
        "sizes": {name: survey.sizes[name] for name in SIZES},
        "classes": [{"name": name, "objects": objects, "images": images} for name, objects, images in classes],
        "together": [{"classes": [a, b], "images": number} for a, b, number in pairs(survey, upper)],
        "vocabulary": {
            "words": len(survey.words_known) - UNK - 1,
            "seen": int(np.count_nonzero(survey.vocabulary)),
        },
        "input": manifest["totals"],
        "rejected": {name: manifest["rejected"][name] for name in ("rows", "kinds", "reasons")},
        "contradictions": manifest["contradictions"],
        "made": list(marks(manifest)),
        "warnings": list(concerns(manifest)),
        "samples": [sample.image_id for sample in survey.samples],
    }


def quantiles(counts: np.ndarray) -> tuple[float, int, int]:
    """Mean, median and maximum of the values 0, 1, ... that occur `counts` times."""
    total = int(counts.sum())
    if not total:
        return 0.0, 0, 0
    values = np.arange(len(counts))
    median = int(np.searchsorted(counts.cumsum(), (total + 1) // 2))
    return float((values * counts).sum() / total), median, int(np.flatnonzero(counts)[-1])


def pairs(survey: Survey, most: int) -> list[tuple[str, str, int]]:
    """Pairs of classes in one image and the number of such images, the most frequent pairs first."""
    upper = np.triu(survey.together, 1)
    order = np.argsort(-upper, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, upper.shape)
    return [
        (survey.classes[a], survey.classes[b], int(upper[a, b]))
        for a, b in zip(rows.tolist(), columns.tolist(), strict=True)
        if upper[a, b]
    ]


def sparks(counts: np.ndarray) -> str:
    """Counts as a line of small bars, without the empty bins at its end."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        return ""
    shares = counts[: filled[-1] + 1] / counts.max()
    return "".join(" ▁▂▃▄▅▆▇█"[int(np.ceil(share * 8))] for share in shares)
