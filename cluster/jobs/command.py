"""The command that a job runs: its settings and resources, and its text for the cluster's shell."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from objgan.config import Config
from objgan.errors import InputError
from pipelines.recipes import resolve

CHECKOUT = Path(__file__).resolve().parents[2]
_WITH_SETTINGS = {"demo", "run", "prepare", "train", "judges"}
_PLACES = ("--out", "--storage")
_ONCE = ("--recipe", "--config", "--workers")


@dataclass(frozen=True)
class Command:
    """A command line that starts with `python`."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, words: Sequence[str]) -> "Command":
        """The command of the words after `--`.

        Raises:
            InputError: no words, or not a program of this checkout.
        """
        words = list(words)
        words = words[1:] if words[:1] == ["--"] else words
        if len(words) < 3 or not Path(words[0]).name.startswith("python") or words[1] != "-m":
            raise InputError("give a command after --, for example: -- python -m pipelines run --out runs/first")
        if not (CHECKOUT / words[2]).is_dir():
            raise InputError(f"python -m {words[2]}: not a program of this checkout: choose pipelines or tune")
        return cls(("python", *words[1:]))

    def __str__(self) -> str:
        return shlex.join(self.words)

    @property
    def recipe(self) -> str:
        """Name of its recipe."""
        return self.value("--recipe") or "tiny"

    def value(self, option: str) -> str | None:
        """The last value of an option; None: the command lacks the option."""
        return next(reversed(self.values(option)), None)

    def values(self, option: str) -> list[str]:
        """All values of an option."""
        values = []
        for word, following in zip(self.words, [*self.words[1:], None], strict=True):
            if word == option and following is not None:
                values.append(following)
            elif word.startswith(f"{option}="):
                values.append(word.partition("=")[2])
        return values

    def places(self) -> list[str]:
        """Folders and URIs that its options name for output."""
        return [place for option in _PLACES for place in self.values(option)]

    def shell(self, folder: str | None) -> str:
        """The command for the cluster's shell, which creates `folder` and runs in it.

        Python finds the checkout from any folder, but a settings file in the checkout needs its whole path.
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
    """Resources that a command needs. device: auto, cpu or cuda; grows: the cluster adds missing workers."""

    workers: int = 1
    device: str = "auto"
    grows: bool = False

    def of(self, resources: dict[str, float]) -> tuple[str, int, int]:
        """(CPU or GPU, needed number, number in the cluster)."""
        gpus = int(resources.get("GPU", 0))
        if self.device == "cuda" or (self.device == "auto" and gpus > 0):
            return "GPU", self.workers, gpus
        return "CPU", self.workers, int(resources.get("CPU", 0))


def ask_of(command: Command) -> Ask:
    """Resources that the command needs, by its own settings if it has some.

    Raises:
        InputError: its settings are wrong.
    """
    name = command.words[3] if command.words[2] == "pipelines" and len(command.words) > 3 else ""
    if name not in _WITH_SETTINGS:
        fewest = (command.value("--workers") or "1").partition("-")[0]
        return Ask(int(fewest) if fewest.isdigit() else 1)
    compute = _settings(command).compute
    return Ask(1, "cpu") if name == "prepare" else Ask(compute.workers, compute.device, compute.autoscaling)


def _settings(command: Command) -> Config:
    """The command's settings, as the program resolves them. Its data and runs are on the cluster, not here."""
    assignments = command.values("--set")
    if command.words[3] != "prepare" and (workers := command.value("--workers")):
        fewest, _, most = workers.partition("-")
        assignments += [f"compute.workers={fewest}", f"compute.max_workers={most or 'null'}"]
    names = [option for option in _ONCE for _ in command.values(option)]
    names += [assignment.partition("=")[0] for assignment in assignments]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"the command sets {twice} twice: set it once")
    config = command.value("--config")
    file = None if config is None else CHECKOUT / os.path.expanduser(config)
    return resolve(command.recipe, file, assignments)
