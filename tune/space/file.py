"""Search spaces as YAML: a setting's dotted name, and `{KIND: RANGE}`; the comment above a knob is its reason.

# recipe tiny takes 3e-3
boxes.training.lr: {log_uniform: [5e-4, 1e-2]}
boxes.components: {integer: [3, 8]}
boxes.presence: {uniform: [0.3, 0.5]}
"""

import math
import re
import textwrap
from pathlib import Path
from typing import Any, get_args

import yaml

from objgan.errors import InputError
from pipelines.yaml_input import parse_yaml, read_yaml
from tune.space.space import Knob, Space

KINDS: tuple[str, ...] = get_args(Knob.__annotations__["kind"])
_KEY = re.compile(r"""^["']?([\w.]+)["']?\s*:""")
_WIDTH = 118


def write_space(space: Space) -> str:
    """The space as YAML, reasons as comments; `parse_space` reads it back."""
    blocks = []
    for name, knob in space.knobs.items():
        reason = [f"# {line}" for line in textwrap.wrap(knob.reason, _WIDTH)]
        blocks.append(
            "\n".join([*reason, f"{name}: {{{knob.kind}: [{', '.join(_scalar(v) for v in _values(knob))}]}}"])
        )
    return "\n\n".join(blocks) + "\n"


def read_space(path: Path) -> Space:
    """A space from a file.

    Raises:
        InputError: it cannot be read, or a line is not a range; the message names the first such line.
    """
    text, content = read_yaml(path, "--space")
    return _space(content, text, f"--space {path}")


def parse_space(text: str, where: str = "--space") -> Space:
    """A space from YAML; `where` is the start of messages.

    Raises:
        InputError: see `read_space`.
    """
    return _space(parse_yaml(text, where), text, where)


def _space(content: Any, text: str, where: str) -> Space:
    if not isinstance(content, dict) or not content:
        raise InputError(f"{where}: write settings and ranges, like `boxes.training.lr: {{log_uniform: [1e-4, 1e-2]}}`")
    reasons = _reasons(text)
    return Space(
        {str(name): _knob(f"{where}: {name}", value, reasons.get(name, "")) for name, value in content.items()}
    )


def _knob(where: str, value: Any, reason: str) -> Knob:
    example = "like {log_uniform: [1e-4, 1e-2]}"
    if not isinstance(value, dict) or len(value) != 1 or not isinstance(next(iter(value.values())), list):
        raise InputError(f"{where}: write one kind and its range, {example}; kinds are {', '.join(KINDS)}")
    (kind, given), *_ = value.items()
    if kind not in KINDS:
        raise InputError(f"{where}: unknown kind {kind!r}: choose one of {', '.join(KINDS)}")
    if kind == "choice":
        return _choice(where, given, reason)
    if len(given) != 2:
        raise InputError(f"{where}: {kind} takes the low and the high end, not {len(given)} values")
    low, high = (_number(where, end) for end in given)
    if kind == "integer" and not (low.is_integer() and high.is_integer()):
        raise InputError(f"{where}: integer takes two whole numbers, not [{low:g}, {high:g}]")
    if kind == "log_uniform" and low <= 0:
        raise InputError(
            f"{where}: the low end of log_uniform must be over 0, not {low:g}: use uniform, or a small low end"
        )
    if not low < high:
        raise InputError(f"{where}: the range [{low:g}, {high:g}] is empty: the low end comes first")
    return Knob(kind, low, high, reason=reason)


def _choice(where: str, values: list[Any], reason: str) -> Knob:
    if not values:
        raise InputError(f"{where}: the choice is empty: give at least two values")
    if any(isinstance(value, dict | list) for value in values):
        raise InputError(f"{where}: choice takes plain values, no lists or mappings")
    repeated = [value for number, value in enumerate(values) if _in(value, values[:number])]
    if repeated:
        raise InputError(f"{where}: {repeated[0]!r} is given twice")
    if len(values) == 1:
        raise InputError(f"{where}: choice takes at least two values: use --set for a single one")
    return Knob("choice", values=tuple(values), reason=reason)


def _in(value: Any, others: list[Any]) -> bool:
    """Whether a value is in a list; for Python, true equals 1."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in others)


def _number(where: str, value: Any) -> float:
    """An end of a range; YAML reads 1e-4 as text, and 1.0e-4 as a number."""
    try:
        number = float("" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: {value!r} is not a number") from None
    if not math.isfinite(number):
        raise InputError(f"{where}: {number} cannot be the end of a range")
    return number


def _reasons(text: str) -> dict[str, str]:
    """The comment directly above each knob, its lines joined."""
    reasons, lines = {}, []
    for line in text.splitlines():
        if line.startswith("#"):
            lines.append(line.lstrip("#").strip())
            continue
        if match := _KEY.match(line):
            reasons[match[1]] = " ".join(lines)
        lines = []
    return reasons


def _values(knob: Knob) -> tuple[Any, ...]:
    if knob.kind == "integer":
        return int(knob.low), int(knob.high)
    return knob.values if knob.kind == "choice" else (knob.low, knob.high)


def _scalar(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")
