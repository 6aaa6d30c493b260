"""A survey of prepared data as one HTML page, made from `page.html`: no script, and nothing to fetch.

Jinja escapes all text of the data, and the page's own policy lets a browser load and run nothing.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from objgan.drawing import css_colour, name_colours
from objgan.vocabulary import UNK
from pipelines.data.report.contact_sheet import card
from pipelines.data.report.counts import AREA_EDGES, SIZES, Survey
from pipelines.data.report.table import pairs, quantiles
from pipelines.data.shards.concerns import concerns, doubts, marks
from pipelines.data.shards.manifest import ACCOUNTS

_IN_HEAT, _LEAST_BINS, _FREQUENT = 22, 10, 70


def page(survey: Survey, drawn: str) -> str:
    """The whole page; `drawn` says how its samples were drawn.

    Raises:
        InputError: a mask is damaged.
    """
    manifest, rejected = survey.manifest, survey.manifest["rejected"]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    environment.filters["n"] = "{:,}".format
    return environment.get_template("page.html").render(
        name=_name(survey.where),
        facts=_facts(manifest),
        tiles=_tiles(survey),
        **_charts(survey),
        classes=_classes(survey),
        together=_together(survey),
        records=[
            (f"{kind}s", [manifest["totals"][kind], manifest["counts"][kept], rejected["kinds"][kind]], None)
            for kind, kept in ACCOUNTS
        ],
        rejected=_rejected(rejected),
        made=list(marks(manifest)),
        warnings=list(concerns(manifest)),
        doubts=list(doubts(manifest)),
        samples=[card(sample, survey.classes, int(manifest["settings"]["image_size"])) for sample in survey.samples],
        drawn=drawn,
    )


def _name(where: str) -> str:
    """The last two parts of a location: the rest is of this machine."""
    place = PurePosixPath(where.partition("?")[0].partition("://")[2] or where)
    return "/".join(place.parts[-2:]).lstrip("/") or where


def _facts(manifest: Mapping[str, Any]) -> str:
    size, shards = manifest["settings"]["image_size"], manifest["shards"]
    content = f"{size} × {size} pixels" if manifest["columns"]["image"] else "boxes and captions, no pixels"
    total = sum(shard["bytes"] for shard in shards) / 1e6
    split = f", split by {manifest['split']}" if "split" in manifest else ""
    return f"{content} · {len(shards):,} shards, {total:,.1f} MB{split} · digest {manifest['digest'][:16]}"


def _tiles(survey: Survey) -> list[tuple[str, str]]:
    total = survey.total
    by_split = " / ".join(f"{split.images:,}" for split in survey.splits.values())
    return [
        (f"{total.images:,}", f"images ({', '.join(survey.splits)}: {by_split})"),
        (f"{total.captions:,}", f"captions of {quantiles(survey.words)[0]:.1f} words"),
        (f"{total.objects:,}", f"objects, {quantiles(survey.objects)[0]:.1f} per image"),
        (_share(total.masks, total.objects), f"of the objects have a mask; {total.crowds:,} crowds in addition"),
        (f"{len(survey.words_known) - UNK - 1:,}", "words in the vocabulary"),
        (_share(total.words - total.unknown, total.words), "of all words in captions are in it"),
        (f"{survey.manifest['rejected']['rows']:,}", "rejected, each of them listed"),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _charts(survey: Survey) -> dict[str, Any]:
    """The arguments of the page's charts, by name."""
    mean, median, _ = quantiles(survey.objects)
    objects = f"mean {mean:.1f}, median {median}; crowds are not counted"
    mean, median, _ = quantiles(survey.words)
    sizes = ", ".join(f"{_share(survey.sizes[name], survey.total.objects)} {name}" for name in SIZES)
    edges = ["<0.01%"] + [f"{edge:.2%}" if edge < 0.01 else f"{edge:.0%}" for edge in AREA_EDGES[1:-1]]
    unknown = ", ".join(f"{_share(split.unknown, split.words)} of {name}" for name, split in survey.splits.items())
    return {
        "objects": {"text": objects, **_bars(*_trimmed(survey.objects))},
        "words": {"text": f"mean {mean:.1f}, median {median}", **_bars(*_trimmed(survey.words))},
        "areas": {
            "text": f"share of the image, on a logarithmic scale; by COCO's sizes {sizes}",
            **_bars(edges, survey.areas),
        },
        "coverage": {
            "text": f"share of all words in captions that the most frequent words make up; unknown are {unknown}",
            **_coverage(survey),
        },
        "places": survey.places.tolist(),
        "most_in_place": int(survey.places.max()),
        "frequent": _frequent(survey),
    }


