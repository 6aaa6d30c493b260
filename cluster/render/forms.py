"""Types of settings: values that Kubernetes, Ray, Docker or a shell would reject on the cluster are rejected here."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WrapValidator

from objgan.errors import unknown
from pipelines.recipes import RECIPES

_LARGEST = 2**31 - 1
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"


def form(words: str, pattern: str, longest: int = 253) -> BeforeValidator:
    """Check that a value is a text of a pattern. words: the form, for the error."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > longest or not re.fullmatch(pattern, value):
            raise ValueError(f"expected {words}, at most {longest} characters")
        return value

    return BeforeValidator(check)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """`A=1` is a list of one text, `[A=1, B=2]` of two."""
    return tuple(value) if isinstance(value, list | tuple) else () if value is None else (value,)


def _each_once(texts: tuple[str, ...]) -> tuple[str, ...]:
    names = [text.partition("=")[0] for text in texts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} is given twice; give it once")
    return texts


def _known(recipe: str) -> str:
    if recipe not in RECIPES:
        raise ValueError(str(unknown("recipe", recipe, RECIPES)))
    return recipe


OR_EMPTY = WrapValidator(lambda value, check: value if value == "" else check(value))
"""In front of a text that may be left out."""

Whole = Annotated[int, Field(ge=0, le=_LARGEST)]
Positive = Annotated[int, Field(ge=1, le=_LARGEST)]

Recipe = Annotated[str, AfterValidator(_known)]
Label = Annotated[str, form("a DNS label (small letters, digits and dashes)", _LABEL, 63)]
# KubeRay appends to the name of a RayJob for clusters and services.
Name = Annotated[
    str, form("a DNS label (small letters, digits and dashes, from a letter on)", r"[a-z]([-a-z0-9]*[a-z0-9])?", 40)
]
ObjectName = Annotated[
    str, form("the name of a Kubernetes object (DNS labels, joined by dots)", rf"{_LABEL}(\.{_LABEL})*")
]
LabelValue = Annotated[str, form("the value of a label (letters, digits, '-', '_' and '.')", _WORD, 63)]
_Pair = Annotated[
    str,
    form(
        "KEY=VALUE, a Kubernetes label; several: [A=1, B=2]",
        rf"({_LABEL}(\.{_LABEL})*/)?(?=[^/=]{{1,63}}=)({_WORD})=(?=.{{1,63}}$)({_WORD})",
        380,
    ),
]
Labels = Annotated[tuple[_Pair, ...], BeforeValidator(_as_tuple), AfterValidator(_each_once)]
Taint = _Pair
_Assignment = Annotated[
    str,
    form(
        "KEY=VALUE without control characters; several: [A=1, B=2]", r"[A-Za-z_][A-Za-z0-9_.]*=[^\x00-\x1f\x7f]+", 1024
    ),
]
Assignments = Annotated[tuple[_Assignment, ...], BeforeValidator(_as_tuple), AfterValidator(_each_once)]
Image = Annotated[
    str,
    form(
        "the name of an image, like registry.example/objgan:cuda",
        r"([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]+)?/)?[a-z0-9]+((\.|_|__|-+|/)[a-z0-9]+)*"
        r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?",
        400,
    ),
]
Quantity = Annotated[str, form("a whole number with Mi, Gi or Ti, for example 16Gi", r"[1-9][0-9]*(Mi|Gi|Ti)", 12)]
Version = Annotated[str, form("a version, like 2.60.0", r"[0-9]+\.[0-9]+(\.[0-9]+)?([a-z]+[0-9]+)?", 20)]
Location = Annotated[
    str, form("a path or a URI without control characters", r"[^-+\x00-\x20\x7f][^\x00-\x1f\x7f]*", 1024)
]
CommandLine = Annotated[str, form("one command line", r"[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*", 4096)]
ServerUri = Annotated[
    str,
    form(
        "the URI of an MLflow server, like http://mlflow.example:5000", r"[a-z][a-z0-9+.-]*://[^\x00-\x20\x7f]+", 1024
    ),
]
Bucket = Annotated[
    str,
    form(
        "s3://BUCKET or gs://BUCKET, with a folder or without",
        r"(s3|gs)://[a-z0-9][a-z0-9._-]*([/?][^\x00-\x20\x7f]*)?",
        1024,
    ),
]
Share = Annotated[str, form("an NFS export, HOST:/PATH", r"[A-Za-z0-9][A-Za-z0-9._-]*:/[A-Za-z0-9._/-]*", 1024)]
CloudWord = Annotated[str, form("a name of the cloud (letters, digits and . _ : / -)", r"[A-Za-z0-9][A-Za-z0-9._:/-]*")]
Zones = Annotated[str, form("a zone, or several with commas between them", r"[A-Za-z0-9-]+(,[A-Za-z0-9-]+)*")]
User = Annotated[str, form("the name of a user", r"[a-z_][a-z0-9_-]*", 32)]
