"""Values of a COCO record: one rule for every number, and one for ids."""

import hashlib
import math
import re
from decimal import Decimal
from typing import Literal, overload

from objgan.errors import shown
from pipelines.data.shards.rejected import Unusable

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
_TEXT_IDS = 1 << 62
"""Ids that are texts become numbers from here up."""
_MOST_DIGITS = 400
_EXACT = 2**53
_KINDS = {str: "text", bool: "true or false", list: "a list", dict: "an object", type(None): "null"}


@overload
def number(value: object, field: str, whole: Literal[True]) -> int: ...
@overload
def number(value: object, field: str, whole: Literal[False] = False) -> float: ...
def number(value: object, field: str, whole: bool = False) -> int | float:
    """The one rule for every number of a record: 1, 1.0 and "1" are 1.

    value: from the JSON
    field: of the record, for the message
    whole: return an int of 64 bits; otherwise a finite float

    Raises:
        Unusable: it is not such a number; the reason names the field and the kind of value, the detail the value.
    """
    # The fast path for nearly all numbers of a data set.
    if type(value) is int and abs(value) <= _EXACT:
        return value if whole else float(value)
    if type(value) is float and not whole and math.isfinite(value):
        return value
    exact = _exact(value)
    try:
        result = None if exact is None else _whole(exact) if whole else float(exact)
    except OverflowError:
        result = math.inf
    if result is not None and math.isfinite(result):
        return result
    detail = f"{field}: {shown(value)}"
    if result is not None:
        raise Unusable(f"{field} is a number that is too large", detail)
    kind = kind_of(value) if exact is None else "a fraction"
    raise Unusable(f"{field} is {kind}, not a {'whole ' * whole}number", detail)


def identity(value: object, field: str) -> int:
    """An id as an int of 64 bits: a whole number as `number` reads it; of any other text, its hash, from 2**62 up.

    Raises:
        Unusable: as `number`, also for blank text and for text that is a number but not a whole one.
    """
    return number(value, field, whole=True) if (text := text_id(value)) is None else _hashed(text)


def text_id(value: object) -> str | None:
    """The text of an id that is not a number, without surrounding blanks; None of other ids."""
    text = value.strip() if isinstance(value, str) else ""
    return text if text and not _NUMBER.fullmatch(text) else None


def identity_or_none(value: object) -> int | None:
    """The id; None if it is not one."""
    try:
        return identity(value, "")
    except Unusable:
        return None


def _hashed(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return _TEXT_IDS | int.from_bytes(digest, "big") >> 2


def kind_of(value: object) -> str:
    """The kind of a value, for messages: "text", "a list", "null", ..."""
    return _KINDS.get(type(value), "NaN" if value != value else "a number")


def _exact(value: object) -> int | float | Decimal | None:
    """The number as it is written; None if it is not a number."""
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            return None
        # A float would lose digits of a long id.
        return Decimal(text) if len(text) <= _MOST_DIGITS else math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if value != value else value


def _whole(exact: int | float | Decimal) -> int | float | None:
    """An int of 64 bits, infinity if it is larger, None for a fraction."""
    # A float of this size has lost digits: the id is unknown.
    if isinstance(exact, float) and abs(exact) > _EXACT:
        return math.inf
    if isinstance(exact, Decimal) and exact and exact.adjusted() > 19:
        return math.inf
    if exact != (result := int(exact)):
        return None
    return result if -(2**63) <= result < 2**63 else math.inf
