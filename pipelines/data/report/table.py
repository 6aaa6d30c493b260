"""The survey as lines for a terminal, and as numbers for programs."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from objgan.vocabulary import UNK
from pipelines.data.report.counts import AREA_EDGES, SIZES, Survey
from pipelines.data.shards.concerns import concerns
from pipelines.data.shards.format import summary

_CLASSES, _PAIRS = 10, 3


def lines(found: Survey) -> Iterator[str]:
    """What `prepare` said at its end, then the distributions."""
    yield from summary(found.manifest).splitlines()
    yield ""
    yield f"{'split':<12}{'images':>9}{'captions':>10}{'objects':>9}{'masks':>9}{'crowds':>8}{'words known':>13}"
    for name, one in [*found.splits.items(), *([("all", found.total)] if len(found.splits) > 1 else [])]:
        known = f"{1 - one.unknown / one.words:.2%}" if one.words else "-"
        yield f"{name:<12}{one.images:>9}{one.captions:>10}{one.objects:>9}{one.masks:>9}{one.crowds:>8}{known:>13}"
    yield ""
    for what, counts in (("objects an image", found.objects), ("words a caption", found.words)):
        mean, median, largest = quantiles(counts)
        more = "+" if largest == len(counts) - 1 else ""
        yield f"{what:<18}mean {mean:5.1f}  median {median:3d}  most {largest}{more}  {sparks(counts)}"
    objects = max(1, found.total.objects)
    sizes = ", ".join(f"{name} {found.sizes[name] / objects:.0%}" for name in SIZES)
    yield f"{'object areas':<18}{sizes}  {sparks(found.areas)}"
    used = int(np.count_nonzero(found.vocabulary))
    yield f"{'vocabulary':<18}{len(found.words_known) - UNK - 1} words, {used} of them in these captions"
    yield ""
    yield from _classes(found)


def _classes(found: Survey) -> Iterator[str]:
    top = np.argsort(-found.class_objects, kind="stable")[:_CLASSES].tolist()
    width = max((len(found.classes[label]) for label in top), default=0) + 2
    for label in top:
        count = int(found.class_objects[label])
        bar = "#" * round(30 * count / max(1, int(found.class_objects.max())))
        yield f"{found.classes[label]:<{width}}{count:>9}  {bar}"
    absent = [name for name, count in zip(found.classes, found.class_objects, strict=True) if not count]
    if absent:
        more = ", ..." if len(absent) > _CLASSES else ""
        yield f"without any object: {len(absent)} classes ({', '.join(absent[:_CLASSES])}{more})"
    for first, second, number in pairs(found, _PAIRS):
        yield f"together: {first} and {second} in {number} images"


def numbers(found: Survey) -> dict[str, Any]:
    """All counts, as JSON has them."""
    manifest = found.manifest
    spread = {}
    for name, counts in (("objects_per_image", found.objects), ("words_per_caption", found.words)):
        mean, median, _ = quantiles(counts)
        spread[name] = {"mean": mean, "median": median, "counts": counts.tolist()}
    seen = zip(found.classes, found.class_objects.tolist(), found.class_images.tolist(), strict=True)
    upper = int(np.count_nonzero(np.triu(found.together, 1)))
    return {
        "data": found.where,
        "digest": manifest["digest"],
        "image_size": manifest["settings"]["image_size"],
        "splits": {name: asdict(one) for name, one in found.splits.items()},
        **spread,
        "areas": {"edges": AREA_EDGES.tolist(), "counts": found.areas.tolist()},
        "sizes": {name: found.sizes[name] for name in SIZES},
        "classes": [{"name": name, "objects": objects, "images": images} for name, objects, images in seen],
        "together": [{"classes": [a, b], "images": number} for a, b, number in pairs(found, upper)],
        "vocabulary": {
            "words": len(found.words_known) - UNK - 1,
            "seen": int(np.count_nonzero(found.vocabulary)),
        },
        "input": manifest["totals"],
        "rejected": {name: manifest["rejected"][name] for name in ("rows", "kinds", "reasons")},
        "contradictions": manifest["contradictions"],
        "warnings": list(concerns(manifest)),
        "samples": [one.image_id for one in found.samples],
    }


def quantiles(counts: np.ndarray) -> tuple[float, int, int]:
    """Mean, median and largest of values 0, 1, ... that occur `counts` times."""
    total = int(counts.sum())
    if not total:
        return 0.0, 0, 0
    values = np.arange(len(counts))
    median = int(np.searchsorted(counts.cumsum(), (total + 1) // 2))
    return float((values * counts).sum() / total), median, int(np.flatnonzero(counts)[-1])


def pairs(found: Survey, most: int) -> list[tuple[str, str, int]]:
    """The two classes that are most often in one image, and in how many, the most frequent first."""
    upper = np.triu(found.together, 1)
    order = np.argsort(-upper, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, upper.shape)
    return [
        (found.classes[a], found.classes[b], int(upper[a, b]))
        for a, b in zip(rows.tolist(), columns.tolist(), strict=True)
        if upper[a, b]
    ]


def sparks(counts: np.ndarray) -> str:
    """Counts as a line of little bars, without what is empty at the end."""
    there = np.flatnonzero(counts)
    if not len(there):
        return ""
    shares = counts[: there[-1] + 1] / counts.max()
    return "".join(" ▁▂▃▄▅▆▇█"[int(np.ceil(share * 8))] for share in shares)