def _bars(labels: list[str], counts: np.ndarray) -> dict[str, Any]:
    """A histogram. top: value of the upper end of its axis, 0 without counts; ticks: values of its five lines."""
    top = _round_up(int(counts.max())) if counts.any() else 0
    return {"labels": labels, "counts": counts.tolist(), "top": top, "ticks": [_short(top * n / 4) for n in range(5)]}


def _trimmed(counts: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Labels and counts of a histogram, without the empty bins at its end."""
    last = max(int(np.flatnonzero(counts)[-1]) if counts.any() else 0, _LEAST_BINS)
    labels = [str(n) for n in range(len(counts) - 1)] + [f"{len(counts) - 1}+"]
    return labels[: last + 1], counts[: last + 1]


def _round_up(value: int) -> int:
    """The next of 4, 8, 20, 40, 80, 200, ...: quarters of it are whole."""
    return next(factor * 10**power for power in range(20) for factor in (4, 8, 20) if value <= factor * 10**power)


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _coverage(survey: Survey) -> dict[str, Any]:
    """Share of all words, unknown ones included, that the 1, 2, ... most frequent words make up.

    points: up to 120 of (x, y, words, share); decades: powers of ten on the axis, with their x
    """
    ordered = np.sort(survey.vocabulary[survey.vocabulary > 0])[::-1]
    shares = ordered.cumsum() / max(1, survey.total.words)
    if not len(shares):
        return {"points": [], "decades": []}
    decades = max(np.log10(len(shares)), 1e-9)
    picked = np.unique(np.geomspace(1, len(shares), 120).round().astype(int))
    points = [
        (
            f"{46 + 462 * np.log10(n) / decades:.1f}",
            f"{166 - 156 * shares[n - 1]:.1f}",
            f"{n:,}",
            f"{shares[n - 1]:.1%}",
        )
        for n in picked.tolist()
    ]
    ticks = [(f"{10**power:,}", 46 + 462 * power / decades) for power in range(int(decades + 1e-9) + 1)]
    return {"points": points, "decades": ticks}


def _frequent(survey: Survey) -> list[tuple[str, int, int]]:
    """The most frequent words: word, count, size of its letters in pixels."""
    largest = max(1, int(survey.vocabulary.max(initial=0)))
    order = np.argsort(-survey.vocabulary, kind="stable")[:_FREQUENT].tolist()
    counts = [(survey.words_known[word], int(survey.vocabulary[word])) for word in order]
    return [(word, count, round(12 + 16 * (count / largest) ** 0.5)) for word, count in counts if count]


def _rejected(rejected: Mapping[str, Any]) -> dict[str, Any]:
    reasons = sorted(rejected["reasons"].items(), key=lambda item: (-item[1], item[0]))
    most = max(rejected["reasons"].values(), default=1)
    return {
        "text": f"each is listed in {rejected['file']}, with its id" if reasons else "",
        "rows": [(reason, [number], ("var(--bad)", 100 * number / most)) for reason, number in reasons],
    }


def _classes(survey: Survey) -> dict[str, Any]:
    """All classes by frequency, with a bar each."""
    colours, largest = name_colours(survey.classes), max(1, int(survey.class_objects.max(initial=0)))
    numbers = zip(survey.classes, survey.class_objects.tolist(), survey.class_images.tolist(), strict=True)
    absent = int((survey.class_objects == 0).sum())
    return {
        "text": f"{len(survey.classes)} classes" + (f", {absent} of them without any object" if absent else ""),
        "rows": [
            (name, [objects, images], (css_colour(colours[name]), 100 * objects / largest))
            for name, objects, images in sorted(numbers, key=lambda row: -row[1])
        ],
    }


def _together(survey: Survey) -> dict[str, Any]:
    """Of the most frequent classes: in which share of the rarer class's images the other class is, too."""
    top = np.argsort(-survey.class_images, kind="stable")[:_IN_HEAT]
    top = top[survey.class_images[top] > 0]
    counts = survey.together[np.ix_(top, top)]
    shares = counts / np.maximum(1, np.minimum.outer(survey.class_images[top], survey.class_images[top]))
    darkest = max(float(shares[~np.eye(len(top), dtype=bool)].max(initial=0)), 1e-9)
    often = "; ".join(f"{first} and {second} in {number:,}" for first, second, number in pairs(survey, 3))
    return {
        "text": "images with both classes, as a share of those with the rarer one"
        + (f". Most often: {often}" if often else ""),
        "names": [survey.classes[label] for label in top],
        "counts": counts.tolist(),
        "shares": shares.tolist(),
        "darkest": darkest,
    }
