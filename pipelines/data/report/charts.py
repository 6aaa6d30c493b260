"""Charts as inline SVG, and the style sheet of the page. No script, nothing to fetch."""

from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 520, 200
_LEFT, _BOTTOM, _TOP = 46, 34, 10
_MOST_LETTERS = 15

STYLE = """
:root { --paper: #fbfaf7; --card: #fff; --ink: #1f2328; --soft: #667; --line: #e4e2dc; --accent: #2f6f9f;
  --heat: 47 111 159; --bad: #c0392b; --stage: #efede7;
  --shadow: 0 1px 2px rgb(0 0 0 / .06), 0 4px 14px rgb(0 0 0 / .05); }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1e2126; --ink: #e8e6e1; --soft: #9aa0a8;
  --line: #31353b; --accent: #6db3e3; --heat: 109 179 227; --bad: #e5705f; --stage: #101214; --shadow: none; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans",
  sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 36px 28px 60px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.02em; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 44px 0 14px; letter-spacing: -.01em; }
h3 { font-size: 14px; margin: 0 0 2px; }
.soft { color: var(--soft); font-size: 13px; margin: 0 0 10px; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 26px 0 0; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; box-shadow: var(--shadow); }
.tile { padding: 12px 16px; } .tile b { display: block; font-size: 25px; line-height: 1.2; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; } .tile span { color: var(--soft); font-size: 13px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 16px; }
.card { padding: 16px 18px; min-width: 0; }
svg.chart { width: 100%; height: auto; display: block; } svg.field { width: min(100%, 300px); display: block;
  margin: 0 auto; border-radius: 8px; background: var(--paper); }
svg text { font-size: 11px; fill: var(--soft); } svg text.axis { font-size: 11.5px; }
.grid { stroke: var(--line); } .bar rect { fill: var(--accent); } .bar .hit { fill: transparent; }
.bar:hover rect:not(.hit) { fill: var(--ink); } .area { fill: rgb(var(--heat) / .16); } .line { fill: none;
  stroke: var(--accent); stroke-width: 2; } .dot { fill: transparent; } .dot:hover { fill: var(--ink); }
.cell { fill: rgb(var(--heat) / calc(.05 + .95 * var(--share))); } .self { fill: var(--line); }
.cell:hover { stroke: var(--ink); stroke-width: 1.5; }
.scroll { max-height: 470px; overflow: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 500; font-size: 12.5px; position: sticky; top: 0;
  background: var(--card); } th, td { padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); }
.n { text-align: right; } .meter { width: 34%; } .meter i { display: block; height: 9px; border-radius: 5px; }
i.bad { background: var(--bad); }
.switches .soft { margin: 0; }
.switches { display: flex; gap: 6px 18px; align-items: center; flex-wrap: wrap; margin: 0 0 12px; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(264px, 1fr)); gap: 16px; max-height: 1240px;
  overflow: auto; padding: 2px 10px 14px 2px; scrollbar-gutter: stable; }
.sample { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden;
  box-shadow: var(--shadow); display: flex; flex-direction: column; }
.stage { aspect-ratio: 1; display: flex; align-items: center; justify-content: center; background: var(--stage); }
.picture { position: relative; background: var(--line); }
.picture > * { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
.boxes rect { fill: none; stroke-width: 2px; vector-effect: non-scaling-stroke; }
.boxes rect:hover { fill: rgb(255 255 255 / .25); }
.crowd { stroke-dasharray: 5 4; }
.words { padding: 10px 14px 12px; font-size: 13.5px; line-height: 1.4; overflow-wrap: anywhere; }
.words p { margin: 0 0 6px; } .words details p { color: var(--soft); margin: 6px 0 0; } summary { color: var(--soft);
  font-size: 12.5px; cursor: pointer; }
.chips { display: flex; flex-wrap: wrap; gap: 4px; margin: 0 0 8px; } .chip { border-radius: 9px; padding: 0 8px;
  font-size: 11.5px; line-height: 18px; }
.foot { color: var(--soft); font-size: 12px; margin: 4px 0 0; } .foot span { white-space: nowrap; }
.none { color: var(--soft); } input[type=checkbox] { accent-color: var(--accent); }
main:has(#see-pictures:not(:checked)) .picture > img:not(.masks) { visibility: hidden; }
main:has(#see-boxes:not(:checked)) .boxes { display: none; }
main:has(#see-masks:not(:checked)) .masks { display: none; }
@media (max-width: 520px) { main { padding: 20px 14px; } .cards { grid-template-columns: 1fr; }
  svg text, svg text.axis { font-size: 15px; } }
"""


def histogram(labels: Sequence[str], counts: np.ndarray, axis: str, every: int = 1, first: int = 0) -> str:
    """Upright bars, one a count; `axis` says what their labels are.

    Written are the labels of place `first` and of every `every`-th after it.
    """
    if not counts.sum():
        return nothing()
    top = _round_up(int(counts.max()))
    step = (WIDTH - _LEFT - 6) / len(counts)
    parts = _grid(top)
    for place, (label, count) in enumerate(zip(labels, counts.tolist(), strict=True)):
        left, high = _LEFT + place * step, _scaled(count, top)
        title = f"<title>{escape(label)} {escape(axis)}: {count:,}</title>"
        parts.append(
            f'<g class="bar">{title}<rect class="hit" x="{left:.1f}" y="{_TOP}" width="{step:.1f}" '
            f'height="{HEIGHT - _TOP - _BOTTOM}"/><rect x="{left + step * 0.1:.1f}" y="{HEIGHT - _BOTTOM - high:.1f}" '
            f'width="{step * 0.8:.1f}" height="{high:.1f}" rx="1.5"/></g>'
        )
        if place >= first and (place - first) % every == 0:
            parts.append(_text(left + step / 2, HEIGHT - _BOTTOM + 14, label, "middle"))
    return _svg([*parts, _axis_name(axis)], axis)


