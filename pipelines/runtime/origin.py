"""Who runs which code: tags of runs and of registered versions."""

import functools
import subprocess
from pathlib import Path

from pipelines.command_line import user
from pipelines.runtime import ray_job

USER, REVISION, DIRTY = "objgan.user", "objgan.git_revision", "objgan.git_dirty"
_ROOT = Path(__file__).resolve().parents[2]


def origin() -> dict[str, str]:
    """User and git revision (none outside of a checkout); of a submitted job, those of its submission."""
    return {USER: user(), **revision(_ROOT), **ray_job.tags()}


@functools.cache
def revision(root: Path) -> dict[str, str]:
    """Revision of the checkout whose top folder is `root`, and whether tracked files are changed; empty without git."""
    if not (root / ".git").exists():
        return {}
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is None:
        return {}
    return {REVISION: commit, **({} if changed is None else {DIRTY: str(bool(changed)).lower()})}


def _git(root: Path, *words: str) -> str | None:
    """What git prints; None if it fails."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()
