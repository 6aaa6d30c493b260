"""Environments that programs meet: no home, no user, long or closed folders for temporary files, a Ray that hangs.

Programs run as they would for a person, in a process of its own with that environment.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from objgan.errors import InputError
from pipelines import command_line
from pipelines.data.prepare.source import CocoSource
from pipelines.runtime.machine import SOCKET_PATH, check_machine
from pipelines.storage.storage import Storage

NOBODY = ["setpriv", "--reuid", "54321", "--clear-groups", "--inh-caps", "+dac_read_search", "--ambient-caps"]
NOBODY += ["+dac_read_search"]
"""A user that /etc/passwd does not list. It may read everything (the interpreter may lie in root's home), not write."""
NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "TMPDIR", "RAY_TMPDIR")
TOKENS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
Scenes = Callable[..., tuple[list[dict], list[dict], list[dict]]]
WriteCoco = Callable[..., CocoSource]


@pytest.fixture
def work(tmp_path_factory: pytest.TempPathFactory, write_coco: WriteCoco, scenes: Scenes) -> Iterator[Path]:
    """A folder that everybody may write, with a data set."""
    folder = tmp_path_factory.mktemp("work")
    write_coco(folder / "coco", *scenes(12))
    for place in (folder, *folder.parents[:2]):
        place.chmod(0o777)
    (folder / "settings.yaml").write_text("data: {image_size: 64, mask_size: 32, max_objects: 3, vector_channels: 6}\n")
    yield folder
    for place in folder.parents[:2]:
        place.chmod(0o700)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for Ray's sockets, whose paths are long where tests run in several processes."""
    with tempfile.TemporaryDirectory(prefix="og") as folder:
        yield Path(folder)


def _environment(repository: Path, changes: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in (*NAMES, *TOKENS)}
    return {**kept, "PYTHONPATH": str(repository), **changes}


PREPARE = ["-m", "pipelines", "prepare", "--config", "settings.yaml", "--out", "out", "--images", "coco/images"]
PREPARE += ["--instances", "coco/instances.json", "--captions", "coco/captions.json"]


def _run(
    work: Path, repository: Path, changes: dict[str, str], words: list[str] = PREPARE, nobody: bool = False
) -> subprocess.CompletedProcess[str]:
    before = NOBODY if nobody else []
    if nobody and subprocess.run([*NOBODY, "true"], capture_output=True).returncode:
        pytest.skip("changing the user is not permitted here")
    return subprocess.run(
        [*before, sys.executable, *words],
        cwd=work,
        env=_environment(repository, changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )


def _line(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["HOME is not set and /etc/passwd has no user 54321", "set HOME"]),
        ({"HOME": ""}, ["HOME is not set", "set HOME"]),
        ({"HOME": "/"}, ["HOME=/: Ray keeps its token in /.ray/auth_token", "Permission denied", "set HOME"]),
        ({"HOME": "/nonexistent"}, ["HOME=/nonexistent", "Permission denied", "set HOME"]),
        ({"HOME": "/etc/hostname"}, ["HOME=/etc/hostname", "Not a directory", "set HOME"]),
    ],
)
def test_no_home_is_one_line(work: Path, repository: Path, changes: dict[str, str], words: list[str]) -> None:
    text = _line(_run(work, repository, changes, nobody=True))
    assert all(word in text for word in words), text


def test_a_token_that_cannot_be_read_is_one_line(work: Path, repository: Path) -> None:
    (work / "home" / ".ray" / "auth_token").mkdir(parents=True)
    text = _line(_run(work, repository, {"HOME": str(work / "home")}))
    assert "auth_token" in text and "set HOME" in text


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_paths_that_are_too_long_for_sockets_are_one_line(work: Path, repository: Path, name: str) -> None:
    long = work / ("x" * 150)
    long.mkdir()
    text = _line(_run(work, repository, {"HOME": str(work), name: str(long)}))
    assert f"{name}={long}" in text and f"the system allows {SOCKET_PATH}" in text and "set RAY_TMPDIR" in text


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("place", ["relative", ""])
def test_a_folder_for_sockets_that_depends_on_where_a_process_runs_is_one_line(
    work: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    monkeypatch.chdir(work)
    for other in (*NAMES, *TOKENS):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, place)
    with pytest.raises(InputError, match=f"{name}={place} is not an absolute path.*set RAY_TMPDIR"):
        check_machine()


