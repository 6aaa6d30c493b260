"""Runs every command of the documents, long ones in a shorter form (`tests.tools.documents`).

The commands and the Python of the first README need the demo's run: tests/pipelines/workflow/test_run.py.
"""

import signal
from pathlib import Path

import pytest

from tests.tools.documents import COCO, DOCUMENTS, SETTINGS, SHORT, commands, plain, run_all, run_all_here


@pytest.fixture
def work(repository: Path, tmp_path: Path) -> Path:
    """Where commands run: an empty folder with quick settings, ../shared beside it."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "quick.yaml").write_text(SETTINGS)
    (tmp_path / "work" / "captions.csv").write_text("id,caption\n1,a red kite\n2,the boat\n")
    (tmp_path / "shared").symlink_to(repository.parent / "shared")
    return tmp_path / "work"


def test_the_table_has_exactly_the_commands_of_the_documents(repository: Path) -> None:
    documented = {command for name in DOCUMENTS for command in commands((repository / name).read_text())}
    assert documented == {plain(command) for command in SHORT}


def test_no_document_is_left_out(repository: Path) -> None:
    folders = (".", "objgan", "pipelines", "tune", "cluster", "tests", "docs")
    found = {str(path.relative_to(repository)) for folder in folders for path in (repository / folder).glob("*.md")}
    silent = {name for name in found if not list(commands((repository / name).read_text()))}
    assert found - silent <= set(DOCUMENTS)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "cluster/README.md"])
def test_the_commands_run(repository: Path, work: Path, name: str) -> None:
    run_all(repository, work, list(commands((repository / name).read_text())))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ["pipelines/README.md", "tune/README.md"])
def test_the_commands_with_ray_run(
    repository: Path, work: Path, name: str, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    before = signal.getsignal(signal.SIGTERM)
    try:
        run_all_here(repository, work, list(commands((repository / name).read_text())))
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.ray
@pytest.mark.real
@pytest.mark.slow
def test_the_command_for_real_coco_runs(repository: Path, work: Path, shared_coco: Path) -> None:
    run_all(repository, work, [COCO])
    assert (work / "runs" / "coco" / "config.json").exists()


def test_commands_are_read_as_a_shell_would() -> None:
    text = 'a\n```bash\nmake demo  # long\n\n# nothing\npython -m x \\\n  --y "a # b"\n```\n```\nnot this\n```\n'
    assert list(commands(text)) == ["make demo", "python -m x --y 'a # b'"]
