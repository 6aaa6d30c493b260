"""The one error that means: the person who typed this can mend it."""

import difflib
import reprlib
from collections.abc import Collection, Iterable

_LONGEST_VALUE = 80
_MOST_NAMES = 20
_LONGEST_MESSAGE = 2000
_END = 400  # of a long message; the advice stands there


class InputError(ValueError):
    """Wrong input: one line that says what is wrong, where, and what to do.

    Command lines turn it into exit code 2, without a traceback. Everything else that is raised is a fault of
    ours or of the machine, and worth a retry (exit code 1).

    Whatever the message repeats of a file or of a library, it becomes one line of printable text of bounded length.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def unknown(kind: str, name: object, known: Collection[str], where: str = "") -> InputError:
    """The error for a misspelt name: `unknown stage 'boxe': did you mean boxes? Choose one of encoders, boxes, ...`."""
    meant = did_you_mean(name, known)
    first = ", ".join(list(known)[:_MOST_NAMES]) + (f" ({len(known)} names)" if len(known) > _MOST_NAMES else "")
    return InputError(f"{where}unknown {kind} {shown(name)}:{meant} {'C' if meant else 'c'}hoose one of {first}")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """` did you mean boxes?`, for a misspelt name; empty where no known name is similar."""
    near = nearest(name, known)
    return f" did you mean {near}?" if near else ""


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most similar; None: no name is similar."""
    return next(iter(difflib.get_close_matches(str(name)[:100], list(known), n=1)), None)


def one_line(text: str, most: int = _LONGEST_MESSAGE) -> str:
    """`text` as one line of printable characters that every stream can encode; the middle of a long one is left out."""
    if len(text) > 100 * most:
        text = text[: 50 * most] + text[-50 * most :]
    line = " ".join(text.split())
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    if len(line) <= most:
        return line
    end = min(_END, most // 4)
    return f"{line[: most - end - 5]} ... {line[-end:]}"


def shown(value: object, most: int = _LONGEST_VALUE) -> str:
    """A value of somebody else's file as a message repeats it: in quotes if it is text, cut where it is long."""
    if isinstance(value, str):
        return repr(value) if len(value) <= most else f"{value[: most - 3]!r}... ({len(value):,} characters)"
    text = _values.repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


_values = reprlib.Repr()
_values.maxstring = _values.maxother = _values.maxlong = _LONGEST_VALUE
_values.maxlist = _values.maxdict = _values.maxtuple = 8
