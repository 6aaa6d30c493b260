"""Images are found by opening them: odd names and odd files are rejects, and changes are noticed at any location."""

import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from objgan.config import Config
from objgan.errors import InputError
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.data.shards.image_files import Unreadable, inside, read_bytes, sizes_of
from pipelines.data.shards.rejected import Reject, read_rejects
from pipelines.storage.storage import Storage

Scenes = Callable[..., tuple[list[dict], list[dict], list[dict]]]


@pytest.fixture
def coco(tmp_path: Path, write_coco: Callable[..., CocoSource], scenes: Scenes) -> CocoSource:
    return write_coco(tmp_path / "coco", *scenes(12))


def _rename(source: CocoSource, names: dict[int, str | None]) -> CocoSource:
    """The source with other file names by image id."""
    content = json.loads(source.instances.read_text())
    for image in content["images"]:
        image["file_name"] = names.get(image["id"], image["file_name"])
    source.instances.write_text(json.dumps(content))
    return source


def _go(source: CocoSource, out: Path, config: Config) -> list[Reject]:
    prepare(source, out, config, run_here)
    return [reject for reject in read_rejects(out / "rejected.jsonl") if reject.kind == "image"]


def test_names_of_one_file_in_other_words_are_found(coco: CocoSource, tmp_path: Path, data_config: Config) -> None:
    (coco.images / "below").mkdir()
    os.link(coco.images / "000005.png", coco.images / "below" / "5.png")
    names = {1: "./000001.png", 2: ".//./000002.png", 3: "below/../000003.png", 5: "below//5.png", 6: "./below/./5.png"}
    lost = _go(_rename(coco, names), tmp_path / "out", data_config)
    assert [(reject.id, reject.reason) for reject in lost] == [(3, "the file name points outside the image folder")]


def test_files_below_linked_folders_and_hidden_ones_are_found(
    coco: CocoSource, tmp_path: Path, data_config: Config
) -> None:
    """Also if all of them are."""
    coco.images.rename(tmp_path / "elsewhere")
    coco.images.mkdir()
    (coco.images / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "000001.png").rename(tmp_path / "elsewhere" / ".1.png")
    names = {number: f"linked/{number:06d}.png" for number in range(2, 13)} | {1: "linked/.1.png"}
    assert _go(_rename(coco, names), tmp_path / "out", data_config) == []


def test_a_change_of_size_is_noticed_at_any_location(coco: CocoSource, tmp_path: Path, data_config: Config) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (coco.images / "linked").symlink_to(elsewhere)
    for number, name in ((1, "000001.png"), (2, ".2.png"), (3, "000003.png")):
        (coco.images / f"{number:06d}.png").rename(elsewhere / name)
    (coco.images / "000003.png").symlink_to(elsewhere / "000003.png")
    source = _rename(coco, {1: "./linked/000001.png", 2: "linked/.2.png"})
    out = tmp_path / "out"
    assert _go(source, out, data_config) == []
    assert _go(source, out, data_config) == [], "nothing has changed"
    for name in ("000001.png", ".2.png", "000003.png"):
        whole = (elsewhere / name).read_bytes()
        (elsewhere / name).write_bytes(whole + b"x")
        with pytest.raises(InputError, match="other images"):
            _go(source, out, data_config)
        (elsewhere / name).write_bytes(whole)
    assert _go(source, out, data_config) == []


def test_files_that_the_json_does_not_name_change_nothing(
    coco: CocoSource, tmp_path: Path, data_config: Config
) -> None:
    out = tmp_path / "out"
    _go(coco, out, data_config)
    (coco.images / "readme.txt").write_text("hello")
    (coco.images / "everything").symlink_to("/")
    assert _go(coco, out, data_config) == []


