"""JSON that somebody else may have written, parsed within limits.

Everything that this project reads as JSON comes through here: layout files, manifests, `model.json`, `domain/`,
checkpoints, the files of runs and sweeps. What Python's parser lets pass, and what would fail later, elsewhere, or take
all memory, is refused with a short reason.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from objgan.errors import shown


@dataclass(frozen=True)
class JsonLimits:
    """What a JSON text may have at most. nan: whether NaN and Infinity, which are no JSON, are let pass."""

    bytes: int = 32 << 20
    values: int = 2_000_000
    depth: int = 32
    digits: int = 20
    """Of a whole number: 64 bits have 19 or 20."""
    letters: int = 400
    """Of a number with a fraction or an exponent."""
    nan: bool = False


LIMITS = JsonLimits()
OWN = JsonLimits(nan=True)
"""For files that this project writes: measures may be NaN."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonFault(ValueError):
    """Why a text is not used, as the end of a sentence that begins with the file's name.

    part: the text at fault, if any
    """

    def __init__(self, message: str, part: str = "") -> None:
        super().__init__(message)
        self.part = part


def parse_json(data: bytes, limits: JsonLimits = LIMITS) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        JsonFault: not JSON; a key twice in one object; half a surrogate pair; NaN or Infinity; a number, a nesting or a
            text over `limits`.
    """
    _check_size(data, limits)
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_once_each,
            parse_constant=None if limits.nan else _no_number,
            parse_int=lambda digits: _whole(digits, limits),
            parse_float=lambda digits: _fraction(digits, limits),
        )
    except UnicodeDecodeError as error:
        raise JsonFault(f"is not JSON (byte {error.start} is no UTF-8)") from None
    except JsonFault as fault:
        line = text.count("\n", 0, text.find(fault.part)) + 1
        raise JsonFault(f"{fault} (line {line})" if fault.part else str(fault)) from None
    except json.JSONDecodeError as error:
        raise JsonFault(f"is not JSON ({error})") from None
    except RecursionError:
        raise JsonFault(f"is nested more than {limits.depth} deep") from None
    _check_values(value, limits, surrogates=bool(_SURROGATE.search(text)))
    return value


def _check_size(data: bytes, limits: JsonLimits) -> None:
    """Refuse what would take too much memory, before any of it is taken."""
    if len(data) > limits.bytes:
        raise JsonFault(f"has more than {limits.bytes >> 20} MiB")
    # Too many where texts hold these letters, too: the limit leaves room for that.
    if data.count(b",") + data.count(b"[") + data.count(b"{") > limits.values:
        raise JsonFault(f"holds more than {limits.values:,} values")


def _check_values(value: Any, limits: JsonLimits, surrogates: bool) -> None:
    waiting = [(value, 1)]
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, dict | list):
            if depth > limits.depth:
                raise JsonFault(f"is nested more than {limits.depth} deep")
            waiting += [(part, depth + 1) for part in _parts(one) if surrogates or isinstance(part, dict | list)]
        elif surrogates and isinstance(one, str) and any("\ud800" <= letter <= "\udfff" for letter in one):
            raise JsonFault(f"holds half a surrogate pair, which is no character, in {shown(one)}")


def _parts(value: dict[str, Any] | list[Any]) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    else:
        yield from value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        known: set[str] = set()
        for name, _ in pairs:
            if name in known:
                raise JsonFault(f"has the key {shown(name)} twice in one object")
            known.add(name)
    return found


def _no_number(text: str) -> NoReturn:
    raise JsonFault(f"holds {text}, which is no number of JSON", text)


def _whole(text: str, limits: JsonLimits) -> int:
    if len(text.lstrip("-")) > limits.digits:
        raise JsonFault(f"holds a number of {len(text.lstrip('-')):,} digits; {limits.digits} are the most", text)
    return int(text)


def _fraction(text: str, limits: JsonLimits) -> float:
    if len(text) > limits.letters:
        raise JsonFault(f"holds a number of {len(text):,} characters; {limits.letters} are the most", text)
    value = float(text)
    if not math.isfinite(value) and not limits.nan:
        raise JsonFault(f"holds {text[:20]}, which is too large for a number", text)
    return value
