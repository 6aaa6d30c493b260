"""The checkout as one zip file, which Ray unpacks on every node: the same bytes for the same files."""

import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import InputError

LIMIT = 100 * 1024**2
"""What the job server takes in one request, bytes."""
_FOLDERS = {
    ".git", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "build", "dist",
    "node_modules",
}  # fmt: skip
_TOP = {"data", "runs"}
_SHOWN = 5
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """What is shipped. bytes: of the zip file."""

    path: Path
    files: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.files} files, {size(self.bytes)}"


@contextmanager
def packed(checkout: Path, limit: int = LIMIT) -> Iterator[Package]:
    """The checkout without what git ignores, data, runs and caches, packed for the length of a block.

    Raises:
        InputError: more than Ray takes; the largest paths are named.
    """
    files = sorted(chosen(checkout))
    with tempfile.TemporaryDirectory(prefix="objgan-ship-") as scratch:
        path = Path(scratch) / "checkout.zip"
        # What is so large is not worth the time of packing it.
        _refuse(files, checkout, sum(file.stat().st_size for file in files), 20 * limit, limit)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                facts = zipfile.ZipInfo(str(file.relative_to(checkout)), _LONG_AGO)
                facts.external_attr, facts.compress_type = (file.stat().st_mode & 0o777) << 16, zipfile.ZIP_DEFLATED
                archive.writestr(facts, file.read_bytes())
        found = Package(path, len(files), path.stat().st_size)
        _refuse(files, checkout, found.bytes, limit, limit)
        yield found


def chosen(checkout: Path) -> Iterator[Path]:
    """The files that are shipped: what git knows or would add; without git, all but caches, data and runs."""
    for file in _known_to_git(checkout) or checkout.rglob("*"):
        parts = file.relative_to(checkout).parts
        skipped = parts[0] in _TOP or _FOLDERS & set(parts) or any(part.endswith(".egg-info") for part in parts)
        if not skipped and file.is_file() and checkout.resolve() in file.resolve().parents:
            yield file


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1024**2:.1f} MiB"


def _known_to_git(checkout: Path) -> list[Path]:
    command = ["git", "-C", str(checkout), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [checkout / name for name in told.split("\0") if name]


def _refuse(files: list[Path], checkout: Path, there: int, most: int, limit: int) -> None:
    if there <= most:
        return
    largest = sorted(files, key=lambda file: -file.stat().st_size)[:_SHOWN]
    named = ", ".join(f"{file.relative_to(checkout)} ({size(file.stat().st_size)})" for file in largest)
    raise InputError(
        f"{checkout} is {size(there)}, Ray takes {size(limit)}: move what the job does not need into data/ or runs/, "
        f"or let .gitignore name it; the largest: {named}"
    )
