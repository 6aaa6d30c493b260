"""A survey of prepared data as one HTML page: no script, and nothing that is not in the file.

All text that comes from the data is escaped, and the page's own policy lets a browser load and run nothing.
"""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from objgan.drawing import name_colours
from objgan.vocabulary import UNK
from pipelines.data.report import charts
from pipelines.data.report.charts import STYLE
from pipelines.data.report.contact_sheet import css_colour, sheet
from pipelines.data.report.counts import AREA_EDGES, SIZES, Survey
from pipelines.data.report.table import pairs, quantiles
from pipelines.data.shards.concerns import concerns, doubts

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_IN_HEAT, _LEAST_BINS = 22, 10


def page(found: Survey, drawn: str) -> str:
    """The whole page; `drawn` says how its samples were."""
    name = _name(found.where)
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="soft">{escape(_facts(found.manifest))}</p>',
        _tiles(found),
        "<h2>Objects and captions</h2>",
        f'<div class="cards">{"".join(_charts(found))}</div>',
        "<h2>Classes</h2>",
        f'<div class="cards">{_class_table(found)}{_together(found)}</div>',
        "<h2>Nothing lost</h2>",
        f'<div class="cards">{_accounts(found)}{_reasons(found.manifest["rejected"])}{_doubts(found.manifest)}</div>',
        "<h2>Samples</h2>",
        sheet(found.samples, found.classes, int(found.manifest["settings"]["image_size"]), drawn),
    ]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}: what the data hold</title><style>{STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>{"".join(body)}</main></body></html>\n'


def _name(where: str) -> str:
    """The last of a location: the rest is of this machine."""
    place = PurePosixPath(where.partition("?")[0].partition("://")[2] or where)
    return "/".join(place.parts[-2:]).lstrip("/") or where


def _facts(manifest: Mapping[str, Any]) -> str:
    size, shards = manifest["settings"]["image_size"], manifest["shards"]
    what = f"{size} × {size} pixels" if manifest["columns"]["image"] else "boxes and captions, no pixels"
    total = sum(shard["bytes"] for shard in shards) / 1e6
    split = f", split by {manifest['split']}" if "split" in manifest else ""
    return f"{what} · {len(shards):,} shards, {total:,.1f} MB{split} · digest {manifest['digest'][:16]}"


def _tiles(found: Survey) -> str:
    total = found.total
    mean_objects, _, _ = quantiles(found.objects)
    mean_words, _, _ = quantiles(found.words)
    by_split = " / ".join(f"{one.images:,}" for one in found.splits.values())
    tiles = [
        (f"{total.images:,}", f"images ({', '.join(found.splits)}: {by_split})"),
        (f"{total.captions:,}", f"captions of {mean_words:.1f} words"),
        (f"{total.objects:,}", f"objects, {mean_objects:.1f} an image"),
        (_share(total.masks, total.objects), f"of the objects have a mask; {total.crowds:,} crowds besides"),
        (f"{len(found.words_known) - UNK - 1:,}", "words in the vocabulary"),
        (_share(total.words - total.unknown, total.words), "of all words said are in it"),
        (f"{found.manifest['rejected']['rows']:,}", "rejected, each of them listed"),
    ]
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{b}</b><span>{t}</span></div>' for b, t in tiles)
        + "</div>"
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _charts(found: Survey) -> Iterable[str]:
    mean, median, _ = quantiles(found.objects)
    yield _card(
        "Objects an image",
        f"mean {mean:.1f}, median {median}; crowds are not counted",
        charts.histogram(*_trimmed(found.objects), "objects", every=5),
    )
    mean, median, _ = quantiles(found.words)
    yield _card(
        "Words a caption",
        f"mean {mean:.1f}, median {median}",
        charts.histogram(*_trimmed(found.words), "words", every=5),
    )
    sizes = ", ".join(f"{_share(found.sizes[name], found.total.objects)} {name}" for name in SIZES)
    labels = ["<0.01%"] + [f"{edge:.2%}" if edge < 0.01 else f"{edge:.0%}" for edge in AREA_EDGES[1:-1]]
    yield _card(
        "Areas of objects",
        f"share of the picture, on a logarithmic scale; by COCO's sizes {sizes}",
        charts.histogram(labels, found.areas, "of the picture, lower end of the bin", every=4, first=1),
    )
    unknown = ", ".join(f"{_share(one.unknown, one.words)} of {name}" for name, one in found.splits.items())
    yield _card(
        "What the vocabulary covers",
        f"share of all words said that the most frequent ones make up; unknown are {unknown}",
        charts.curve(_coverage(found), "most frequent words", "words"),
    )
    yield _card("Where objects are", "by the centre of their box", charts.field(found.places, "objects"))
    yield _card("Words", "the most frequent in these captions", _frequent(found))


def _coverage(found: Survey) -> np.ndarray:
    """[n]: share of all words said, unknown ones among them, that the 1, 2, ... most frequent make up."""
    ordered = np.sort(found.vocabulary[found.vocabulary > 0])[::-1]
    return ordered.cumsum() / max(1, found.total.words)


def _trimmed(counts: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Labels and counts of a histogram, without what is empty at its end."""
    last = max(int(np.flatnonzero(counts)[-1]) if counts.any() else 0, _LEAST_BINS)
    labels = [str(n) for n in range(len(counts) - 1)] + [f"{len(counts) - 1}+"]
    return labels[: last + 1], counts[: last + 1]


def _card(title: str, text: str, content: str) -> str:
    return f'<section class="card"><h3>{escape(title)}</h3><p class="soft">{escape(text)}</p>{content}</section>'


def _frequent(found: Survey) -> str:
    order = np.argsort(-found.vocabulary, kind="stable")[:70]
    largest = max(1, int(found.vocabulary.max(initial=0)))
    words = [
        f'<span title="{count:,}" style="font-size:{12 + 16 * (count / largest) ** 0.5:.0f}px">{escape(word)}</span>'
        for word, count in ((found.words_known[at], int(found.vocabulary[at])) for at in order.tolist())
        if count
    ]
    return f'<p style="line-height:2;margin:0">{" &ensp;".join(words)}</p>' if words else charts.nothing()


def _accounts(found: Survey) -> str:
    """What came in is what is in shards and what was rejected."""
    manifest = found.manifest
    kinds = (("image", "images"), ("caption", "captions"), ("annotation", "objects"))
    rows = "".join(
        f"<tr><td>{kind}s</td>"
        + "".join(
            f'<td class="n">{number:,}</td>'
            for number in (manifest["totals"][kind], manifest["counts"][kept], manifest["rejected"]["kinds"][kind])
        )
        + "</tr>"
        for kind, kept in kinds
    )
    head = '<tr><th></th><th class="n">came in</th><th class="n">in shards</th><th class="n">rejected</th></tr>'
    return _card(
        "Accounts", "of all splits, crowds included", f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    )


def _reasons(rejected: Mapping[str, Any]) -> str:
    if not rejected["reasons"]:
        return _card("Rejected", "", '<p class="none">nothing was rejected</p>')
    most = max(rejected["reasons"].values())
    ordered = sorted(rejected["reasons"].items(), key=lambda one: (-one[1], one[0]))
    rows = "".join(
        f'<tr><td>{escape(reason)}</td><td class="n">{number:,}</td><td class="meter">'
        f'<i class="bad" style="width:{100 * number / most:.1f}%"></i></td></tr>'
        for reason, number in ordered
    )
    table = f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>'
    return _card("Rejected", f"each is listed in {rejected['file']}, with its id", table)


def _doubts(manifest: Mapping[str, Any]) -> str:
    """Warnings, and values that contradict each other."""
    warnings = "".join(f"<li><b>{escape(text)}</b></li>" for text in concerns(manifest))
    others = "".join(f"<li>{escape(text)}</li>" for text in doubts(manifest))
    listed = f"<ul>{warnings}{others}</ul>" if warnings or others else '<p class="none">nothing doubtful</p>'
    return _card("Doubtful", "boxes, masks and areas that contradict each other; much that was rejected", listed)


def _class_table(found: Survey) -> str:
    order = np.argsort(-found.class_objects, kind="stable").tolist()
    colours, largest = name_colours(found.classes), max(1, int(found.class_objects.max(initial=0)))
    rows = "".join(
        f'<tr><td>{escape(found.classes[at])}</td><td class="n">{int(found.class_objects[at]):,}</td>'
        f'<td class="n">{int(found.class_images[at]):,}</td><td class="meter"><i style="background:'
        f'{css_colour(colours[found.classes[at]])};width:{100 * found.class_objects[at] / largest:.1f}%"></i></td></tr>'
        for at in order
    )
    absent = int((found.class_objects == 0).sum())
    text = f"{len(order)} classes" + (f", {absent} of them without any object" if absent else "")
    head = '<tr><th>class</th><th class="n">objects</th><th class="n">images</th><th></th></tr>'
    table = f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
    return _card("How often", text, table if order else charts.nothing())


def _together(found: Survey) -> str:
    """Of the most frequent classes: in what share of the rarer one's images the other one is, too."""
    top = np.argsort(-found.class_images, kind="stable")[:_IN_HEAT]
    top = top[found.class_images[top] > 0]
    counts = found.together[np.ix_(top, top)]
    rarer = np.maximum(1, np.minimum.outer(found.class_images[top], found.class_images[top]))
    often = "; ".join(f"{a} and {b} in {n:,}" for a, b, n in pairs(found, 3))
    text = "images with both, as a share of those with the rarer one" + (f". Most often: {often}" if often else "")
    return _card("Which are together", text, charts.heat(counts / rarer, counts, [found.classes[at] for at in top]))
