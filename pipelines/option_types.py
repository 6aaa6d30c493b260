"""Values of options that are numbers, as argparse reads them: what is wrong is told before anything starts."""

import argparse


def count(text: str) -> int:
    """A whole number of at least 1."""
    return whole(text, 1)


def seed(text: str) -> int:
    """A whole number of at least 0."""
    return whole(text, 0)


def workers(text: str) -> tuple[int, int | None]:
    """N, or N-M: the least, and the most where it is told."""
    least, dash, most = text.partition("-")
    return whole(least, 1), whole(most, 1) if dash else None


def whole(text: str, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is under {least}")
    return value
