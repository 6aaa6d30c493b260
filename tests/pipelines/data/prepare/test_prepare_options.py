"""Options of `prepare`: splits, formats, strictness, retry; and that it resumes."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

from objgan.config import build_config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.metrics.named_classes import NamedClasses
from pipelines.cli.coco_source import read_synonyms
from pipelines.data.loading.reader import ShardReader
from pipelines.data.prepare.convert import WORK, run_here
from pipelines.data.prepare.prepare import Options, prepare
from pipelines.data.prepare.source import Split, load_ids, load_split
from pipelines.data.shards.format import SCHEMA, load_manifest, read_split
from pipelines.data.shards.manifest import MANIFEST, SPLITS
from pipelines.data.shards.rejected import read_rejects
from pipelines.storage.storage import Storage
from tests.tools.logged import logged


@pytest.fixture(autouse=True)
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr("pipelines.data.prepare.prepare.ROWS_PER_SHARD", 3)


@pytest.fixture
def source(tmp_path, write_coco, scenes):
    return write_coco(tmp_path / "coco", *scenes(20))


def _files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _ids(folder, split):
    return [
        number for table in read_split(folder, load_manifest(folder), split) for number in table["image_id"].to_pylist()
    ]


def _go(source, out, config, lines=None, run=run_here, **options):
    with logged(lines.append if lines is not None else None):
        return prepare(source, out, config, run, Options(**options))


class Killed(Exception):
    """Raised to stop a run."""


def _stop_after(number):
    def run(blocks, arguments):
        for done, report in enumerate(run_here(blocks, arguments)):
            if done == number:
                raise Killed
            yield report

    return run


def test_finished_shards_are_kept_and_a_damaged_one_is_made_again(tmp_path, source, data_config) -> None:
    _go(source, tmp_path / "whole", data_config)
    out = tmp_path / "data"
    with pytest.raises(Killed):
        _go(source, out, data_config, run=_stop_after(4))
    shards = sorted(out.glob("*.arrow"))
    shards[1].write_bytes(shards[1].read_bytes()[:-8])
    times = {path.name: path.stat().st_mtime_ns for path in shards}
    lines: list[str] = []
    _go(source, out, data_config, lines)
    assert _files(out) == _files(tmp_path / "whole") and not (out / WORK).exists()
    again = {name for name, then in times.items() if (out / name).stat().st_mtime_ns != then}
    assert again == {shards[1].name}
    assert any("12 of them already done" in line for line in lines), lines


def test_shards_of_other_inputs_are_not_kept(tmp_path, source, data_config) -> None:
    out = tmp_path / "data"
    with pytest.raises(Killed):
        _go(source, out, data_config, run=_stop_after(4))
    values = data_config.model_dump()
    values["data"]["min_count"] = 2
    values["data"]["image_size"] = 96
    _go(source, out, build_config(values))
    _go(source, tmp_path / "whole", build_config(values))
    assert _files(out) == _files(tmp_path / "whole")


def test_strict_refuses_what_the_json_and_what_the_pixels_lack(tmp_path, source, data_config) -> None:
    (source.images / "000003.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"--strict: 6 rejected, the first: image 3, not an image"):
        _go(source, tmp_path / "data", data_config, strict=True)
    assert not (tmp_path / "data" / MANIFEST).exists()
    _go(source, tmp_path / "data", data_config)
    with pytest.raises(InputError, match=r"--strict: 6 rejected, listed in rejected.jsonl"):
        _go(source, tmp_path / "data", data_config, strict=True)
    content = json.loads(source.captions.read_text())
    content["annotations"][0]["caption"] = " "
    source.captions.write_text(json.dumps(content))
    with pytest.raises(InputError, match="--strict: 1 rejected, the first: caption 100, empty caption"):
        _go(source, tmp_path / "other", data_config, strict=True)


def test_retried_images_give_the_bytes_of_a_fresh_run(tmp_path, source, data_config) -> None:
    out, names = tmp_path / "data", ("000003.png", "000004.png")
    whole = {name: (source.images / name).read_bytes() for name in names}
    (source.images / names[0]).unlink()
    (source.images / names[1]).write_bytes(b"no picture")
    first = _go(source, out, data_config)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*-0*.arrow")}
    for name, data in whole.items():
        (source.images / name).write_bytes(data)
    with pytest.raises(InputError, match=r"other images.*--retry-rejected"):
        _go(source, out, data_config)
    second = _go(source, out, data_config, retry=True)
    assert first["rejected"]["kinds"]["image"] == 2 and second["rejected"]["rows"] == 0
    _go(source, tmp_path / "fresh", data_config)
    assert _files(out) == _files(tmp_path / "fresh")
    again = [name for name, then in times.items() if (out / name).stat().st_mtime_ns != then]
    assert 1 <= len(again) <= 2, "the other shards stay as they are"


def test_an_interrupted_retry_is_resumed(tmp_path, source, data_config) -> None:
    out, place = tmp_path / "data", source.images / "000003.png"
    whole = place.read_bytes()
    place.write_bytes(bytes(len(whole)))
    _go(source, out, data_config)
    place.write_bytes(whole)
    with pytest.raises(Killed):
        _go(source, out, data_config, run=_stop_after(1), retry=True)
    _go(source, out, data_config)
    _go(source, tmp_path / "fresh", data_config)
    assert _files(out) == _files(tmp_path / "fresh")


def test_parquet_has_the_same_rows_and_is_not_for_training(tmp_path, source, data_config) -> None:
    manifest = _go(source, tmp_path / "parquet", data_config, format="parquet")
    _go(source, tmp_path / "arrow", data_config)
    assert manifest["format"] == "parquet"
    for split in SPLITS:
        rows = [
            [row for table in read_split(folder, load_manifest(folder), split) for row in table.to_pylist()]
            for folder in (tmp_path / "arrow", tmp_path / "parquet")
        ]
        assert rows[0] == rows[1]
    table = pq.read_table(tmp_path / "parquet" / "train-00000.parquet")
    assert table.schema.names == SCHEMA.names
    with pytest.raises(InputError, match=r"training reads Arrow, .* is parquet: prepare with --format arrow"):
        ShardReader(tmp_path / "parquet", "train", frozenset({"boxes"}), data_config, 8)
    with pytest.raises(InputError, match="--format"):
        Options(format="csv")


def test_a_list_of_ids_splits_and_the_rest_is_rejected(tmp_path, source, data_config) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": list(range(1, 15)), "val": [15, 16], "test": [17, 999]}))
    manifest = _go(replace(source, split=load_split(str(path))), tmp_path / "data", data_config)
    assert (_ids(tmp_path / "data", "train"), _ids(tmp_path / "data", "validation")) == (list(range(1, 15)), [15, 16])
    assert manifest["split"] == "ids" and manifest["source"]["split"]
    lost = [reject for reject in read_rejects(tmp_path / "data" / "rejected.jsonl") if reject.kind == "image"]
    assert [(reject.id, reject.stage, reject.reason) for reject in lost] == [
        (n, "split", "in no split") for n in (18, 19, 20)
    ]
    path.write_text(json.dumps({"train": list(range(1, 15)), "val": [15, 16], "test": [17, 18]}))
    with pytest.raises(InputError, match="other split"):
        _go(replace(source, split=load_split(str(path))), tmp_path / "data", data_config)
    with pytest.raises(InputError, match="--split: ids -> hash"):
        _go(source, tmp_path / "data", data_config)
    path.write_text(json.dumps({"train": list(range(1, 15)), "val": [15], "test": [99]}))
    with pytest.raises(InputError, match="no usable image belongs to test"):
        _go(replace(source, split=load_split(str(path))), tmp_path / "none", data_config)


def test_karpathys_list_and_wrong_lists(tmp_path) -> None:
    path = tmp_path / "dataset_coco.json"
    names = ("train", "restval", "val", "test")
    path.write_text(json.dumps({"images": [{"cocoid": n, "split": name} for n, name in enumerate(names)]}))
    assert dict(load_split(str(path)).ids) == {0: "train", 1: "train", 2: "validation", 3: "test"}
    for wrong in ('{"train": 3}', '{"dev": [1]}', "[1]", '{"train": [1], "test": [1]}', '{"images": [{"id": 1}]}'):
        path.write_text(wrong)
        with pytest.raises(InputError, match=r"--split: "):
            load_split(str(path))
    with pytest.raises(InputError, match="no file"):
        load_split(str(tmp_path / "none"))


def _renamed(write_coco, scenes, folder, parts):
    images, objects, captions = scenes(20)
    for image, part in zip(images, parts, strict=True):
        image["file_name"] = f"COCO_{part}_{image['id']:012d}.jpg"
    return write_coco(folder, images, objects, captions)


def test_cocos_own_split_and_a_warning_of_validation_images_in_training(
    tmp_path, write_coco, scenes, data_config
) -> None:
    parts = ["train2014"] * 8 + ["val2014"] * 12
    source = _renamed(write_coco, scenes, tmp_path / "coco", parts)
    lines: list[str] = []
    _go(replace(source, split=Split("coco")), tmp_path / "coco-split", data_config, lines)
    assert _ids(tmp_path / "coco-split", "train") == list(range(1, 9))
    held_out = [_ids(tmp_path / "coco-split", split) for split in ("validation", "test")]
    assert all(held_out) and sorted(held_out[0] + held_out[1]) == list(range(9, 21))
    assert not any("warning" in line for line in lines)
    _go(source, tmp_path / "hash", data_config, lines)
    trained = len([number for number in _ids(tmp_path / "hash", "train") if number > 8])
    assert any(f"{trained} images of COCO 2014's validation set are in the training split" in line for line in lines)


def test_validation_images_of_2014_are_known_from_a_list(tmp_path, source, data_config) -> None:
    path = tmp_path / "val2014.json"
    path.write_text(json.dumps({"images": [{"id": n} for n in range(1, 21)]}))
    lines: list[str] = []
    _go(replace(source, val2014=load_ids(path)), tmp_path / "data", data_config, lines)
    assert any("images of COCO 2014's validation set are in the training split" in line for line in lines)
    path.write_text('["a"]')
    with pytest.raises(InputError, match="--val2014"):
        load_ids(path)


def test_synonyms_of_other_classes_than_cocos(tmp_path, source, data_config) -> None:
    path = tmp_path / "synonyms.json"
    path.write_text('{"kite": ["paper dragon"], "bottle": []}')
    synonymous = replace(source, synonyms=read_synonyms(path))
    manifest = _go(synonymous, tmp_path / "data", data_config)
    domain = Domain.load(tmp_path / "data" / "domain")
    assert "synonyms.json" in manifest["domain"] and domain.classes == ("person", "kite", "bottle")
    named = NamedClasses(domain.classes, domain.synonyms)
    assert named.find(["two", "paper", "dragons", "above", "a", "person"]) == {0, 1}
    with pytest.raises(InputError, match="other synonyms"):
        _go(source, tmp_path / "data", data_config)
    with pytest.raises(InputError, match="unknown class 'boat'"):
        _go(replace(source, synonyms={"boat": ["ship"]}), tmp_path / "none", data_config)
    path.write_text('{"kite": "dragon"}')
    with pytest.raises(InputError, match="--synonyms"):
        read_synonyms(path)


def test_images_come_from_a_uri_too(tmp_path, source, data_config) -> None:
    (source.images / "000004.png").unlink()
    _go(source, tmp_path / "folder", data_config)
    _go(replace(source, images=f"file://{source.images}"), tmp_path / "uri", data_config)
    assert _files(tmp_path / "folder") == _files(tmp_path / "uri")


def test_images_come_from_a_bucket(tmp_path, source, data_config, monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    (source.images / "000004.png").unlink()
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        place = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
        bucket = Storage(f"s3://pictures?{place}", patience=5)
        bucket.filesystem.create_dir("pictures")
        for path in source.images.iterdir():
            bucket.write(f"images/{path.name}", path.read_bytes())
        _go(replace(source, images=f"s3://pictures/images?{place}"), tmp_path / "bucket", data_config)
    finally:
        server.stop()
    _go(source, tmp_path / "folder", data_config)
    assert _files(tmp_path / "bucket") == _files(tmp_path / "folder")


def test_names_that_point_outside_the_folder_are_rejected(tmp_path, write_coco, scenes, data_config) -> None:
    images, objects, captions = scenes(8)
    source = write_coco(tmp_path / "coco", images, objects, captions)
    content = json.loads(source.instances.read_text())
    content["images"][0]["file_name"] = "../instances.json"
    content["images"][1]["file_name"] = str(source.images / "000003.png")
    content["images"][2]["file_name"] = ""
    source.instances.write_text(json.dumps(content))
    _go(source, tmp_path / "data", data_config)
    lost = [reject.reason for reject in read_rejects(tmp_path / "data" / "rejected.jsonl") if reject.kind == "image"]
    assert sorted(lost) == ["the file name points outside the image folder"] * 2 + ["the record has no file name"]


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_huge_pictures_are_made_small_and_look_the_same(tmp_path, name) -> None:
    from pipelines.data.shards.pixels import decode, read_image, squash

    across, down = np.meshgrid(np.linspace(0, 60, 2400), np.linspace(0, 40, 1800))
    pixels = np.stack([np.sin(across) * 100 + 128, np.cos(down) * 100 + 128, np.sin(across + down) * 100 + 128], -1)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name, quality=95)
    whole, small = read_image(tmp_path / name), read_image(tmp_path / name, size=64)
    assert (small.width, small.height) == (whole.width, whole.height) == (2400, 1800)
    assert small.image.width < 700
    error = decode(squash(whole.image, 64)).astype(float) - decode(squash(small.image, 64))
    assert np.square(error).mean() < 255**2 / 10**3.5, "35 dB"
