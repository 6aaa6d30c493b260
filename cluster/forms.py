"""The form of every setting: what Kubernetes, Ray, Docker or a shell would refuse on the cluster is refused here."""

import re
from dataclasses import dataclass
from typing import Any

from pipelines.redaction import redact

_INT32 = 2**31 - 1
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"


@dataclass(frozen=True)
class Text:
    """A text of one form, at most `longest` characters. what: the form, in words. optional: it may be empty."""

    what: str
    pattern: str
    longest: int = 253
    optional: bool = False

    def fault(self, value: Any) -> str | None:
        """What is wrong with a text, or with one of several; None: nothing."""
        for text in value if isinstance(value, tuple) else (value,):
            if text == "" and self.optional:
                continue
            if text == "":
                return f"must not be empty; it is {self.what}"
            if len(text) > self.longest or not re.fullmatch(self.pattern, text):
                return f"should be {self.what}, at most {self.longest} characters"
        return None

    @property
    def or_empty(self) -> "Text":
        """The same, where the setting may be left out."""
        return Text(self.what, self.pattern, self.longest, True)


@dataclass(frozen=True)
class Number:
    """A whole number within bounds."""

    least: int
    most: int = _INT32

    def fault(self, value: int) -> str | None:
        """What is wrong with it; None: nothing."""
        if self.least <= value <= self.most:
            return None
        return f"should be a whole number from {self.least} to {self.most}"


Form = Text | Number

LABEL = Text("a DNS label (small letters, digits and dashes)", _LABEL, 63)
NAME = Text("a DNS label (small letters, digits and dashes, from a letter on)", r"[a-z]([-a-z0-9]*[a-z0-9])?", 40)
"""Of a RayJob: KubeRay adds to it for clusters and services."""
OBJECT = Text("the name of a Kubernetes object (DNS labels, joined by dots)", rf"{_LABEL}(\.{_LABEL})*")
LABEL_VALUE = Text("the value of a label (letters, digits, '-', '_' and '.')", _WORD, 63)
PAIR = Text(
    "KEY=VALUE, a Kubernetes label; several: [A=1, B=2]",
    rf"({_LABEL}(\.{_LABEL})*/)?(?=[^/=]{{1,63}}=)({_WORD})=(?=.{{1,63}}$)({_WORD})",
    380,
)
IMAGE = Text(
    "the name of an image, like registry.example/objgan:cuda",
    r"([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]+)?/)?[a-z0-9]+((\.|_|__|-+|/)[a-z0-9]+)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?",
    400,
)
QUANTITY = Text("a whole number with Mi, Gi or Ti, for example 16Gi", r"[1-9][0-9]*(Mi|Gi|Ti)", 12)
VERSION = Text("a version, like 2.60.0", r"[0-9]+\.[0-9]+(\.[0-9]+)?([a-z]+[0-9]+)?", 20)
LOCATION = Text("a path or a URI without control characters", r"[^-+\x00-\x20\x7f][^\x00-\x1f\x7f]*", 1024)
SETTING = Text("NAME=VALUE without control characters", r"[A-Za-z_][A-Za-z0-9_.]*=[^\x00-\x1f\x7f]+", 1024)
COMMAND = Text("one command line", r"[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*", 4096)
TRACKING = Text(
    "the URI of an MLflow server, like http://mlflow.example:5000", r"[a-z][a-z0-9+.-]*://[^\x00-\x20\x7f]+", 1024
)
BUCKET = Text(
    "s3://BUCKET or gs://BUCKET, with a folder or without",
    r"(s3|gs)://[a-z0-9][a-z0-9._-]*([/?][^\x00-\x20\x7f]*)?",
    1024,
)
SHARE = Text("an NFS export, HOST:/PATH", r"[A-Za-z0-9][A-Za-z0-9._-]*:/[A-Za-z0-9._/-]*", 1024)
CLOUD_WORD = Text("a name of the cloud (letters, digits and . _ : / -)", r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
ZONES = Text("a zone, or several with commas between them", r"[A-Za-z0-9-]+(,[A-Za-z0-9-]+)*")
USER = Text("the name of a user", r"[a-z_][a-z0-9_-]*", 32)


def shown(value: Any) -> str:
    """A value for a message of one line, without the password of a URI."""
    text = f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)
    text = redact(text)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 120 else f"{text[:117]}..."