def _odd_files(folder: Path) -> dict[str, str]:
    """Files and names that are not images, and the reasons of their rejects."""
    (folder / "folder.png").mkdir()
    (folder / "itself.png").symlink_to("itself.png")
    (folder / "one.png").symlink_to("other.png")
    (folder / "other.png").symlink_to("one.png")
    (folder / "dangling.png").symlink_to("nothing.png")
    (folder / "zeros.png").symlink_to("/dev/zero")
    (folder / "memory.png").symlink_to("/proc/self/mem")
    (folder / "empty.png").touch()
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(folder, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/socket.png")
        os.close(here)
    with (folder / "huge.png").open("wb") as file:
        file.truncate(1 << 42)
    absent, unfit = "no such file in the image folder", "cannot read the file"
    outside = "the file name points outside the image folder"
    return {
        "folder.png": unfit,
        "folder.png/below.png": absent,
        "itself.png": unfit,
        "one.png": unfit,
        "itself.png/1.png": unfit,
        "dangling.png": absent,
        "zeros.png": "not a regular file",
        "memory.png": "not an image, or of an unknown format",
        "empty.png": "not an image, or of an unknown format",
        "pipe.png": "not a regular file",
        "socket.png": unfit,
        "huge.png": "the file is too large",
        "a\0b.png": "the file name contains a NUL character",
        "\0": "the file name contains a NUL character",
        "x" * 300: unfit,
        "x/" * 3000: unfit,
        "é" * 200 + ".png": unfit,
        "half\ud800.png": absent,
        "000001.png/": "",
        "000001.png/.": "",
        "000001.PNG": absent,
        "s3://bucket/1.png": absent,
        "images\\1.png": absent,
        ".": unfit,
        "./": unfit,
        "": "the record has no file name",
        "..": outside,
        "../instances.json": outside,
        "below/../../instances.json": outside,
        "/etc/hostname": outside,
        "//etc/hostname": outside,
        "./../instances.json": outside,
    }


@pytest.mark.timeout(120)
def test_odd_names_and_files_are_rejects(
    tmp_path: Path, write_coco: Callable[..., CocoSource], scenes: Scenes, data_config: Config
) -> None:
    source = write_coco(tmp_path / "coco", *scenes(60))
    expected = _odd_files(source.images)
    names = dict(enumerate(expected, 20))
    lost = {reject.id: reject.reason for reject in _go(_rename(source, names), tmp_path / "out", data_config)}
    assert lost == {number: expected[name] for number, name in names.items() if expected[name]}
    again = _go(source, tmp_path / "again", data_config)
    assert {reject.id: reject.reason for reject in again} == lost


def test_sizes_are_of_the_files_that_exist_in_any_number(tmp_path: Path) -> None:
    names = [f"{number:05d}.png" for number in range(3000)]
    for number, name in enumerate(names):
        if number % 3:
            (tmp_path / name).write_bytes(b"x" * (number % 7))
    asked = [*names, "../a.png", "/a.png", "", ".", "a\0b", f"./{names[1]}", names[1]]
    sizes = sizes_of(Storage(tmp_path), iter(asked))
    expected = [number % 7 if number % 3 else -1 for number in range(3000)] + [-1] * 5 + [1, 1]
    assert sizes.sizes.tolist() == expected
    files = sorted((names[number], number % 7) for number in range(3000) if number % 3)
    assert sizes.digest == hashlib.sha256(json.dumps(files).encode()).hexdigest()


def test_a_file_without_read_permission_is_a_reject(coco: CocoSource) -> None:
    place = Storage(coco.images)
    (coco.images / "000001.png").chmod(0)
    assert (sizes_of(place, ["000001.png", "none.png"]).sizes >= 0).tolist() == [True, False]
    child = os.fork()
    if child == 0:
        for folder in (coco.images.parents[1], coco.images.parent, coco.images):
            folder.chmod(0o755)
        os.setuid(54321)
        try:
            read_bytes(place, "000001.png")
        except Unreadable as error:
            os._exit(0 if error.reason == "cannot read the file" else 3)
        except PermissionError:
            os._exit(4)
        os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("what", ["instances", "captions"])
def test_json_from_a_pipe_is_refused_before_anything_waits(coco: CocoSource, tmp_path: Path, what: str) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InputError, match=rf"{what}: .*pipe.json is a pipe or a device: give a regular file"):
        replace(coco, **{what: tmp_path / "pipe.json"}).check()
    with pytest.raises(InputError, match=rf"{what}: .* is a folder: give a regular file"):
        replace(coco, **{what: tmp_path}).digests()


@pytest.mark.parametrize(
    ("name", "meant"), [("a.png", "a.png"), ("./a//b.png", "a/b.png"), ("a/./.b", "a/.b"), ("...", "..."), ("~", "~")]
)
def test_names_are_normalised(name: str, meant: str) -> None:
    assert inside(name) == meant


def test_names_in_a_bucket(s3: str, coco: CocoSource, tmp_path: Path, data_config: Config) -> None:
    bucket = Storage(s3, patience=5)
    for path in coco.images.iterdir():
        bucket.write(f"images/{path.name}", path.read_bytes())
    names = {
        1: "./000001.png",
        2: "a\0b",
        3: "../instances.json",
        4: "x" * 300,
        5: "none.png",
        6: ".//000006.png",
        7: ".",
        8: "below",
    }
    bucket.write("images/below/a.png", b"x")
    source = replace(_rename(coco, names), images=bucket.child("images").uri)
    lost = {reject.id: reject.reason for reject in _go(source, tmp_path / "out", data_config)}
    assert set(lost) == {2, 3, 4, 5, 7, 8}
    bucket.write("images/000001.png", b"x")
    with pytest.raises(InputError, match="other images"):
        _go(source, tmp_path / "out", data_config)


def test_a_broken_disk_is_no_reject(coco: CocoSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk cannot be made to fail like this in a test."""

    def fail(path: str, flags: int, *rest: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("pipelines.data.shards.image_files.os.open", fail)
    with pytest.raises(OSError, match="given up after"):
        read_bytes(Storage(coco.images, patience=0.2), "000001.png")


def test_a_full_disk_of_temporary_files_is_reported_as_such(small_disk: Path, repository: Path) -> None:
    program = """
from pipelines.data.shards.image_files import _Listing

with _Listing() as listing:
    try:
        for start in range(0, 400_000, 10_000):
            listing.add([(f"{number:060d}.jpg", number) for number in range(start, start + 10_000)])
        listing.digest()
    except OSError as error:
        print(error.errno, error.strerror)
"""
    environment = {**os.environ, "PYTHONPATH": str(repository), "SQLITE_TMPDIR": str(small_disk)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == f"{errno.ENOSPC} no space for temporary files\n", done.stderr
