"""JSON by URI gives the same bytes as local files."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from objgan.config import Config
from objgan.errors import InputError
from pipelines.__main__ import main, parse
from pipelines.cli.coco_source import source_of
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.ingest import ingest
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.storage.storage import Storage

Scenes = Callable[..., tuple[list[dict], list[dict], list[dict]]]


@pytest.fixture
def coco(tmp_path: Path, write_coco: Callable[..., CocoSource], scenes: Scenes) -> CocoSource:
    return write_coco(tmp_path / "coco", *scenes(12))


@pytest.fixture
def uris(s3: str, coco: CocoSource) -> dict[str, str]:
    """URIs of the instances, and of the captions, which are gzipped."""
    bucket = Storage(s3, patience=5)
    bucket.write("instances.json", coco.instances.read_bytes())
    bucket.write("captions.json", gzip.compress(coco.captions.read_bytes(), mtime=0))
    place, _, query = s3.partition("?")
    return {name: f"{place}/{name}?{query}" for name in ("instances.json", "captions.json", "none.json")}


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".arrow", ".jsonl", ".md")}


def _source(coco: CocoSource, instances: object, captions: object) -> CocoSource:
    words = {"images": coco.images, "instances": instances, "captions": captions}
    options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    source = source_of(parse(["prepare", *options])[1])
    assert source is not None
    return source


def test_json_by_uri_gives_the_same_bytes(
    coco: CocoSource, uris: dict[str, str], tmp_path: Path, data_config: Config
) -> None:
    packed = tmp_path / "captions.json.gz"
    packed.write_bytes(gzip.compress(coco.captions.read_bytes(), mtime=0))
    local = _source(coco, coco.instances, packed)
    remote = _source(coco, uris["instances.json"], uris["captions.json"])
    for name, source in (("local", local), ("remote", remote)):
        prepare(source, tmp_path / name, data_config, run_here)
    assert len(_files(tmp_path / "local")) > 6 and _files(tmp_path / "remote") == _files(tmp_path / "local")
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("local", "remote")]
    assert manifests[0] == manifests[1]


def test_faults_of_json_by_uri_are_one_line_without_secrets(
    coco: CocoSource, uris: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "--dry-run", "--images", coco.images, "--instances"]
    assert main([*map(str, words), uris["none.json"], "--captions", str(coco.captions)]) == 2
    text = capsys.readouterr().err
    assert "instances: no file s3://" in text and "none.json" in text and "hush" not in text and "Traceback" not in text
    with pytest.raises(InputError, match=r"captions: s3://.*instances.json holds instances, not captions") as caught:
        ingest(_source(coco, coco.instances, uris["instances.json"]), tmp_path / "work")
    assert "hush" not in str(caught.value)
