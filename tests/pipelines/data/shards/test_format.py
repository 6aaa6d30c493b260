"""Shards, the manifest, and the folders that are refused."""

import json

import pyarrow as pa
import pytest

from objgan.errors import InputError
from pipelines.data.shards.format import SCHEMA, dataset_digest, load_manifest, read_shard, summary, write_shard
from pipelines.data.shards.manifest import MANIFEST

ROW = {
    "image_id": 5,
    "file_name": "5.jpg",
    "width": 10,
    "height": 20,
    "split": "train",
    "image": b"jpeg",
    "captions": ["a kite", "two kites"],
    "tokens": ["a kite", "two kites"],
    "annotation_ids": [1, 2],
    "labels": [0, 1],
    "boxes": [0.0, 0.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25],
    "areas": [1.0, 0.0625],
    "crowds": [False, True],
    "masks": ["04", None],
    "colours": ["red", None],
    "scene": "sea",
}


def _table(*rows) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


@pytest.fixture
def copy(prepared, tmp_path):
    """A copy of a prepared folder that a test may damage."""
    for path in prepared.rglob("*"):
        if path.is_file():
            target = tmp_path / "data" / path.relative_to(prepared)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "data"


def _refusal(folder) -> str:
    with pytest.raises(InputError) as caught:
        load_manifest(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_shard_gives_back_its_rows_and_its_version(tmp_path) -> None:
    bare = {**ROW, "image_id": 6, "image": None, "labels": [], "masks": [], "colours": [], "scene": None}
    shard = write_shard(tmp_path, "train-00000.arrow", "train", _table(ROW, bare))
    table = read_shard(tmp_path / "train-00000.arrow")
    assert table.to_pylist() == [ROW, bare]
    assert table.schema.metadata == {b"objgan.schema_version": b"5"}
    assert (shard.rows, shard.bytes) == (2, (tmp_path / shard.name).stat().st_size)


def test_a_shard_does_not_show_how_its_table_was_put_together(tmp_path) -> None:
    bare = {**ROW, "image_id": 6, "image": None}
    whole = write_shard(tmp_path, "a.arrow", "train", _table(ROW, bare))
    parts = write_shard(tmp_path, "b.arrow", "train", pa.concat_tables([_table(ROW), _table(bare)]))
    assert whole.sha256 == parts.sha256


def test_a_table_of_another_schema_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="not a table of the shards' schema"):
        write_shard(tmp_path, "a.arrow", "train", pa.table({"image_id": [1]}))


def test_broken_and_foreign_shards_are_named(tmp_path) -> None:
    write_shard(tmp_path, "a.arrow", "train", _table(ROW))
    whole = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot read .*a\.arrow"):
        read_shard(tmp_path / "a.arrow")
    with pa.ipc.new_file(str(tmp_path / "b.arrow"), pa.schema([("x", pa.int64())])) as writer:
        writer.write_table(pa.table({"x": [1]}))
    with pytest.raises(InputError, match="schema version none"):
        read_shard(tmp_path / "b.arrow")


def test_the_digest_follows_content_not_place(prepared, copy) -> None:
    manifest = load_manifest(prepared)
    assert load_manifest(copy)["digest"] == manifest["digest"]
    changed = {**manifest["domain"], "classes.json": "0" * 64}
    assert dataset_digest([], manifest["domain"]) != dataset_digest([], changed)


def test_incomplete_folders_are_refused(copy, tmp_path) -> None:
    assert "not a prepared folder" in _refusal(tmp_path)
    manifest = json.loads((copy / MANIFEST).read_text())
    name = manifest["shards"][0]["name"]
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1])
    assert f"{name} has {len(data) - 1} bytes instead of {len(data)}" in _refusal(copy)
    (copy / name).unlink()
    assert f"{name} is missing" in _refusal(copy)
    (copy / name).write_bytes(data)
    index = (copy / "_index-train.arrow").read_bytes()
    (copy / "_index-train.arrow").write_bytes(index[: len(index) // 2])
    assert "_index-train.arrow has" in _refusal(copy)
    (copy / "_index-train.arrow").unlink()
    assert "_index-train.arrow is missing" in _refusal(copy)
    (copy / "_index-train.arrow").write_bytes(index)
    (copy / "domain" / "classes.json").unlink()
    assert "classes.json is missing" in _refusal(copy)


def test_manifests_of_other_versions_are_refused(copy) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**manifest, "schema_version": 99}))
    assert "schema version 99" in _refusal(copy)
    (copy / MANIFEST).write_text(json.dumps({**manifest, "schema_version": 1}))
    assert "too old: prepare into another folder" in _refusal(copy)
    (copy / MANIFEST).write_text("[]")
    assert "not a manifest" in _refusal(copy)
    (copy / MANIFEST).write_text("{")
    assert "is not JSON" in _refusal(copy)


def test_the_summary_counts(prepared, prepared_boxes) -> None:
    text = summary(load_manifest(prepared))
    assert "images:   40" in text and "120 of 3 classes, 120 with a mask, 40 crowds" in text
    assert "no pixels" in summary(load_manifest(prepared_boxes)) and "known:" not in text


def test_the_summary_counts_known_attributes(prepared) -> None:
    manifest = load_manifest(prepared)
    known = {"colours": 7, "scenes": 5}
    manifest |= {"columns": {**manifest["columns"], "attributes": True}, "counts": {**manifest["counts"], **known}}
    assert "the colours of 7 objects, the scenes of 5 images" in summary(manifest)
