"""Records that kill the process that reads them: they are named, the rest is prepared, retries are bounded."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from objgan.sections import DataConfig
from pipelines.data.prepare.convert import block_of, records_of
from pipelines.data.prepare.ingest import ingest
from pipelines.data.prepare.isolation import convert_apart
from pipelines.data.prepare.rows import Conversion, convert
from pipelines.data.prepare.source import split_of
from pipelines.data.shards.format import load_manifest
from pipelines.data.shards.image_files import read_bytes
from pipelines.data.shards.rejected import Reject, read_rejects
from pipelines.data.verify.verify import verify
from pipelines.storage.attempts import MOST_ATTEMPTS, Attempts, WorkerDied
from pipelines.storage.retry import StorageAway
from pipelines.storage.storage import Storage
from tests.tools.crashes import crashing, run_crashing


def _images(folder: Path, name: str = "image") -> dict[int, Reject]:
    return {reject.image_id: reject for reject in read_rejects(folder / "rejected.jsonl") if reject.kind == name}


def _files(folder: Path) -> dict[str, bytes]:
    """The prepared files, to the last: what a command says of itself meanwhile is gone."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.ray
@pytest.mark.slow
def test_records_that_kill_workers_are_rejected_by_name_and_the_rest_is_prepared(tmp_path, write_coco, scenes) -> None:
    """Of the first shards: one that segfaults, two that are killed, one that takes all memory, one that takes the
    worker with it, and one that a worker died of once, for another's sake."""
    source = write_coco(tmp_path / "coco", *scenes(30))
    # Every attempt at a shard meets again what comes before the record that ends it: that record comes early.
    deeds = {3: "SIGSEGV", 7: "parent", 8: "SIGABRT", 11: "memory", 12: "SIGKILL", 20: "SIGKILL in worker"}
    data = {(source.images / f"{number:06d}.png").read_bytes(): what for number, what in deeds.items()}
    arguments = ["prepare", "--images", source.images, "--instances", source.instances, "--captions", source.captions]
    settings = ["--set", "data.image_size=64", "--set", "data.mask_size=32"]
    # With one core, more shards are to come than workers: these stay.
    for name, cores in (("one", None), ("two", 1)):
        done = run_crashing(tmp_path / "site", data, *arguments, "--out", tmp_path / name, *settings, cores=cores)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Traceback" not in done.stdout + done.stderr
    assert _files(tmp_path / "one") == _files(tmp_path / "two")
    lost = _images(tmp_path / "one")
    assert sorted(lost) == [3, 7, 8, 11, 12]
    assert {one.reason for number, one in lost.items() if number != 11} == {"its conversion kills the worker"}
    assert (lost[3].detail, lost[12].detail, lost[8].detail) == ("SIGSEGV", "SIGKILL", "SIGABRT")
    assert lost[11].reason == "its conversion needs too much memory"
    assert all(reject.shard for reject in lost.values())
    manifest = load_manifest(tmp_path / "one")
    assert manifest["totals"] == {"image": 30, "annotation": 90, "caption": 60}
    assert sum(manifest["rows"].values()) == 25
    assert not verify(tmp_path / "one").faults
    assert not list((tmp_path / "one").rglob("attempts"))


