"""User and git revision of a run: from a checkout, and where there is no git."""

import subprocess
from pathlib import Path

import pytest

from pipelines.runtime.origin import origin, revision


def _git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_a_checkout_has_a_revision_and_says_whether_it_is_changed(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    assert revision(tmp_path) == {}, "no commit yet"
    (tmp_path / "file").write_text("a")
    _git(tmp_path, "add", "file")
    _git(tmp_path, "commit", "-qm", "first")
    revision.cache_clear()
    assert revision(tmp_path) == {
        "objgan.git_revision": _git(tmp_path, "rev-parse", "HEAD"),
        "objgan.git_dirty": "false",
    }
    (tmp_path / "file").write_text("b")
    revision.cache_clear()
    assert revision(tmp_path)["objgan.git_dirty"] == "true"


def test_without_git_or_checkout_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    _git(tmp_path, "init", "-q")
    assert revision(tmp_path / "inner") == {}, "an installed package inside of another repository"
    (tmp_path / "broken" / ".git").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision(tmp_path / "broken") == {}


def test_a_submitted_job_has_the_tags_of_its_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OBJGAN_TAGS", raising=False)
    assert origin()["objgan.user"]
    monkeypatch.setenv("OBJGAN_TAGS", '{"objgan.user": "ada", "objgan.git_revision": "f00"}')
    assert origin()["objgan.user"] == "ada" and origin()["objgan.git_revision"] == "f00"
