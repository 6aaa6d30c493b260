import subprocess
import sys
from pathlib import Path

import pytest

from objgan.errors import InputError
from pipelines.storage.file_lock import exclusive

_HOLD = """
import sys, pathlib
from pipelines.storage.file_lock import exclusive
with exclusive(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_killed_one_lets_go(tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    holder = subprocess.Popen(command, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"in use by process {holder.pid}"), exclusive(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with exclusive(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"), exclusive(tmp_path / "file" / "out"):
        pass


def test_the_lock_file_is_removed_at_the_end(tmp_path: Path) -> None:
    with exclusive(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with pytest.raises(RuntimeError), exclusive(tmp_path):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


_TURNS = """
import os, pathlib, sys
from objgan.errors import InputError
from pipelines.storage.file_lock import exclusive
folder, turns = pathlib.Path(sys.argv[1]), 0
while turns < int(sys.argv[2]):
    try:
        with exclusive(folder / "held"):
            os.mkdir(folder / "inside")
            os.rmdir(folder / "inside")
            turns += 1
    except InputError:
        pass
"""


def test_of_many_that_take_turns_one_is_inside(tmp_path: Path, repository: Path) -> None:
    """A process that opened the lock file just before its holder removed it does not enter beside the next holder."""
    command = [sys.executable, "-c", _TURNS, str(tmp_path), "300"]
    processes = [subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert not list((tmp_path / "held").iterdir())