@pytest.mark.ray
@pytest.mark.slow
def test_a_shard_that_kills_too_many_workers_is_named_and_the_next_command_resumes(
    tmp_path, write_coco, scenes
) -> None:
    source = write_coco(tmp_path / "coco", *scenes(30))
    killers = [number for number in range(1, 31) if split_of(number, DataConfig()) == "train"][:4]
    data = {(source.images / f"{number:06d}.png").read_bytes(): "parent" for number in killers}
    arguments = ["prepare", "--images", source.images, "--instances", source.instances, "--captions", source.captions]
    arguments += ["--out", tmp_path / "out", "--set", "data.image_size=64", "--set", "data.mask_size=32"]
    done = run_crashing(tmp_path / "site", data, *arguments)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert f"{MOST_ATTEMPTS} workers died one after the other at shard train-00000.arrow, the last time at image" in (
        done.stdout + done.stderr
    )
    done = run_crashing(tmp_path / "site", data, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(_images(tmp_path / "out")) == killers


def test_records_are_converted_one_by_one_in_a_separate_process(tmp_path, monkeypatch, write_coco, scenes) -> None:
    source = write_coco(tmp_path / "coco", *scenes(12))
    assert isinstance(source.images, Path)
    data = ingest(source, tmp_path / "work")
    records = records_of(block_of(data.images.ids, "train", "x"), tmp_path / "work")
    how = Conversion("train", partial(read, Storage(source.images)), 64, {1: 0, 38: 1, 44: 2})
    deeds = {2: "SIGSEGV", 3: "SIGKILL", 7: "memory", 9: "SIGSEGV in worker"}
    pictures = {(source.images / f"{number:06d}.png").read_bytes(): what for number, what in deeds.items()}
    for name, value in crashing(tmp_path / "site", pictures).items():
        monkeypatch.setenv(name, value)
    with Attempts(tmp_path, "x", "", "a") as attempts:
        found = convert_apart(records, how, attempts)
    lost = [reject for reject in found.rejected if reject.kind == "image"]
    assert [(reject.id, reject.reason, reject.detail) for reject in lost] == [
        (2, "its conversion kills the worker", "SIGSEGV"),
        (3, "its conversion kills the worker", "SIGKILL"),
        (7, "its conversion needs too much memory", "over 8 GiB"),
    ]
    assert len(found.rejected) == 3 * (1 + 3 + 2)
    assert found.rows == convert([one for one in records if one.image["image_id"] not in (2, 3, 7)], how).rows


def test_other_errors_are_raised_from_the_separate_process(tmp_path, write_coco, scenes) -> None:
    source = write_coco(tmp_path / "coco", *scenes(3))
    data = ingest(source, tmp_path / "work")
    records = records_of(block_of(data.images.ids, "train", "x"), tmp_path / "work")
    with Attempts(tmp_path, "x", "", "a") as attempts, pytest.raises(StorageAway, match="out of reach"):
        convert_apart(records, Conversion("train", out_of_reach, 64, {}), attempts)


def read(place: Storage, image: dict) -> bytes:
    return read_bytes(place, image["file_name"])


def out_of_reach(image: dict) -> bytes:
    raise StorageAway(f"{image['file_name']} is out of reach")


def test_attempts_are_counted_over_the_deaths_of_workers(tmp_path) -> None:
    program = """
import os, sys
from pathlib import Path
from objgan.sections import DataConfig
from pipelines.storage.attempts import Attempts
folder, run, image = sys.argv[1:]
with Attempts(Path(folder), "train-00000.arrow", "digest", run) as attempts:
    if image:
        attempts.note(1), attempts.note(int(image))
    os._exit(1)
"""

    def die(run: str, image: str = "") -> None:
        assert subprocess.run([sys.executable, "-c", program, str(tmp_path), run, image]).returncode == 1

    def attempts(inputs: str = "digest", run: str = "b") -> Attempts:
        return Attempts(tmp_path, "train-00000.arrow", inputs, run)

    path = tmp_path / "attempts" / "train-00000.arrow"
    die("a")
    before = path.read_bytes()
    with attempts() as now:
        assert not now.is_suspect and now.killers() == set(), "a command that is stopped takes its workers with it"
    assert not path.exists(), "an attempt that ended leaves nothing"
    path.write_bytes(before)
    with attempts(run="a") as now:
        assert now.is_suspect
    path.write_bytes(before)
    die("b", "5")
    die("b", "6")
    with attempts() as now:
        assert now.is_suspect and now.killers() == set()
    for image in ("5", "6", "5"):
        die("b", image)
    text = path.read_bytes()
    with attempts() as now:
        assert now.is_suspect and now.killers() == {5}
    path.write_bytes(text)
    with attempts(inputs="other") as now:
        assert not now.is_suspect, "the image may have been mended"
    path.write_bytes(text)
    for image in (*["9"] * (MOST_ATTEMPTS - 4), ""):  # the last one dies before its first image
        die("b", image)
    with pytest.raises(WorkerDied, match=f"{MOST_ATTEMPTS} workers died .* shard train-00000.arrow, .* image 9"):
        attempts().__enter__()
    with attempts(run="c") as now:
        assert now.killers() == {5, 9}, "the next command tries again"


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '["inputs"]', '["inputs", "digest"]\n["image", 5]\n', "[1"])
def test_a_broken_list_of_attempts_is_replaced(tmp_path, text: str) -> None:
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts" / "x").write_text(text)
    with Attempts(tmp_path, "x", "digest", "a") as attempts:
        assert not attempts.is_suspect
