"""Lines for people, or for machines: with `--log-format json` (or OBJGAN_LOG_FORMAT=json) one JSON object a line.

Its keys: time (UTC, ISO 8601), level, run, stage, step, values, message; the last one has state and exit_code, too.
"""

import contextlib
import json
import logging
import math
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

from pipelines.redaction import install, redact, redact_all

FORMATS = ("text", "json")
VARIABLE = "OBJGAN_LOG_FORMAT"
_chosen: dict[str, Any] = {"format": "text", "run": None, "stage": None}


def choose(name: str, run: str | None) -> None:
    """From now on, lines of this process are in that format; `run` stands in each of them.

    What libraries log, and Python's warnings, become lines, too.
    """
    _chosen.update(format=name, run=run, stage=None)
    install()
    if name == "json":
        logging.captureWarnings(True)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Formatter())
        logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def as_json() -> bool:
    """Whether lines are JSON."""
    return bool(_chosen["format"] == "json")


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """What lines are about for the length of a block."""
    before, _chosen["stage"] = _chosen["stage"], name
    try:
        yield
    finally:
        _chosen["stage"] = before


def line(message: str, level: str = "info", **facts: Any) -> str:
    """One JSON object without a line's end; numbers that JSON has no word for become null."""
    whole = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "run": _chosen["run"],
        "stage": _chosen["stage"],
        "step": None,
        "values": {},
        "message": message,
        **facts,
    }
    return json.dumps(redact_all(_finite(whole)), default=lambda value: redact(str(value)))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def last_word(state: str, code: int, text: str, stream: TextIO | None = None) -> None:
    """The last line of a command's log: state, reason, how to go on."""
    if as_json():
        level = {0: "info", 130: "warning", 143: "warning"}.get(code, "error")
        text = line(text, level, state=state, exit_code=code)
    else:
        text = redact(text)
        text = f"error: {text}" if state == "error" else f"{state} (exit code {code}): {text}"
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    print(text, file=stream or sys.stderr, flush=True)


class _Formatter(logging.Formatter):
    """Records of libraries as lines of ours."""

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            facts["trace"] = self.formatException(record.exc_info)
        return line(record.getMessage(), record.levelname.lower(), **facts)
