"""Prepared data in a bucket, read through a node's cache."""

import contextlib
import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from objgan.config import Config, build_config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.files import sha256
from pipelines.data.loading.batch_plan import BatchPlan
from pipelines.data.loading.data_folder import REMOTE_WINDOW, RemoteFolder, open_data
from pipelines.data.loading.reader import ShardReader, loader
from pipelines.data.loading.shard_cache import ShardCache, Wanted
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.shards.format import load_manifest, shards_of
from pipelines.storage.storage import Storage
from pipelines.training.driver import train
from pipelines.training.job import TrainJob, open_run
from tests.tools.training import last, same_weights, small_config

ALL = frozenset({"image", "boxes", "masks"})


@pytest.fixture(scope="module")
def local(tmp_path_factory, write_coco, scenes, data_config) -> Path:
    """40 scenes in shards of 3."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.data.prepare.prepare.ROWS_PER_SHARD", 3)
        prepare(write_coco(folder / "coco", *scenes(40)), folder / "data", data_config, run_here)
    return folder / "data"


class Road:
    """A forwarder to the server, which counts the shards that are asked for, and can be closed for a while."""

    def __init__(self, target: str) -> None:
        host, port = target.split(":")
        self._target, self.open, self.gets = (host, int(port)), True, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if not self.open:
                client.close()
                continue
            server = socket.create_connection(self._target)
            threading.Thread(target=self._carry, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(65536):
                if not self.open:
                    break
                self.gets += counts and data.startswith(b"GET") and b"train-0" in data.split(b"\r\n", 1)[0]
                target.sendall(data)
        except OSError:
            pass
        finally:
            for one in (source, target):
                one.close()


@pytest.fixture
def road(s3_server: str) -> Road:
    return Road(s3_server)


@pytest.fixture
def uri(s3: str, s3_server: str, road: Road, local: Path) -> str:
    """The URI of the data in the bucket, through the forwarder."""
    Storage(s3).upload(local, "prepared", last="manifest.json")
    return Storage(s3).child("prepared").uri.replace(s3_server, road.address)


def _room(local: Path, shards: float) -> float:
    """GB of so many of the largest shards."""
    return max(shard["bytes"] for shard in load_manifest(local)["shards"]) * shards / 1e9


def _with_cache(config: Config, folder: Path, size: float = 1.0) -> Config:
    return build_config({**config.model_dump(), "compute": {"cache": folder, "cache_gb": size}})


def _equal(a, b) -> bool:
    pairs = [(x.batch, y.batch) for x, y in zip(a, b, strict=True)]
    return all(
        torch.equal(x.image_ids, y.image_ids) and torch.equal(x.images, y.images) and torch.equal(x.words, y.words)
        for x, y in pairs
    )


def _cached(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def _bytes(folder: Path) -> int:
    """What the cache takes, counted while nobody can make room: a loader fetches ahead beside the test.

    By inode, for a fetched file may get its name between two looks.
    """
    sizes = {}
    with (folder / "locks" / "room").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in _cached(folder):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def test_a_bucket_gives_the_samples_of_the_folder_with_a_cache_of_three_shards(
    uri, road, local, data_config, tmp_path
) -> None:
    local_reader = ShardReader(local, "train", ALL, data_config, 8)
    config = _with_cache(data_config, tmp_path, _room(local, 3.5))
    remote = ShardReader(uri, "train", ALL, config, 8)
    shards = len(shards_of(load_manifest(local), "train"))
    assert shards >= 9
    epochs = 3
    order = BatchPlan(6, 1, 0, epochs * len(local_reader) // 6, groups=2, window=2)
    for a, b in zip(loader(local_reader, order), loader(remote, order), strict=True):
        assert _equal(a, b)
        assert _bytes(tmp_path) <= config.compute.cache_gb * 1e9
    assert shards * (epochs - 1) <= road.gets <= shards * (epochs + 1)


def test_a_large_cache_fetches_each_shard_once_for_all_readers(uri, road, local, data_config, tmp_path) -> None:
    config = _with_cache(data_config, tmp_path)
    for _ in range(2):
        reader = ShardReader(uri, "train", ALL, config, 8)
        list(loader(reader, BatchPlan(6, 1, 0, 2 * len(reader) // 6, window=2)))
    assert road.gets == len(shards_of(load_manifest(local), "train"))


@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_damaged_files_in_the_cache_are_fetched_again(uri, local, data_config, tmp_path, harm) -> None:
    config = _with_cache(data_config, tmp_path)
    whole = [ShardReader(uri, "train", ALL, config, 8).sample(index, 0, 0).image for index in range(12)]
    before = {path.name for path in _cached(tmp_path)}
    for path in _cached(tmp_path):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[harm])
    again = ShardReader(uri, "train", ALL, config, 8)
    assert all(np.array_equal(again.sample(index, 0, 0).image, image) for index, image in enumerate(whole))
    assert {path.name for path in _cached(tmp_path)} == before
    assert all(sha256(path) == path.name.partition(".")[0] for path in _cached(tmp_path))


def test_a_server_that_is_briefly_away_is_retried(uri, road, data_config, tmp_path) -> None:
    reader = ShardReader(uri, "train", ALL, _with_cache(data_config, tmp_path), 8)
    road.open = False
    back = threading.Timer(2.0, setattr, (road, "open", True))
    back.start()
    began = time.monotonic()
    assert reader.sample(0, 0, 0).image.shape == (3, 64, 64)
    assert time.monotonic() - began > 1
    back.join()


def test_domain_and_manifest_come_from_the_bucket(uri, local, data_config, tmp_path) -> None:
    data = open_data(uri, _with_cache(data_config, tmp_path).compute)
    assert isinstance(data, RemoteFolder) and data.manifest == load_manifest(local)
    assert Domain.load(data.domain()).classes == Domain.load(local / "domain").classes
    (data.domain() / "classes.json").write_text("[]")
    assert Domain.load(data.domain()).classes == Domain.load(local / "domain").classes


def test_faults_of_a_bucket_are_one_line_without_secrets(uri, s3, local, data_config, tmp_path) -> None:
    config = _with_cache(data_config, tmp_path)
    with pytest.raises(InputError, match=r"s3://bucket-\d+/runs/one/nothing is not a prepared folder") as caught:
        ShardReader(Storage(s3).child("nothing").uri, "train", ALL, config, 8)
    assert "hush" not in str(caught.value)
    reader = ShardReader(uri, "train", ALL, config, 8)
    first, second = (shard.name for shard in shards_of(load_manifest(local), "train")[:2])
    bucket = Storage(s3).child("prepared")
    bucket.delete(first)
    bucket.write(second, (local / second).read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=rf"{first} is missing"):
        reader.sample(0, 0, 0)
    with pytest.raises(InputError, match=rf"{second} is not what the manifest says"):
        reader.sample(3, 0, 0)


def test_a_cache_that_cannot_hold_a_window_is_refused_before_anything_starts(uri, local, data_config, tmp_path) -> None:
    def job(shards: float, window: int | None) -> TrainJob:
        compute = {"cache": str(tmp_path / "cache"), "cache_gb": _room(local, shards)}
        return TrainJob("shapes", small_config(data_config, compute=compute, window=window), uri, tmp_path / "run")

    open_run(job(3.5, 3))
    with pytest.raises(InputError, match=r"compute\.cache_gb: 4 shards .* lower training\.window"):
        open_run(job(3.5, 4))
    with pytest.raises(InputError, match=r"compute\.cache_gb"):
        open_run(job(3.5, None))


def test_the_window_is_part_of_a_runs_identity(uri, local, data_config, tmp_path) -> None:
    config = small_config(_with_cache(data_config, tmp_path))
    assert TrainJob("shapes", config, local, tmp_path).window is None
    assert TrainJob("shapes", config, uri, tmp_path).window == REMOTE_WINDOW
    wider = small_config(_with_cache(data_config, tmp_path), window=5)
    assert [TrainJob("shapes", wider, data, tmp_path).plan(30, 0).window for data in (local, uri)] == [5, 5]


def test_a_relative_cache_is_refused() -> None:
    with pytest.raises(InputError, match=r"compute.*another folder for every worker"):
        build_config({"compute": {"cache": "here"}})


@pytest.mark.ray
@pytest.mark.slow
def test_training_from_a_bucket_is_training_from_the_folder(ray_local, uri, local, data_config, tmp_path) -> None:
    compute = {"cache": str(tmp_path / "cache"), "cache_gb": _room(local, 3.5)}
    config = small_config(data_config, compute=compute, window=2, steps=4, checkpoint_every=4)
    for name, data in (("here", local), ("there", uri)):
        train(open_run(TrainJob("shapes", config, data, tmp_path / name)))
    assert same_weights(last(tmp_path / "here"), last(tmp_path / "there"))


# The cache alone, with files of its own.

FETCH = """
import hashlib, os, sys, time
from pathlib import Path
from pipelines.data.loading.shard_cache import ShardCache, Wanted

