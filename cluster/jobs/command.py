"""The command that a job runs: what can be known of it here, and how it is written for the cluster's shell."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import InputError

CHECKOUT = Path(__file__).resolve().parents[2]
_WITH_SETTINGS = {"demo", "run", "prepare", "train", "judges"}
_PLACES = ("--out", "--storage")
_SETTINGS = ("--recipe", "--config", "--set")
_PATIENCE_S = 120


@dataclass(frozen=True)
class Command:
    """Words to run, starting with `python`."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, words: Sequence[str]) -> "Command":
        """From what follows `--`.

        Raises:
            InputError: there is nothing, or it is no program of this checkout.
        """
        words = list(words[1:] if words[:1] == ["--"] else words)
        if len(words) < 3 or not Path(words[0]).name.startswith("python") or words[1] != "-m":
            raise InputError("say what to run after --, for example: -- python -m pipelines run --out runs/first")
        if not (CHECKOUT / words[2]).is_dir():
            raise InputError(f"python -m {words[2]}: no program of this checkout; there are pipelines and tune")
        return cls(("python", *words[1:]))

    def __str__(self) -> str:
        return shlex.join(self.words)

    @property
    def recipe(self) -> str:
        """The name of its recipe."""
        return self.value("--recipe") or "tiny"

    def value(self, option: str) -> str | None:
        """What the last of an option's occurrences says; None: it is not there."""
        return next(reversed(self.values(option)), None)

    def values(self, option: str) -> list[str]:
        """What all of an option's occurrences say."""
        found = []
        for place, word in enumerate(self.words):
            if word == option and place + 1 < len(self.words):
                found.append(self.words[place + 1])
            elif word.startswith(f"{option}="):
                found.append(word.partition("=")[2])
        return found

    def places(self) -> list[str]:
        """Where it writes, as far as it says."""
        return [place for option in _PLACES for place in self.values(option)]

    def shell(self, folder: str | None) -> str:
        """For the cluster's shell; in `folder`, which is made where it is not there.

        The checkout is on the programs' path wherever they run, but a settings file in it has to be named by its place.
        """
        if folder is None:
            return f"exec {self}"
        place = shlex.quote(folder)
        return f'checkout="$PWD" && mkdir -p {place} && cd {place} && exec {" ".join(map(self._quoted, self.words))}'

    def _quoted(self, word: str) -> str:
        config = not Path(word).is_absolute() and word in self.values("--config") and (CHECKOUT / word).is_file()
        return f'"$checkout"/{shlex.quote(word)}' if config else shlex.quote(word)


@dataclass(frozen=True)
class Ask:
    """What a command wants of the cluster. device: auto, cpu or cuda; grows: more than there is may come."""

    workers: int = 1
    device: str = "auto"
    grows: bool = False

    def of(self, resources: dict[str, float]) -> tuple[str, int, int]:
        """(CPU or GPU, how many, how many there are)."""
        there = {kind: int(resources.get(kind, 0)) for kind in ("CPU", "GPU")}
        gpu = self.device == "cuda" or (self.device == "auto" and there["GPU"] > 0)
        kind = "GPU" if gpu else "CPU"
        return kind, self.workers, there[kind]


def ask_of(command: Command) -> Ask:
    """What the command wants, by its own resolved settings where it has some.

    Raises:
        InputError: its settings are wrong; the line is the program's own.
    """
    least = (command.value("--workers") or "1").partition("-")[0]
    workers = int(least) if least.isdigit() else 1
    if command.words[2] != "pipelines" or len(command.words) < 4 or command.words[3] not in _WITH_SETTINGS:
        return Ask(workers)
    compute = _settings(command).get("compute", {})
    if command.words[3] == "prepare":
        return Ask(1, "cpu")
    return Ask(int(compute.get("workers", 1)), str(compute.get("device", "auto")), bool(compute.get("autoscaling")))


def _settings(command: Command) -> dict[str, Any]:
    """The command's settings, as the program resolves them. Its data and runs are on the cluster, not here."""
    words = [sys.executable, "-m", "pipelines", "settings"]
    for option in (*_SETTINGS, *(("--workers",) if command.words[3] != "prepare" else ())):
        for value in command.values(option):
            words += [option, value]
    try:
        done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"the command's settings could not be read ({type(error).__name__}): try again") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(last.removeprefix("error: "))
    tree = yaml.safe_load(done.stdout)
    return tree if isinstance(tree, dict) else {}
