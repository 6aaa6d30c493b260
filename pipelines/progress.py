"""What a person sees of long work: a bar on a terminal, plain lines elsewhere."""

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

Log = Callable[[str], None]
_POLL = 0.5


def say(text: str) -> None:
    """A plain line, at once; above the bar where there is one."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


@contextlib.contextmanager
def watch(path: Path, name: str, log: Log) -> Iterator[None]:
    """Follow a run's `progress.jsonl` while the block lasts, from its present end on."""
    stop = threading.Event()
    start = path.stat().st_size if path.exists() else 0
    thread = threading.Thread(target=_follow, args=(path, start, _View(name, log), stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5)


def _follow(path: Path, position: int, view: "_View", stop: threading.Event) -> None:
    while True:
        last = stop.is_set()
        if path.exists():
            with path.open() as file:
                file.seek(position)
                for line in iter(file.readline, ""):
                    if not line.endswith("\n"):
                        break
                    position += len(line.encode())
                    view.show(json.loads(line))
        if last:
            view.close()
            return
        stop.wait(_POLL)


class _View:
    """Lines of a run as text; on a terminal also a bar."""

    def __init__(self, name: str, log: Log) -> None:
        self._name, self._log = name, log
        self._bar: tqdm[Any] | None = None

    def show(self, line: dict[str, Any]) -> None:
        if "resumed" in line:
            self._log(f"{self._name}: goes on from step {line['resumed']}")
        elif "measures" in line:
            self._log(f"{self._name} {line['step']}/{line['steps']}  held out: {_numbers(line['measures'])}")
        elif sys.stderr.isatty():
            self._move_bar(line)
        else:
            self._log(self._describe(line))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _move_bar(self, line: dict[str, Any]) -> None:
        if self._bar is None:
            self._bar = tqdm(total=line["steps"], desc=self._name, unit="step", leave=False)
        self._bar.n = line["step"]
        self._bar.set_postfix_str(_numbers(_losses(line["values"])), refresh=True)

    def _describe(self, line: dict[str, Any]) -> str:
        values = line["values"]
        left = (line["steps"] - line["step"]) * values["seconds_per_step"]
        return (
            f"{self._name} {line['step']}/{line['steps']}  {values['samples_per_s']:.0f} samples/s  "
            f"wait {values['data_wait_share']:.0%}  {timedelta(seconds=round(left))} left  {_numbers(_losses(values))}"
        )


def _losses(values: dict[str, float]) -> dict[str, float]:
    """What fits on a line; gradient norms and accuracies are in MLflow."""
    return {k: v for k, v in values.items() if "/" in k and "norm" not in k and "accuracy" not in k}


def _numbers(values: dict[str, float]) -> str:
    return " ".join(f"{name}={value:.3g}" for name, value in values.items())
