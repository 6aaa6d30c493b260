"""Hostile manifests: refused as a whole, before any part of them becomes a path."""

import contextlib
import copy
import hashlib
import http.client
import itertools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from objgan.errors import InputError
from objgan.files import remove
from objgan.sections import ComputeConfig
from pipelines.data.loading.data_folder import open_data
from pipelines.data.loading.shard_cache import ShardCache, Wanted
from pipelines.data.shards.format import check_manifest, load_manifest, shards_of
from pipelines.data.shards.manifest import MANIFEST
from pipelines.storage.storage import Storage

HEX = "0123456789abcdef" * 4
Change = Callable[[dict[str, Any]], Any]


def _set(*place: Any) -> Change:
    """Sets a value in the manifest. place: the keys, then the value."""
    *way, last, value = place

    def change(manifest: dict[str, Any]) -> None:
        inner: Any = manifest
        for part in way:
            inner = inner[part]
        inner[last] = value

    return change


def _twice(manifest: dict[str, Any]) -> None:
    manifest["shards"].append(manifest["shards"][0])


# What is changed, and what the message names.
HOSTILE: dict[str, tuple[Change, str]] = {
    "a path as a sum": (_set("shards", 0, "sha256", "/home/me/precious"), "shards.0.sha256"),
    "a way up as a sum": (_set("shards", 0, "sha256", "../" * 9 + "home/me/precious"), "shards.0.sha256"),
    "a path as an index's sum": (_set("indices", 0, "sha256", "/home/me/precious"), "indices.0.sha256"),
    "a sum in capitals": (_set("shards", 0, "sha256", HEX.upper()), "shards.0.sha256"),
    "a sum with a line's end": (_set("shards", 0, "sha256", HEX + "\n"), "shards.0.sha256"),
    "a sum cut short": (_set("shards", 0, "sha256", HEX[:-1]), "shards.0.sha256"),
    "a sum of other digits": (_set("shards", 0, "sha256", "٠" * 64), "shards.0.sha256"),
    "no text as a sum": (_set("shards", 0, "sha256", None), "shards.0.sha256"),
    "a path as the digest": (_set("digest", "../../x"), "digest"),
    "a path as inputs": (_set("shards", 0, "inputs", "/x"), "shards.0.inputs"),
    "an absolute name": (_set("shards", 0, "name", "/etc/passwd"), "shards"),
    "a name in another folder": (_set("shards", 0, "name", "../train-00000.arrow"), "shards"),
    "a name with a folder": (_set("shards", 0, "name", "domain/train-00000.arrow"), "shards"),
    "a name with NUL": (_set("shards", 0, "name", "train-00000.arrow\0"), "shards"),
    "another ending": (_set("shards", 0, "name", "train-00000.py"), "shards"),
    "the name of another split": (_set("shards", 0, "name", "test-00000.arrow"), "shards"),
    "a name twice": (_twice, "twice"),
    "an index's other name": (_set("indices", 0, "name", "train-00000.arrow"), "indices"),
    "an unknown split": (_set("shards", 0, "split", "../x"), "shards.0.split"),
    "no bytes": (_set("shards", 0, "bytes", 0), "shards.0.bytes"),
    "fewer bytes than none": (_set("shards", 0, "bytes", -1), "shards.0.bytes"),
    "bytes without end": (_set("shards", 0, "bytes", 10**18), "shards.0.bytes"),
    "bytes with a fraction": (_set("shards", 0, "bytes", 1.5), "shards.0.bytes"),
    "bytes as text": (_set("shards", 0, "bytes", "7"), "shards.0.bytes"),
    "bytes as true": (_set("shards", 0, "bytes", True), "shards.0.bytes"),
    "fewer rows than none": (_set("shards", 0, "rows", -1), "shards.0.rows"),
    "no rows' number": (_set("shards", 0, "rows", None), "shards.0.rows"),
    "an unknown key of a shard": (_set("shards", 0, "path", "/x"), "shards.0.path"),
    "an unknown key": (_set("hook", "rm"), "hook"),
    "an unknown key of 3 MB": (_set("k" * 3_000_000, 1), "kkk"),
    "no shards": (_set("shards", []), "shards"),
    "shards as a table": (_set("shards", {}), "shards"),
    "a shard as text": (_set("shards", 0, "x"), "shards.0"),
    "a domain file elsewhere": (_set("domain", "../../evil", HEX), "domain"),
    "an absolute domain file": (_set("domain", "/etc/cron.d/evil", HEX), "domain"),
    "a path as a domain sum": (_set("domain", "classes.json", "/x"), "domain.classes.json"),
    "no domain": (_set("domain", {}), "domain"),
    "another list of rejects": (_set("rejected", "file", "../../x"), "rejected.file"),
    "a picture size without end": (_set("settings", "image_size", 10**9), "settings.image_size"),
    "an unknown setting": (_set("settings", "shell", "x"), "settings.shell"),
    "classes as numbers": (_set("classes", [1]), "classes.0"),
    "a class of 3 MB": (_set("classes", ["c" * 3_000_000]), "classes.0"),
    "rows of other splits": (_set("rows", {"train": 1}), "rows"),
    "columns as text": (_set("columns", "image", "yes"), "columns.image"),
    "a format": (_set("format", "pickle"), "format"),
    "a count of 10^100": (_set("counts", "images", 10**100), "counts.images"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_manifest_is_refused_in_one_short_line(prepared: Path, name: str) -> None:
    change, fault = HOSTILE[name]
    manifest = copy.deepcopy(load_manifest(prepared))
    change(manifest)
    with pytest.raises(InputError) as caught:
        check_manifest(manifest, "s3://bucket/data")
    message = str(caught.value)
    assert fault in message and MANIFEST in message and "\n" not in message and len(message) < 500, message[:1000]


def test_the_output_of_prepare_is_a_manifest(prepared: Path, prepared_boxes: Path) -> None:
    for folder in (prepared, prepared_boxes):
        assert check_manifest(json.loads((folder / MANIFEST).read_text()), "x") == load_manifest(folder)


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file that a manifest names instead of a sha256."""
    path = tmp_path / "precious.arrow"
    path.write_text("the only copy")
    return path


def _upload(prepared: Path, s3: str, change: Change) -> str:
    bucket = Storage(s3).child("prepared")
    manifest = json.loads((prepared / MANIFEST).read_text())
    change(manifest)
    Storage(s3).upload(prepared, "prepared", last=MANIFEST)
    bucket.write(MANIFEST, json.dumps(manifest))
    return bucket.uri


@pytest.mark.parametrize("part", ["sha256", "name", "digest", "domain"])
def test_training_on_a_hostile_bucket_leaves_the_files_of_this_machine_alone(
    prepared: Path, s3: str, precious: Path, tmp_path: Path, repository: Path, part: str
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        target = str(precious.with_suffix("") if part == "sha256" else precious)
        if part == "digest":
            manifest["digest"] = str(precious.parent)
        elif part == "domain":
            manifest["domain"] = {**manifest["domain"], str(precious): HEX}
        else:
            for one in (*manifest["shards"], *manifest["indices"]):
                one[part] = target

    before = precious.stat().st_mtime_ns
    options = {"--data": _upload(prepared, s3, change), "--set": f"compute.cache={tmp_path / 'cache'}"}
    options["--storage"] = str(tmp_path / "runs")
    words = [sys.executable, "-m", "pipelines", "train", "boxes", *itertools.chain(*options.items())]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True)
    assert precious.read_text() == "the only copy"
    assert precious.stat().st_mtime_ns == before
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: data: s3://") and f"{MANIFEST} is damaged" in line and "hush" not in line


@pytest.mark.parametrize("link", ["shard", "lock", "room", "locks", "domains", "domain"])
def test_links_in_the_cache_lead_nowhere(prepared: Path, s3: str, precious: Path, tmp_path: Path, link: str) -> None:
    uri, cache = _upload(prepared, s3, lambda manifest: None), tmp_path / "cache"
    compute = ComputeConfig(cache=cache)
    data = open_data(uri, compute)
    shard = shards_of(data.manifest, "train")[0]
    places = {
        "shard": cache / f"{shard.sha256}.arrow",
        "lock": cache / "locks" / shard.sha256,
        "room": cache / "locks" / "room",
        "locks": cache / "locks",
        "domains": cache / "domains",
        "domain": cache / "domains" / data.manifest["digest"],
    }
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "classes.json").write_text("mine")
    targets = {"shard": precious, "lock": elsewhere / "new", "room": elsewhere / "new"}
    remove(places[link])
    places[link].symlink_to(targets.get(link, elsewhere))
    with contextlib.suppress(InputError):
        data = open_data(uri, compute)
        assert data.read(shard, Path.read_bytes) == (prepared / shard.name).read_bytes()
        data.domain()
    assert precious.read_text() == "the only copy"
    assert [path.name for path in elsewhere.iterdir()] == ["classes.json"]
    assert (elsewhere / "classes.json").read_text() == "mine"


def test_the_cache_removes_no_file_that_it_did_not_make(tmp_path: Path) -> None:
    mine = tmp_path / "thesis.tex"
    mine.write_bytes(b"x" * 5000)
    os.utime(mine, (0, 0))
    cache = ShardCache(tmp_path, 1500)
    for letter in (b"a", b"b", b"c"):
        _open(cache, letter * 1000)
    assert mine.read_bytes() == b"x" * 5000
    assert len([path for path in tmp_path.iterdir() if path.suffix == ".arrow"]) == 1


@pytest.mark.parametrize("digest", ["/home/me/precious", "../x", "", "A" * 64, HEX + "\n"])
def test_the_cache_refuses_a_wrong_sha256(digest: str) -> None:
    with pytest.raises(InputError, match="is not a shard"):
        Wanted("train-00000.arrow", digest, 10, lambda file: None)


def _open(cache: ShardCache, content: bytes) -> None:
    def fetch(file: Any) -> None:
        file.seek(0)
        file.write(content)
        file.truncate()

    wanted = Wanted("train-00000.arrow", hashlib.sha256(content).hexdigest(), len(content), fetch)
    assert cache.open(wanted, Path.read_bytes) == content


def test_a_file_that_is_larger_than_the_manifest_says_is_not_fetched_whole(prepared: Path, s3: str, tmp_path) -> None:
    uri = _upload(prepared, s3, lambda manifest: None)
    data = open_data(uri, ComputeConfig(cache=tmp_path / "cache"))
    shard = shards_of(data.manifest, "train")[0]
    Storage(uri).write(shard.name, b"\0" * (64 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_oublock
    with pytest.raises(InputError, match="is not what the manifest says"):
        data.read(shard, Path.read_bytes)
    written = (resource.getrusage(resource.RUSAGE_SELF).ru_oublock - before) * 512
    assert written < 32 << 20 and not [path for path in (tmp_path / "cache").iterdir() if path.is_file()]


def test_keys_of_a_bucket_that_point_outside_the_folder_are_not_copied(s3: str, tmp_path: Path) -> None:
    storage = Storage(s3)
    storage.write("step/state.json", "{}")
    bucket = storage.path.partition("/")[0]
    _put_key(s3, bucket, "runs/one/step/../../../../evil")
    with contextlib.suppress(InputError):
        storage.download("step", tmp_path / "a" / "b" / "c" / "d")
    assert not list(tmp_path.rglob("evil")) and not (tmp_path.parent / "evil").exists()


def _put_key(s3: str, bucket: str, key: str) -> None:
    """Puts a raw key, without a client that normalises its path."""
    address = s3.partition("endpoint_override=")[2].partition("&")[0]
    connection = http.client.HTTPConnection(address)
    connection.request("PUT", f"/{bucket}/{key}".replace("..", "%2E%2E"), body=b"x", headers={"Host": address})
    assert connection.getresponse().status == 200