folder, log, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
cache = ShardCache(folder, limit)

def fetch(file):
    with open(log, "a") as noted:
        noted.write(f"{name}\\n")
    file.seek(0)
    file.write(content[:500])
    file.flush()
    time.sleep(float(sys.argv[4]))
    file.write(content[500:])
    file.truncate()

for number in range(6):
    name, content = f"shard-{number}.arrow", bytes([number]) * 1000
    wanted = Wanted(name, hashlib.sha256(content).hexdigest(), 1000, fetch)
    assert cache.open(wanted, Path.read_bytes) == content
"""


def _start(repository: Path, folder: Path, log: Path, limit: int, seconds: float) -> subprocess.Popen:
    words = [sys.executable, "-c", FETCH, str(folder), str(log), str(limit), str(seconds)]
    return subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(repository)}, cwd=repository)


def test_processes_at_once_fetch_every_file_once(repository, tmp_path) -> None:
    log = tmp_path / "log"
    started = [_start(repository, tmp_path / "cache", log, 10_000, 0.2) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert sorted(log.read_text().split()) == [f"shard-{number}.arrow" for number in range(6)]


def test_files_of_a_killed_process_are_removed(repository, tmp_path) -> None:
    folder, log = tmp_path / "cache", tmp_path / "log"
    process = _start(repository, folder, log, 10_000, 60)
    while not log.exists():
        time.sleep(0.02)
    process.kill()
    process.wait()
    (left,) = _cached(folder)
    assert left.name.startswith(".")
    _wanted(b"a", 2000).open_in(ShardCache(folder, 2500))
    assert not left.exists() and len(_cached(folder)) == 1


class _File:
    """A file that is fetched from memory, with a count of the fetches."""

    def __init__(self, content: bytes) -> None:
        self.content, self.fetched = content, 0
        self.wanted = Wanted("x.arrow", hashlib.sha256(content).hexdigest(), len(content), self._fetch)

    def _fetch(self, file) -> None:
        self.fetched += 1
        file.seek(0)
        file.write(self.content)
        file.truncate()

    def open_in(self, cache: ShardCache) -> None:
        assert cache.open(self.wanted, Path.read_bytes) == self.content


def _wanted(letter: bytes, size: int) -> _File:
    return _File(letter * size)


def test_the_least_recently_used_file_is_removed(tmp_path) -> None:
    cache, files = ShardCache(tmp_path, 3000), [_wanted(letter, 1000) for letter in (b"a", b"b", b"c", b"d")]
    for number in (0, 1, 2, 0, 3, 0, 2):
        files[number].open_in(cache)
        time.sleep(0.02)
        assert _bytes(tmp_path) <= 3000
    assert [file.fetched for file in files] == [1, 1, 1, 1]
    files[1].open_in(cache)
    assert files[1].fetched == 2 and len(_cached(tmp_path)) == 3


def test_a_file_larger_than_the_cache_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"compute\.cache_gb: x\.arrow has .* raise it"):
        _wanted(b"a", 1001).open_in(ShardCache(tmp_path, 1000))


def test_a_file_that_stays_damaged_is_refused_and_leaves_nothing(tmp_path) -> None:
    file = _wanted(b"a", 1000)
    file.wanted = replace(file.wanted, sha256="0" * 64)
    with pytest.raises(InputError, match="fetched 3 times"):
        file.open_in(ShardCache(tmp_path, 5000))
    assert not _cached(tmp_path) and file.fetched == 3


def test_a_mapped_file_outlives_its_removal(tmp_path) -> None:
    cache, first = ShardCache(tmp_path, 1000), _wanted(b"a", 1000)
    kept = cache.open(first.wanted, lambda path: np.memmap(path, mode="r"))
    _wanted(b"b", 1000).open_in(cache)
    assert kept.tobytes() == first.content and len(_cached(tmp_path)) == 1


def test_a_cache_that_cannot_be_written_is_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"compute\.cache: cannot write to .*file"):
        ShardCache(tmp_path / "file", 10)
