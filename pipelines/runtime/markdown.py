"""Text from elsewhere in Markdown."""

import re

from objgan.errors import shown
from objgan.vocabulary import normalise

_LONGEST = 300
_SIGNS = "\\`*_{}[]<>#|!"


def escaped(value: object, most: int = _LONGEST) -> str:
    """A value of somebody else's file on one line of at most `most` signs that Markdown does not interpret."""
    text = value if isinstance(value, str) else shown(value)
    short = normalise(text[:most]) + ("..." if len(text) > most else "")
    return "".join(f"\\{letter}" if letter in _SIGNS else letter for letter in short)


def unescaped(text: str) -> str:
    """The text that `escaped` had."""
    return re.sub(r"\\(.)", r"\1", text)
