"""What a person sees of long work: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from tqdm import tqdm

from pipelines import log_format

Log = Callable[[str], None]
# Numbers of the machine and the optimiser are for MLflow.
_NOT_LOSSES = ("system/", "learning_rate/", "memory/", "validation/")
_BAR = "{desc} {n_fmt}/{total_fmt} |{bar:12}| {postfix}"


def say(text: str, **facts: Any) -> None:
    """A plain line, at once; above the bar where there is one. facts: more of it, for lines in JSON."""
    if log_format.as_json():
        level = "warning" if "warning:" in text else "info"
        text = log_format.line(text.strip("\n"), **{"level": level, **facts})
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


class ProgressView:
    """Lines of a run as text; on a terminal, log intervals move a bar instead."""

    def __init__(self, name: str, log: Log) -> None:
        self._name, self._log = name, log
        self._bar: tqdm[Any] | None = None

    def show(self, line: dict[str, Any]) -> None:
        """Show one line of a run, whatever kind it is; unknown kinds are passed over."""
        if "values" in line:
            self._interval(line)
        elif "measures" in line:
            text = f"{self._name} {_at(line)}  held out: {_numbers(line['measures'])}"
            self._tell(text, line["step"], {f"validation/{name}": value for name, value in line["measures"].items()})
        else:
            for kind, describe in _EVENTS.items():
                if kind in line:
                    self._tell(f"{self._name}: {describe(line)}", line.get("step", line.get("resumed")))
                    return

    def _tell(self, text: str, step: int | None, values: dict[str, float] | None = None) -> None:
        if self._log is say:
            say(text, stage=self._name, step=step, values=values or {})
        else:
            self._log(text)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _interval(self, line: dict[str, Any]) -> None:
        if not sys.stderr.isatty() or log_format.as_json():
            self._tell(f"{self._name} {_at(line)}  {_describe(line)}", line["step"], line["values"])
            return
        if self._bar is None:
            self._bar = tqdm(total=line["steps"], desc=self._name, leave=False, bar_format=_BAR, dynamic_ncols=True)
        self._bar.n = line["step"]
        self._bar.set_postfix_str(_describe(line), refresh=True)


def _checkpoint(line: dict[str, Any]) -> str:
    took = f" in {line['seconds']:.1f} s" if line.get("seconds") is not None else ""
    return f"checkpoint {line['checkpoint']} kept{took}"


def _resumed(line: dict[str, Any]) -> str:
    source = f" (checkpoint {line['checkpoint']})" if line.get("checkpoint") else ""
    return f"goes on from step {line['resumed']}{source}"


def _skipped(line: dict[str, Any]) -> str:
    term = f": {line['term']} was not finite" if line.get("term") else ""
    count = line["skipped"]
    return f"step {line['step']} left out{term} ({count} {'step' if count == 1 else 'steps'} left out so far)"


# In this order: a line is of the first kind whose key it has.
_EVENTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "resumed": _resumed,
    "checkpoint": _checkpoint,
    "restarted": lambda line: f"workers started again (restart {line['restarted']}): {line.get('reason') or 'unknown'}",
    "skipped": _skipped,
    "stopping": lambda line: f"stopping: {line['stopping']}",
    "warning": lambda line: f"warning: {line['warning']}",
}


def _at(line: dict[str, Any]) -> str:
    return f"{line['step']}/{line['steps']}"


def _describe(line: dict[str, Any]) -> str:
    """Speed, waiting for data, time left, steps left out and losses of a log interval."""
    values = line["values"]
    left = max(0, line["steps"] - line["step"]) * values["seconds_per_step"]
    parts = [
        f"{_rate(values['samples_per_s'])} samples/s",
        f"wait {values['data_wait_share']:.0%}",
        f"{timedelta(seconds=round(left))} left",
    ]
    if line.get("skipped"):
        parts.append(f"left out {line['skipped']}")
    return "  ".join([*parts, _numbers(_losses(values))]).rstrip()


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _losses(values: dict[str, float]) -> dict[str, float]:
    """What fits on a line; gradient norms and accuracies are in MLflow."""
    return {
        name: value
        for name, value in values.items()
        if "/" in name and not name.startswith(_NOT_LOSSES) and "norm" not in name and "accuracy" not in name
    }


def _numbers(values: dict[str, float]) -> str:
    return " ".join(f"{name}={value:.3g}" for name, value in values.items())
