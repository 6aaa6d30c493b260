"""Search spaces as YAML: a setting's dotted name, and `{KIND: RANGE}`; the comment above a knob is its reason.

# recipe tiny takes 3e-3
boxes.training.lr: {log_uniform: [5e-4, 1e-2]}
boxes.components: {integer: [3, 8]}
boxes.presence: {uniform: [0.3, 0.5], step: 0.05}
# searched only in trials with this backbone
encoders.small_width: {log_integer: [16, 128], when: {encoders.backbone: small}}

The names that Ray Tune and Optuna use for these kinds are accepted, with the meaning they have there.
"""

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import yaml

from objgan.errors import InputError
from pipelines.yaml_input import parse_yaml, read_yaml
from tune.space.space import Knob, Space, among

KINDS: tuple[str, ...] = get_args(Knob.__annotations__["kind"])
_ALIASES = {
    "loguniform": "log_uniform",
    "quniform": "uniform",
    "qloguniform": "log_uniform",
    "randint": "integer",
    "qrandint": "integer",
    "lograndint": "log_integer",
    "qlograndint": "log_integer",
    "float": "uniform",
    "int": "integer",
    "categorical": "choice",
    "grid_search": "choice",
}
_BELOW_HIGH = ("randint", "lograndint")
"""Ray Tune's kinds whose high end is not a value."""
_KEY = re.compile(r"""^["']?([\w.]+)["']?\s*:""")
_WIDTH = 118


def write_space(space: Space) -> str:
    """The space as YAML, reasons as comments; `parse_space` reads it back."""
    blocks = []
    for name, knob in space.knobs.items():
        reason = [f"# {line}" for line in textwrap.wrap(knob.reason, _WIDTH)]
        step = "" if knob.step is None else f", step: {_scalar(knob.step)}"
        conditions = ", ".join(f"{other}: {_list(values)}" for other, values in knob.when.items())
        when = f", when: {{{conditions}}}" if conditions else ""
        blocks.append("\n".join([*reason, f"{name}: {{{knob.kind}: {_list(_values(knob))}{step}{when}}}"]))
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
    written = value if isinstance(value, dict) else {}
    extra = {name: written[name] for name in ("step", "log", "when") if name in written}
    kinds = {name: given for name, given in written.items() if name not in extra}
    if len(kinds) != 1 or not isinstance(next(iter(kinds.values())), list):
        raise InputError(
            f"{where}: write one kind and its range, like {{log_uniform: [1e-4, 1e-2]}}; kinds are {', '.join(KINDS)}"
        )
    ((name, given),) = kinds.items()
    kind = _ALIASES.get(name, name)
    if extra.get("log") is True and kind in ("uniform", "integer"):
        kind = f"log_{kind}"
    if kind not in KINDS:
        raise InputError(f"{where}: unknown kind {name!r}: choose one of {', '.join(KINDS)}")
    when = _when(where, extra.get("when", {}))
    if not isinstance(extra.get("log", False), bool) or (kind == "choice" and extra.keys() - {"when"}):
        raise InputError(f"{where}: log is true or false, and a choice takes neither step nor log")
    if kind == "choice":
        return replace(_choice(where, given, reason), when=when)
    if name.startswith("q") and len(given) == 3 and "step" not in extra:
        extra["step"] = given.pop()
    if len(given) != 2:
        raise InputError(f"{where}: {name} takes the low and the high end, not {len(given)} values")
    low, high = (_number(where, end) for end in given)
    step = _number(where, extra["step"]) if "step" in extra else None
    knob = Knob(kind, low, high - (name in _BELOW_HIGH), reason=reason, step=step, when=when)
    _check_range(where, knob)
    return knob


def _check_range(where: str, knob: Knob) -> None:
    kind, low, high, step = knob.kind, knob.low, knob.high, knob.step
    if knob.whole and not (low.is_integer() and high.is_integer() and (step is None or step.is_integer())):
        raise InputError(f"{where}: {kind} takes two whole numbers, not [{low:g}, {high:g}]; a step is whole, too")
    if knob.log and low <= 0:
        raise InputError(
            f"{where}: the low end of {kind} must be over 0, not {low:g}: use {kind.removeprefix('log_')}, or a "
            f"small low end"
        )
    if not low < high:
        raise InputError(f"{where}: the range [{low:g}, {high:g}] is empty: the low end comes first")
    if step is not None and not 0 < step <= high - low:
        raise InputError(f"{where}: the step {step:g} must be over 0 and at most {high - low:g}")


def _when(where: str, given: Any) -> dict[str, tuple[Any, ...]]:
    if not isinstance(given, dict):
        raise InputError(f"{where}: when takes settings and values, like {{boxes.adversarial: hinge}}")
    listed = {str(name): values if isinstance(values, list) else [values] for name, values in given.items()}
    return {name: tuple(map(_plain, values)) for name, values in listed.items()}


def _choice(where: str, values: list[Any], reason: str) -> Knob:
    if not values:
        raise InputError(f"{where}: the choice is empty: give at least two values")
    if any(isinstance(value, dict | list) for value in values):
        raise InputError(f"{where}: choice takes plain values, no lists or mappings")
    values = [*map(_plain, values)]
    repeated = [value for number, value in enumerate(values) if among(value, values[:number])]
    if repeated:
        raise InputError(f"{where}: {repeated[0]!r} is given twice")
    if len(values) == 1:
        raise InputError(f"{where}: choice takes at least two values: use --set for a single one")
    return Knob("choice", values=tuple(values), reason=reason)


def _plain(value: Any) -> Any:
    """A number where YAML reads one as text, like 1e-4: a condition and the choice that it names have to be equal."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


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
    if knob.whole:
        return int(knob.low), int(knob.high)
    return knob.values if knob.kind == "choice" else (knob.low, knob.high)


def _list(values: Sequence[Any]) -> str:
    return f"[{', '.join(map(_scalar, values))}]"


def _scalar(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")
