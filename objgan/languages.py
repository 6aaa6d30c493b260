"""The languages that captions may be in: spaCy's blank tokenizers."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from objgan.errors import InputError


@functools.cache
def languages() -> tuple[str, ...]:
    """Codes of the languages that spaCy has a tokenizer for; none without spaCy. spaCy is not imported for this."""
    found = importlib.util.find_spec("spacy")
    folders = [Path(folder) / "lang" for folder in (found.submodule_search_locations or ())] if found else []
    return tuple(sorted(path.parent.name for folder in folders for path in folder.glob("*/__init__.py")))


def check_language(language: str) -> None:
    """See that the captions of a language can be divided into words on this machine.

    Raises:
        InputError: as `tokenizer`.
    """
    if language != "en":  # which needs nothing but spaCy, whose import takes seconds
        tokenizer(language)


@functools.cache
def tokenizer(language: str) -> Callable[[str], Any]:
    """spaCy's tokenizer of a language. The first call imports spaCy, which takes seconds.

    Raises:
        InputError: it is none of spaCy's languages, or a package that spaCy needs for it is missing.
    """
    import spacy  # only those who tokenize wait for it

    if language not in languages():
        raise InputError(f"data.language: {language!r} is none of spaCy's languages: {', '.join(languages())}")
    try:
        return spacy.blank(language)
    except ImportError as error:
        raise InputError(f"data.language: spaCy lacks a package for {language!r} ({error}); install it") from None