def test_the_longest_path_that_the_error_names_works_for_sockets(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *TOKENS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(work))
    monkeypatch.setenv("RAY_TMPDIR", "/" + 150 * "x")
    with pytest.raises(InputError, match="at most") as caught:
        check_machine()
    most = int(str(caught.value).split("at most ")[1].split()[0])
    for length, fits in ((most, True), (most + 1, False)):
        # The folders do not exist yet: Ray creates them.
        monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * (length - len("/tmp/")))
        if fits:
            check_machine()
        else:
            with pytest.raises(InputError):
                check_machine()


@pytest.mark.parametrize(
    ("place", "words"), [("/proc", "cannot write to /proc"), ("/etc/hostname", "/etc/hostname is not a folder")]
)
def test_a_closed_folder_for_sockets_is_one_line(work: Path, repository: Path, place: str, words: str) -> None:
    text = _line(_run(work, repository, {"HOME": str(work), "RAY_TMPDIR": place}, nobody=True))
    assert words in text and "set RAY_TMPDIR" in text


def test_a_home_folder_that_nobody_has_is_one_line(work: Path, repository: Path) -> None:
    words = ["-m", "pipelines", "runs", "--storage", "~nobody-of-that-name/runs"]
    assert "no such home folder" in _line(_run(work, repository, {}, words))
    assert "no such home folder" in _line(_run(work, repository, {}, [*words[:-1], "~/runs"], nobody=True))
    with pytest.raises(InputError, match="no such home folder"):
        Storage("~nobody-of-that-name/runs")


def test_submit_by_a_user_without_name_and_home(work: Path, repository: Path) -> None:
    words = ["-m", "cluster", "status", "--address", "http://127.0.0.1:9"]
    text = _line(_run(work, repository, {}, words, nobody=True))
    assert "http://127.0.0.1:9" in text


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert command_line.home() == Path("/somewhere")
    monkeypatch.setenv("HOME", "")
    assert command_line.home() is None


@pytest.mark.ray
@pytest.mark.slow
def test_a_user_without_a_name_prepares(work: Path, repository: Path) -> None:
    (work / "home").mkdir()
    (work / "home").chmod(0o777)
    done = _run(work, repository, {"HOME": str(work / "home")}, nobody=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "out" / "manifest.json").exists()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_a_ray_that_does_not_start_in_time_is_tried_once_more(
    work: Path, repository: Path, times: int, short: Path
) -> None:
    """Its raylet is stopped as soon as it is there, once or twice."""
    program = subprocess.Popen(
        [sys.executable, *PREPARE],
        cwd=work,
        env=_environment(repository, {"HOME": str(work), "RAY_TMPDIR": str(short)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stopped: list[int] = []
    watching = threading.Thread(target=_stop_raylets, args=(program, times, stopped))
    watching.start()
    output, errors = program.communicate(timeout=240)
    watching.join()
    assert len(stopped) == times, output + errors
    assert output.count("warning: Ray did not start (") == 1 and "retrying once" in output, output
    if times == 1:
        assert program.returncode == 0, errors
    else:
        assert program.returncode == 1 and len(errors.strip().splitlines()) == 1, errors
        assert errors.startswith("failed (exit code 1): Ray did not start on this machine in two tries (")
        assert "/ray/session_latest/logs" in errors
    assert not [pid for pid in stopped if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


def _stop_raylets(program: subprocess.Popen, times: int, stopped: list[int]) -> None:
    while program.poll() is None and len(stopped) < times:
        try:
            found = psutil.Process(program.pid).children(recursive=True)
            for process in found:
                if process.pid not in stopped and process.name() == "raylet":
                    process.suspend()
                    stopped.append(process.pid)
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.001)
