"""Console output: text, or JSON lines with `--log-format json` (or OBJGAN_LOG_FORMAT=json); a progress bar on a
terminal.

Keys of a JSON line: time (UTC, ISO 8601), level, run, stage, step, values, message; the last line has state and
exit_code, too.
"""

import contextlib
import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

from tqdm import tqdm

from pipelines.redaction import install, redact, redact_all
from pipelines.runtime.events import Began, Event, Logged, Saved, Skipped, Stopping, Validated, Warned, WorkerFailed

logger = logging.getLogger(__name__)
# Metrics of the machine and the optimiser go to MLflow only.
_NOT_LOSSES = ("system/", "learning_rate/", "memory/", "validation/")
_BAR = "{desc} {n_fmt}/{total_fmt} |{bar:12}| {postfix}"

FORMATS = ("text", "json")
VARIABLE = "OBJGAN_LOG_FORMAT"
OURS = ("objgan", "pipelines", "tune", "cluster")
_chosen: dict[str, Any] = {"format": "text", "run": None, "stage": None, "prefix": "", "aside": False}


def say(text: str) -> None:
    """Print a result of a command on stdout."""
    _print(text, sys.stdout)


def _print(text: str, stream: TextIO, level: str = "info", **facts: Any) -> None:
    """Print a line at once, above the progress bar if it is shown. facts: further keys of the JSON line."""
    tqdm.write(line(text.strip("\n"), level, **facts) if as_json() else redact(text), file=stream)
    stream.flush()


class _Console(logging.Handler):
    """Prints records of our modules, in JSON also those of libraries, on stderr. A record's `extra` may have `stage`,
    `step`, `values`, `prefix` (text before the level), and `aside`: on stderr.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line."""
        facts = {name: value for name, value in vars(record).items() if name in ("stage", "step", "values")}
        if not _is_ours(record):
            facts["logger"] = record.name
        if record.exc_info:
            facts["trace"] = logging.Formatter().formatException(record.exc_info)
        stream = sys.stderr if _chosen["aside"] or "logger" in facts or hasattr(record, "aside") else sys.stdout
        _print(_chosen["prefix"] + text_of(record), stream, record.levelname.lower(), **facts)


_CONSOLE = _Console()


def text_of(record: logging.LogRecord) -> str:
    """A record as a line of text."""
    level = f"{record.levelname.lower()}: " if _is_ours(record) and record.levelno >= logging.WARNING else ""
    return f"{getattr(record, 'prefix', '')}{level}{record.getMessage()}"


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in OURS