def curve(values: np.ndarray, axis: str, unit: str) -> str:
    """Shares (0 to 1) against 1, 2, ... on a logarithmic axis, as a filled line."""
    if not len(values):
        return nothing()
    parts = [_line(share, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1.0)]
    width, decades = WIDTH - _LEFT - 12, max(np.log10(len(values)), 1e-9)
    picked = np.unique(np.geomspace(1, len(values), 120).round().astype(int)) - 1
    xs = _LEFT + np.log10(picked + 1) / decades * width
    ys = HEIGHT - _BOTTOM - values[picked] * (HEIGHT - _TOP - _BOTTOM)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    floor = HEIGHT - _BOTTOM
    parts.append(f'<polygon class="area" points="{_LEFT},{floor} {line} {xs[-1]:.1f},{floor}"/>')
    parts.append(f'<polyline class="line" points="{line}"/>')
    for power in range(int(decades + 1e-9) + 1):
        parts.append(_text(_LEFT + power / decades * width, floor + 14, f"{10**power:,}", "middle"))
    for x, y, at in zip(xs, ys, picked.tolist(), strict=True):
        title = f"<title>the {at + 1:,} most frequent {escape(unit)}: {values[at]:.1%}</title>"
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4">{title}</circle>')
    return _svg([*parts, _axis_name(axis)], axis)


def heat(shares: np.ndarray, counts: np.ndarray, names: Sequence[str]) -> str:
    """A square of cells, the darkest with the largest share; a tooltip names row, column, count and share."""
    if not len(names):
        return nothing()
    cell, left, top = 19, 112, 96
    apart = shares[~np.eye(len(names), dtype=bool)]
    darkest = max(float(apart.max(initial=0)), 1e-9)
    parts = []
    for row, name in enumerate(names):
        across = left + (row + 0.5) * cell
        middle = top + (row + 0.5) * cell
        short, place = _cut(name), f"{across:.1f} {top - 6}"
        parts.append(_text(left - 6, middle + 4, short, "end"))
        parts.append(f'<text x="{across:.1f}" y="{top - 6}" transform="rotate(-55 {place})">{escape(short)}</text>')
        for column, other in enumerate(names):
            share = float(shares[row, column])
            told = f"{escape(name)} and {escape(other)}: {int(counts[row, column]):,} images, {share:.0%}"
            kind = "self" if row == column else "cell"
            parts.append(
                f'<rect class="{kind}" x="{left + column * cell}" y="{top + row * cell}" width="{cell - 1}" '
                f'height="{cell - 1}" style="--share:{min(share / darkest, 1):.3f}"><title>{told}</title></rect>'
            )
    side = len(names) * cell
    return _svg(parts, "class by class", left + side + 70, top + side + 4)


def field(counts: np.ndarray, what: str) -> str:
    """Counts [n, n] as a map of the picture, row 0 above."""
    if not counts.sum():
        return nothing()
    size = 300 / len(counts)
    parts = [
        f'<rect class="cell" x="{x * size:.2f}" y="{y * size:.2f}" width="{size + 0.3:.2f}" height="{size + 0.3:.2f}" '
        f'style="--share:{counts[y, x] / counts.max():.3f}"><title>{int(counts[y, x]):,} {escape(what)}</title></rect>'
        for y in range(len(counts))
        for x in range(len(counts))
    ]
    return _svg(parts, what, 300, 300, "field")


def _cut(name: str) -> str:
    """As much of a name as there is room for."""
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"


def nothing() -> str:
    """In place of a chart without numbers."""
    return '<p class="none">nothing to show</p>'


def _grid(top: int) -> list[str]:
    return [_line(part / 4, _short(top * part / 4)) for part in range(5)]


def _line(share: float, label: str) -> str:
    y = HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)
    line = f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - 4}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(_LEFT - 6, y + 4, label, "end")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _axis_name(axis: str) -> str:
    return f'<text class="axis" x="{(WIDTH + _LEFT) / 2}" y="{HEIGHT - 3}" text-anchor="middle">{escape(axis)}</text>'


def _svg(parts: Sequence[str], name: str, width: float = WIDTH, height: float = HEIGHT, kind: str = "chart") -> str:
    body = "".join(parts)
    return f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(name)}">{body}</svg>'


def _scaled(count: int, top: int) -> float:
    return count / top * (HEIGHT - _TOP - _BOTTOM)


def _round_up(value: int) -> int:
    """The next of 4, 8, 20, 40, 80, 200, ...: quarters of it are whole."""
    power = 1
    while True:
        for factor in (4, 8, 20):
            if value <= factor * power:
                return factor * power
        power *= 10


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
