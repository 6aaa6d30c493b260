"""Intact folders, and folders that were damaged on purpose: every fault is reported, with its file and row."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from objgan.errors import InputError
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import Options, prepare
from pipelines.data.shards.format import Shard, dataset_digest, read_shard, write_shard
from pipelines.data.shards.manifest import MANIFEST
from pipelines.data.verify.shard_checks import MOST_LISTED
from pipelines.data.verify.verify import Verified, verify
from pipelines.storage.storage import Storage
from tests.tools.logged import logged


@pytest.fixture
def copy(prepared: Path, tmp_path: Path) -> Path:
    """A copy of a prepared folder that a test may damage."""
    return Path(shutil.copytree(prepared, tmp_path / "data"))


def _verify(folder: Path | str, processes: int = 1) -> tuple[Verified, list[str]]:
    with logged() as lines:
        return verify(folder, processes), lines


def _names(folder: Path) -> list[str]:
    return [shard["name"] for shard in json.loads((folder / MANIFEST).read_text())["shards"]]


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def _rewrite(folder: Path, name: str, change) -> None:
    """Replace rows in a shard and update its sha256 in the manifest: only the content is wrong."""
    table = read_shard(folder / name)
    rows = change(table.to_pylist())
    manifest = json.loads((folder / MANIFEST).read_text())
    shard = next(file for file in manifest["shards"] if file["name"] == name)
    written = write_shard(folder, name, shard["split"], pa.Table.from_pylist(rows, schema=table.schema))
    shard |= {"bytes": written.bytes, "sha256": written.sha256}
    shards = [Shard(**file) for file in [*manifest["shards"], *manifest["indices"]]]
    manifest["digest"] = dataset_digest(shards, manifest["domain"])
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("processes", [1, 2])
def test_intact_data_have_no_fault(prepared: Path, prepared_boxes: Path, processes: int) -> None:
    for folder, rows in ((prepared, 40), (prepared_boxes, 20)):
        found, lines = _verify(folder, processes)
        assert found.faults == [] and found.rows == rows and found.files == 3
        assert f"intact: {rows} rows in 3 shards" in found.summary()
        assert lines[-1].startswith(f"verify: 3/3 shards, {rows}/{rows} images")


def test_parquet_is_verified_like_arrow(write_coco, scenes, data_config, tmp_path: Path) -> None:
    source, out = write_coco(tmp_path / "coco", *scenes(20)), tmp_path / "data"
    prepare(source, out, data_config, run_here, Options("parquet"))
    found, _ = _verify(out)
    assert found.faults == [] and found.rows == 20
    shard = out / "train-00000.parquet"
    _flip(shard, shard.stat().st_size // 2)
    (out / "test-00000.parquet").write_bytes((out / "test-00000.parquet").read_bytes()[:-100])
    texts = [str(fault) for fault in _verify(out)[0].faults]
    assert any(text.startswith("train-00000.parquet: its sha256") for text in texts)
    assert any(text.startswith("test-00000.parquet: cut short: ") for text in texts)


def test_all_faults_are_reported_not_only_the_first(copy: Path) -> None:
    first, second, third = _names(copy)
    data = (copy / first).read_bytes()
    at = data.index(b"\xff\xd8", len(data) // 2)  # a picture's first bytes
    _flip(copy / first, at)
    (copy / second).write_bytes((copy / second).read_bytes()[:-100])
    (copy / third).unlink()
    (copy / "domain" / "classes.json").write_text("[]")
    _flip(copy / "_index-train.arrow", 1000)
    found, lines = _verify(copy, 2)
    texts = "\n".join(map(str, found.faults))
    assert f"{first}: its sha256" in texts
    table = read_shard(copy / first)
    row = next(n for n, image in enumerate(table["image"].to_pylist()) if image[:2] != b"\xff\xd8")
    assert f"{first}, row {row}: image {table['image_id'][row]}: the image does not decode" in texts
    assert f"{second}: cut short: " in texts and "bytes instead of" in texts
    assert f"{third}: missing" in texts
    assert "domain/classes.json: its sha256" in texts
    assert "_index-train.arrow: its sha256" in texts
    assert "faults in 5 files" in found.summary()
    assert set(map(str, found.faults)) <= set(lines)
    assert found.faults == _verify(copy, 1)[0].faults, "the same, in the same order, from any number of processes"


def test_a_flipped_bit_is_reported(copy: Path) -> None:
    name = _names(copy)[0]
    data = bytearray((copy / name).read_bytes())
    data[data.index(b"\xff\xd8", len(data) // 2) + 300] ^= 0b100
    (copy / name).write_bytes(data)
    assert (
        str(_verify(copy)[0].faults[0])
        == f"{name}: its sha256 differs from the one in manifest.json: its content changed"
    )


def test_unlisted_shards_are_faults(copy: Path) -> None:
    shutil.copy(copy / _names(copy)[0], copy / "train-00007.arrow")
    (copy / "notes.txt").write_text("mine")
    assert [str(fault) for fault in _verify(copy)[0].faults] == [
        "train-00007.arrow: not listed in manifest.json: it belongs to another preparation, move it away"
    ]


def test_rejects_are_counted(write_coco, scenes, data_config, tmp_path: Path) -> None:
    images, objects, captions = scenes(20)
    objects[0]["bbox"] = [1, 1, -4, 0]
    source, out = write_coco(tmp_path / "coco", images, objects, captions), tmp_path / "data"
    prepare(source, out, data_config, run_here)
    assert _verify(out)[0].faults == []
    (out / "rejected.jsonl").write_text("")
    assert [fault.text.split(":")[0] for fault in _verify(out)[0].faults] == ["cut short"]
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["rejected"] |= {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    manifest["totals"]["annotation"] += 1
    (out / MANIFEST).write_text(json.dumps(manifest))
    texts = "\n".join(map(str, _verify(out)[0].faults))
    assert "manifest.json: rejected.rows says 1, rejected.jsonl has 0" in texts
    assert "manifest.json: totals.annotation says" in texts


def test_many_faults_of_a_file_are_counted_and_the_first_are_listed(copy: Path) -> None:
    name = _names(copy)[0]
    _rewrite(copy, name, lambda rows: [row | {"image": b"", "masks": ["04"] * 3} for row in rows])
    rows = len(read_shard(copy / name))
    found, lines = _verify(copy)
    texts = [fault for fault in found.faults if fault.file == name]
    assert len(texts) == MOST_LISTED and found.more == 4 * rows - MOST_LISTED
    assert f"{name}: and {found.more} more" in lines
    assert f"{len(found.faults) + found.more} faults in 1 file " in found.summary()


def test_rows_are_checked_even_if_checksums_agree(copy: Path) -> None:
    name = _names(copy)[0]
    _rewrite(copy, name, lambda rows: [row | ({"masks": ["04"] * 3} if n == 2 else {}) for n, row in enumerate(rows)])
    found, _ = _verify(copy)
    assert {(fault.file, fault.row) for fault in found.faults} == {(name, 2)}
    assert len(found.faults) == 3


def test_a_missing_row_and_a_repeated_row(copy: Path) -> None:
    name = _names(copy)[0]
    _rewrite(copy, name, lambda rows: [rows[0], rows[0], *rows[2:]])
    texts = [str(fault) for fault in _verify(copy)[0].faults]
    assert any(f"occurs more than once, in {name}" in text for text in texts)
    assert any("_index-train.arrow, row 1: image " in text and "in its place" in text for text in texts)
    _rewrite(copy, name, lambda rows: rows[1:])
    texts = [str(fault) for fault in _verify(copy)[0].faults]
    assert any(f"{name}: " in text and "rows, the manifest says" in text for text in texts)
    assert any("counts.images says 40, the shards hold 39" in text for text in texts)


def test_a_changed_manifest_is_seen(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["digest"] = "0" * 64
    manifest["counts"]["masks"] += 1
    (copy / MANIFEST).write_text(json.dumps(manifest))
    texts = [str(fault) for fault in _verify(copy)[0].faults]
    assert len(texts) == 2 and "its digest" in texts[0] and "counts.masks says" in texts[1]
    (copy / MANIFEST).write_text(json.dumps(manifest | {"rejected": {}}))
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        verify(copy)


@pytest.mark.parametrize("seed", range(3))
def test_every_flipped_byte_is_noticed(copy: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    damaged = set()
    for path in [*copy.glob("*.arrow")]:
        _flip(path, int(generator.integers(path.stat().st_size)))
        damaged.add(path.name)
    found, _ = _verify(copy, 2)
    assert {fault.file for fault in found.faults} >= damaged


def _kill_idle_readers(stop: threading.Event) -> None:
    """Kill every process of a pool that was idle for two seconds, as the kernel does if memory runs out."""
    last: dict[int, tuple[float, float]] = {}
    while not stop.wait(0.2):
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if "spawn_main" in " ".join(child.cmdline()):
                    used, now = sum(child.cpu_times()[:2]), time.monotonic()
                    before, since = last.get(child.pid, (-1.0, now))
                    last[child.pid] = (used, since if used == before else now)
                    if now - last[child.pid][1] > 2:
                        child.kill()


def test_a_file_whose_reader_dies_is_reported_and_the_others_are_read(copy: Path) -> None:
    name = _names(copy)[0]
    (copy / name).unlink()
    os.mkfifo(copy / name)  # whoever opens it waits for ever
    stop = threading.Event()
    killer = threading.Thread(target=_kill_idle_readers, args=(stop,))
    killer.start()
    try:
        found, _ = _verify(copy, 2)
    finally:
        stop.set()
        killer.join()
    assert [(fault.file, "died" in fault.text) for fault in found.faults] == [(name, True)]
    assert found.files == 2 and found.rows < 40


def test_empty_and_foreign_files_are_faults(copy: Path) -> None:
    first, second, _ = _names(copy)
    (copy / first).write_bytes(b"")
    (copy / second).write_bytes(b"\x00" * (copy / second).stat().st_size)
    texts = [str(fault) for fault in _verify(copy)[0].faults]
    assert any(text.startswith(f"{first}: cut short: 0 bytes instead of") for text in texts)
    assert any(text.startswith(f"{second}: its content cannot be read") for text in texts)


def test_a_missing_manifest_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a prepared folder"):
        verify(tmp_path)
    with pytest.raises(InputError, match="not a prepared folder"):
        verify(tmp_path / "nowhere")
    (tmp_path / MANIFEST).write_text("[")
    with pytest.raises(InputError, match="is not JSON"):
        verify(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"schema_version": 99, "shards": []}))
    with pytest.raises(InputError, match="schema version 99"):
        verify(tmp_path)


def test_a_bucket_is_verified_like_a_folder(prepared: Path, s3: str) -> None:
    storage = Storage(s3)
    storage.upload(prepared, "data", last=MANIFEST)
    location = storage.child("data").uri
    found, _ = _verify(location, 2)
    assert found.faults == [] and found.rows == 40
    name = _names(prepared)[0]
    data = bytearray((prepared / name).read_bytes())
    data[len(data) // 2] ^= 1
    storage.write(f"data/{name}", bytes(data))
    storage.delete("data/_index-train.arrow")
    found, _ = _verify(location, 2)
    texts = [str(fault) for fault in found.faults]
    assert "_index-train.arrow: missing" in texts and any(text.startswith(f"{name}: its sha256") for text in texts)


def test_the_exit_code_of_the_command(copy: Path, repository: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "verify", str(copy), "--processes", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository)
    assert done.returncode == 0 and "intact: 40 rows in 3 shards" in done.stdout
    _flip(copy / _names(copy)[1], 5000)
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository)
    assert done.returncode == 2 and "damaged: " in done.stdout and f"{_names(copy)[1]}: its sha256" in done.stdout
    assert done.stderr.startswith("error: data: ") and len(done.stderr.splitlines()) == 1
