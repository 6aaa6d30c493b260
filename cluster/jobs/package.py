"""The checkout as one zip file, which Ray unpacks on every node: the same bytes for the same files.

Files that git tracks and files of `--include` are shipped. Every other file (a token, a `.env`) stays on this machine.

Ray's client uploads the zip file, and packs no folder itself: Ray would ship every file that `.gitignore` does not name
(an untracked token), leave out tracked or included files that it names, follow links out of the checkout, and read each
file again after its content was checked for secrets.
"""

import os
import subprocess
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.jobs.secret_files import Secrets
from objgan.errors import InputError

LIMIT = 100 * 1024**2
"""Largest request of the job server, in bytes."""
_CACHES = {
    ".git", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "node_modules",
}  # fmt: skip
_SHOWN = 5
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_GIT_S = 60


@dataclass(frozen=True)
class Package:
    """The zip file. bytes: its size. left: files that neither git tracks nor `--include` names."""

    path: Path
    files: int
    bytes: int
    left: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.files} files, {size(self.bytes)}"


@contextmanager
def packed(
    checkout: Path, include: Sequence[Path] = (), secrets: Secrets | None = None, limit: int = LIMIT
) -> Iterator[Package]:
    """A zip file of a checkout's tracked files and those of `include`, which exists inside a `with` block.

    include: files or folders of the checkout that git does not track

    Raises:
        InputError: git does not answer, a file looks like a secret, or the package is larger than Ray accepts.
    """
    files = chosen(checkout, include)
    secrets = secrets or Secrets()
    with tempfile.TemporaryDirectory(prefix="objgan-ship-") as scratch:
        path = Path(scratch) / "checkout.zip"
        try:
            # Packing would take long, and the zip file would be too large.
            _check_size(files, checkout, sum(file.stat().st_size for file in files), 20 * limit, limit)
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in files:
                    content = file.read_bytes()
                    secrets.check(file, checkout, content, named=file in include)
                    _add(archive, file, checkout, content)
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror}): make it readable") from None
        package = Package(path, len(files), path.stat().st_size, tuple(_left(checkout, files)))
        _check_size(files, checkout, package.bytes, limit, limit)
        yield package


def chosen(checkout: Path, include: Sequence[Path] = ()) -> list[Path]:
    """The files that are shipped, in order: tracked files, and files of `--include`.

    Raises:
        InputError: git does not answer or tracks nothing here, or an included path is not in the checkout.
    """
    tracked = {file for file in _listed(checkout, "--cached") if _inside(file, checkout)}
    if not tracked:
        raise InputError(f"{checkout}: git tracks no file in it: submit from a clone of the repository")
    return sorted(tracked | {file for path in include for file in _named(path, checkout)})


def size(count: int) -> str:
    """A number of bytes as text."""
    return f"{count / 1024**2:.1f} MiB"


def _named(path: Path, checkout: Path) -> Iterator[Path]:
    """The files of one `--include`."""
    if not path.exists():
        raise InputError(f"--include {path}: does not exist; give a file or folder of {checkout}")
    if not path.resolve().is_relative_to(checkout.resolve()):
        raise InputError(f"--include {path}: is not in {checkout}; copy it there, or put it on the shared storage")
    if path.is_file():
        yield path
        return
    for file in path.rglob("*"):
        if not _CACHES & set(file.relative_to(checkout).parts) and _inside(file, checkout):
            yield file


def _inside(file: Path, checkout: Path) -> bool:
    """Whether it is a file of the checkout, and not a link to another place."""
    return file.is_file() and file.resolve().is_relative_to(checkout.resolve())


def _listed(checkout: Path, *which: str) -> list[Path]:
    """Files that git lists.

    Raises:
        InputError: git does not answer.
    """
    command = ["git", "-C", str(checkout), "ls-files", "-z", *which]
    # Hooks and aliases set GIT_ variables, which point git to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_GIT_S, env=environment)
    except FileNotFoundError:
        raise InputError("git is not installed; submit ships the files that git tracks: install git") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"git does not list the files of {checkout} ({type(error).__name__}): try again") from None
    if done.returncode:
        raise InputError(_git_fault(checkout, done.stderr.decode(errors="replace")))
    return [checkout / name for name in map(os.fsdecode, done.stdout.split(b"\0")) if name]


def _git_fault(checkout: Path, error: str) -> str:
    if "dubious ownership" in error:
        return (
            f"git distrusts {checkout}, because another user owns it: run git config --global --add safe.directory "
            f"{checkout}, or clone it as yourself"
        )
    last = (error.strip().splitlines() or ["no reason given"])[0][:200]
    return f"git does not list the files of {checkout} ({last}): submit from a clone of the repository"


def _left(checkout: Path, files: Collection[Path]) -> Iterator[str]:
    """Untracked files that stay on this machine."""
    shipped = set(files)
    for file in _listed(checkout, "--others", "--exclude-standard"):
        if file not in shipped and file.is_file():
            yield str(file.relative_to(checkout))


def _add(archive: zipfile.ZipFile, file: Path, checkout: Path, content: bytes) -> None:
    name = str(file.relative_to(checkout))
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name!r}: its name is not UTF-8, and Ray cannot unpack it: rename it") from None
    facts = zipfile.ZipInfo(name, _LONG_AGO)
    facts.external_attr, facts.compress_type = (file.stat().st_mode & 0o777) << 16, zipfile.ZIP_DEFLATED
    archive.writestr(facts, content)


def _check_size(files: Sequence[Path], checkout: Path, total: int, most: int, limit: int) -> None:
    if total <= most:
        return
    largest = sorted(files, key=lambda file: -file.stat().st_size)[:_SHOWN]
    named = ", ".join(f"{file.relative_to(checkout)} ({size(file.stat().st_size)})" for file in largest)
    raise InputError(
        f"{checkout} is {size(total)}, Ray accepts {size(limit)}: remove large files from git, or include fewer with "
        f"--include; the largest: {named}"
    )
