"""Charts as inline SVG: no script, no library, nothing to fetch. Numbers stand in tooltips (`<title>`)."""

from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 520, 200
_LEFT, _BOTTOM, _TOP = 46, 34, 10
_MOST_LETTERS = 15


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