class ProgressView:
    """Events of a run as lines of text; on a terminal, log intervals move a bar instead."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: tqdm[Any] | None = None

    def show(self, event: Event) -> None:
        """Show one event of a run."""
        if isinstance(event, Logged):
            self._interval(event)
        elif isinstance(event, Validated):
            text = f"{_at(event)}  held out: {_numbers(event.measures)}"
            self._write(text, event, {f"validation/{name}": value for name, value in event.measures.items()})
        elif (said := _text(event)) is not None:
            self._write(said, event)

    def _write(self, text: str, event: Event, values: Mapping[str, float] | None = None) -> None:
        level = logging.WARNING if isinstance(event, WorkerFailed | Warned) else logging.INFO
        facts = {"stage": self._name, "step": getattr(event, "step", None), "values": dict(values or {})}
        logger.log(level, text, extra={"prefix": f"{self._name}{': ' if values is None else ' '}", **facts})

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _interval(self, event: Logged) -> None:
        if not sys.stderr.isatty() or as_json():
            self._write(f"{_at(event)}  {_describe(event)}", event, event.values)
            return
        if self._bar is None:
            self._bar = tqdm(total=event.steps, desc=self._name, leave=False, bar_format=_BAR, dynamic_ncols=True)
        self._bar.n = event.step
        self._bar.set_postfix_str(_describe(event), refresh=True)


def _text(event: Event) -> str | None:
    """The event as text; None: it is not shown."""
    match event:
        case Began():
            return _began(event)
        case Saved(checkpoint=name, seconds=seconds):
            return f"checkpoint {name} written" + ("" if seconds is None else f" in {seconds:.1f} s")
        case WorkerFailed(failures=count):
            return f"{event} (failure {count} of this command)"
        case Skipped(step=step, skipped=count, term=term):
            why = f": {term} was not finite" if term else ""
            return f"step {step} skipped{why} ({count} {'step' if count == 1 else 'steps'} skipped so far)"
        case Stopping(step=step, reason=reason):
            return f"stopping: {reason}, with a checkpoint at step {step}"
        case Warned(text=text):
            return text
    return None


def _began(event: Began) -> str | None:
    source = f" (checkpoint {event.checkpoint})" if event.checkpoint else ""
    if event.restarts:
        why = f": {event.reason}" if event.reason else ""
        return f"workers restarted (restart {event.restarts}{why}); resuming from step {event.step}{source}"
    return f"resuming from step {event.step}{source}" if event.checkpoint else None


def _at(event: Logged | Validated) -> str:
    return f"{event.step}/{event.steps}"


def _describe(event: Logged) -> str:
    """Speed, waiting for data, time left, skipped steps and losses of a log interval."""
    values = event.values
    left = max(0, event.steps - event.step) * values["seconds_per_step"]
    parts = [
        f"{_rate(values['samples_per_s'])} samples/s",
        f"wait {values['data_wait_share']:.0%}",
        f"{timedelta(seconds=round(left))} left",
    ]
    if event.skipped:
        parts.append(f"skipped {event.skipped}")
    return "  ".join([*parts, _numbers(_losses(values))]).rstrip()


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _losses(values: Mapping[str, float]) -> dict[str, float]:
    """The values that fit on a line; gradient norms and accuracies are in MLflow."""
    return {
        name: value
        for name, value in values.items()
        if "/" in name and not name.startswith(_NOT_LOSSES) and "norm" not in name and "accuracy" not in name
    }


def _numbers(values: Mapping[str, float]) -> str:
    return " ".join(f"{name}={value:.3g}" for name, value in values.items())


def choose(name: str, run: str | None, aside: bool = False) -> None:
    """Print the log of our modules, set the format of all lines of this process, and the `run` that JSON lines name.

    In JSON, log records of libraries and Python's warnings become lines, too. aside: log on stderr
    """
    _chosen.update(format=name, run=run, stage=None, prefix="", aside=aside)
    install()
    for ours in map(logging.getLogger, OURS):
        ours.setLevel(logging.INFO)
        ours.propagate = False
        ours.addHandler(_CONSOLE)
    if name == "json":
        logging.captureWarnings(True)
        logging.basicConfig(handlers=[_CONSOLE], level=logging.WARNING, force=True)


def as_json() -> bool:
    """Whether lines are JSON."""
    return bool(_chosen["format"] == "json")


@contextlib.contextmanager
def lines_with(**chosen: Any) -> Iterator[None]:
    """For a block: the `stage` that JSON lines name, the `prefix` of log lines."""
    before = {name: _chosen[name] for name in chosen}
    _chosen.update(chosen)
    try:
        yield
    finally:
        _chosen.update(before)


def line(message: str, level: str = "info", **facts: Any) -> str:
    """One JSON object without a newline."""
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
    return json.dumps(redact_all(finite(whole)), default=lambda value: redact(str(value)))


def finite(value: Any) -> Any:
    """A value for JSON: NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def last_word(state: str, code: int, text: str) -> int:
    """Print the last line of a command's log: state, reason, how to continue. Returns the exit code."""
    if not as_json():
        text = f"error: {text}" if state == "error" else f"{state} (exit code {code}): {text}"
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    level = {0: "info", 130: "warning", 143: "warning"}.get(code, "error")
    _print(text, sys.stderr, level, state=state, exit_code=code)
    return code
