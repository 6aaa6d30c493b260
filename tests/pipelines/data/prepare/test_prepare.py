"""COCO to a prepared folder: the same bytes on Ray and without, splits, domain, rejects, refusals."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from objgan import run_lengths
from objgan.config import build_config
from objgan.domain import Domain
from objgan.errors import InputError
from pipelines.data.prepare import json_stream
from pipelines.data.prepare.convert import run_here, run_on_ray
from pipelines.data.prepare.finalize import layout_statistics
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource, split_of
from pipelines.data.shards.format import load_manifest, read_split
from pipelines.data.shards.manifest import MANIFEST, SPLITS
from pipelines.data.shards.rejected import read_rejects
from pipelines.data.verify.verify import verify
from tests.tools.logged import logged


def _files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _go(source, out, config):
    with logged() as lines:
        return prepare(source, out, config, run_here), lines


def _rejects(folder, kind):
    return [reject for reject in read_rejects(folder / "rejected.jsonl") if reject.kind == kind]


def _column(folder, split, name):
    return [value for table in read_split(folder, load_manifest(folder), split) for value in table[name].to_pylist()]


@pytest.mark.ray
def test_ray_and_one_process_write_the_same_bytes(
    ray_local, monkeypatch, tmp_path, write_coco, scenes, data_config
) -> None:
    monkeypatch.setattr("pipelines.data.prepare.prepare.ROWS_PER_SHARD", 4)
    source = write_coco(tmp_path / "coco", *scenes(30))
    (source.images / "000007.png").write_bytes(b"no picture")
    with logged() as lines:
        manifest = prepare(source, tmp_path / "ray", data_config, run_on_ray)
    _go(source, tmp_path / "here", data_config)
    assert _files(tmp_path / "ray") == _files(tmp_path / "here")
    assert len(manifest["shards"]) > 6 and any("shards" in line for line in lines)
    assert [reject.id for reject in _rejects(tmp_path / "ray", "image")] == [7]
    assert manifest["totals"] == {"image": 30, "annotation": 90, "caption": 60}
    assert manifest["rejected"]["kinds"] == {"image": 1, "annotation": 3, "caption": 2, "mask": 0}


def test_each_json_is_parsed_once_whole_and_then_list_by_list(
    tmp_path, monkeypatch, write_coco, scenes, data_config
) -> None:
    read = Counter()

    class Counted(json_stream._Counted):
        def readinto(self, buffer):
            done = super().readinto(buffer)
            read[self._file.name] += done
            return done

    monkeypatch.setattr(json_stream, "_Counted", Counted)
    monkeypatch.setattr(json_stream, "_CHUNK", 64)
    source = write_coco(tmp_path / "coco", *scenes(30))
    _go(source, tmp_path / "data", data_config)
    for path in (source.instances, source.captions):
        whole = path.stat().st_size
        assert whole <= read[str(path)] < 1.5 * whole, "also the first records, and the header"


def test_every_image_is_in_the_split_of_its_id(prepared, data_config) -> None:
    manifest = load_manifest(prepared)
    seen = []
    for split in SPLITS:
        ids = _column(prepared, split, "image_id")
        assert ids == sorted(ids) and len(ids) == manifest["rows"][split]
        assert {split_of(image_id, data_config.data) for image_id in ids} == {split}
        assert set(_column(prepared, split, "split")) == {split}
        seen += ids
    assert sorted(seen) == list(range(1, 41))


def test_the_domain_knows_the_training_split_alone(prepared) -> None:
    domain = Domain.load(prepared / "domain")
    assert domain.classes == ("person", "kite", "bottle")
    # Each first caption ends in its image's number. Words of stated captions (numbers among them) have no vector.
    vocabulary = domain.vocabulary
    words = (word for word, vector in zip(vocabulary.words, vocabulary.vectors, strict=True) if vector.any())
    known = {int(word) for word in words if word.isdigit()}
    assert known == set(_column(prepared, "train", "image_id"))


def test_layout_statistics_are_those_of_training_objects_without_crowds(prepared, data_config) -> None:
    statistics = Domain.load(prepared / "domain").statistics
    ids = np.array(_column(prepared, "train", "image_id"))
    n = len(ids)
    assert statistics.images == n and statistics.class_counts == (n, n, 0)
    assert statistics.object_counts == (0, 0, n, 0) and statistics.class_caps == (2, 2, 2)
    shift = ids % 20
    # Kites 40 x 20 at x = 10 + shift, people 10 x 20 at x = 60, in 100 x 50: centres as fractions.
    x = np.concatenate([(30 + shift) / 100, np.full(n, 0.65)])
    y = np.concatenate([np.full(n, 0.3), (20 + shift) / 50])
    w, r = np.repeat([0.4, 0.1], n), np.repeat([1.0, 4.0], n)
    assert np.allclose(statistics.mean, [v.mean() for v in (x, y, w, r)], atol=1e-5)
    assert np.allclose(statistics.std, [v.std() for v in (x, y, w, r)], atol=1e-5)


def test_statistics_of_overlaps_are_the_95th_percentile_of_pairs() -> None:
    def image(count: int, labels: list[int], *boxes: list[float]) -> list[tuple[list[int], list[list[float]]]]:
        return [(labels, [*map(list, boxes)])] * count

    apart, half = [0.8, 0.8, 0.1, 0.1], [0.1, 0.0, 0.2, 0.2]
    rows = [
        *image(90, [1, 1], [0.0, 0.0, 0.2, 0.2], apart),
        *image(10, [1, 1], [0.0, 0.0, 0.2, 0.2], half),
        *image(96, [0, 1], [0.0, 0.0, 0.2, 0.2], apart),
        *image(4, [0, 1], [0.0, 0.0, 0.2, 0.2], [0.0, 0.0, 0.1, 0.1]),
        *image(3, [2], apart),
    ]
    columns = {
        "labels": pa.array([labels for labels, _ in rows], pa.list_(pa.int32())),
        "boxes": pa.array([boxes for _, boxes in rows], pa.list_(pa.list_(pa.float32(), 4))),
        "crowds": pa.array([[False] * len(labels) for labels, _ in rows], pa.list_(pa.bool_())),
    }
    table = pa.table(columns)
    assert layout_statistics([table], 3, 8).overlaps == pytest.approx((0.5, 0.0), abs=0.011)
    assert layout_statistics([table[:150], table[150:]], 3, 8) == layout_statistics([table], 3, 8)
    assert layout_statistics([table[-3:]], 3, 8).overlaps == (1.0, 1.0)


def test_the_manifest_lists_the_inputs(prepared, data_config) -> None:
    manifest = load_manifest(prepared)
    assert manifest["settings"] == data_config.data.model_dump(mode="json")
    assert sorted(manifest["source"]) == ["captions", "images", "instances"]
    assert manifest["columns"] == {"image": True, "boxes": True, "masks": True, "attributes": False}
    assert manifest["totals"] == {"image": 40, "annotation": 120, "caption": 80}
    assert manifest["rejected"]["rows"] == 0 and (prepared / "rejected.jsonl").read_bytes() == b""
    assert (manifest["split"], manifest["format"]) == ("hash", "arrow")
    assert str(prepared.parent) not in (prepared / MANIFEST).read_text()


@pytest.mark.parametrize(
    ("colour", "scene", "colours", "scenes_"), [("red", None, 1, 0), (None, "sea", 0, 1), ("teal", None, 0, 0)]
)
def test_attributes_are_a_column_where_any_is_known(
    tmp_path, write_coco, scenes, data_config, colour, scene, colours, scenes_
) -> None:
    images, objects, captions = scenes(6)
    objects[0]["attributes"], images[0]["scene"] = {"colour": colour}, scene
    manifest, _ = _go(write_coco(tmp_path / "coco", images, objects, captions), tmp_path / "data", data_config)
    assert manifest["columns"]["attributes"] is bool(colours + scenes_)
    assert (manifest["counts"]["colours"], manifest["counts"]["scenes"]) == (colours, scenes_)
    known = [name for split in SPLITS for row in _column(tmp_path / "data", split, "colours") for name in row if name]
    assert known == [colour] * colours


def test_a_finished_folder_is_left_alone(tmp_path, write_coco, scenes, data_config) -> None:
    source, out = write_coco(tmp_path / "coco", *scenes(8)), tmp_path / "data"
    first, _ = _go(source, out, data_config)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again, lines = _go(source, out, data_config)
    assert again == first and times == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert any("nothing to do" in line for line in lines)


def test_other_settings_or_inputs_are_refused_by_name(tmp_path, write_coco, scenes, data_config) -> None:
    source, out = write_coco(tmp_path / "coco", *scenes(8)), tmp_path / "data"
    _go(source, out, data_config)
    values = data_config.model_dump()
    values["data"] |= {"image_size": 128, "min_count": 2}
    with pytest.raises(InputError, match=r"data\.image_size: 64 -> 128; data\.min_count: 1 -> 2"):
        _go(source, out, build_config(values))
    source.captions.write_text(source.captions.read_text() + "\n")
    with pytest.raises(InputError, match="other captions"):
        _go(source, out, data_config)
    with pytest.raises(InputError, match="other images"):
        _go(CocoSource(None, source.instances, source.captions), out, data_config)


def test_an_interrupted_folder_is_finished_and_leftovers_go(tmp_path, write_coco, scenes, data_config) -> None:
    source = write_coco(tmp_path / "coco", *scenes(8))
    _go(source, tmp_path / "whole", data_config)
    out = tmp_path / "data"
    out.mkdir()
    for name in ("train-00000.arrow", "train-00007.arrow", ".test-00000.arrow.x7", "notes.txt"):
        (out / name).write_bytes(b"half")
    _go(source, out, data_config)
    files = _files(out)
    assert files.pop("notes.txt") == b"half"
    assert files == _files(tmp_path / "whole")


def test_unusable_images_are_listed_and_the_rest_is_kept(tmp_path, write_coco, scenes, data_config) -> None:
    source = write_coco(tmp_path / "coco", *scenes(8))
    (source.images / "000003.png").write_bytes(b"no picture")
    (source.images / "000005.png").unlink()
    manifest, lines = _go(source, tmp_path / "data", data_config)
    assert sorted(
        (reject.id, reject.stage, reject.reason, reject.detail) for reject in _rejects(tmp_path / "data", "image")
    ) == [
        (3, "pixels", "not an image, or of an unknown format", "000003.png"),
        (5, "pixels", "no such file in the image folder", "000005.png"),
    ]
    assert sum(manifest["rows"].values()) == 6
    assert "8 images = 6 in shards + 2 rejected" in lines[-1]
    assert "24 annotations = 18 in shards + 6 rejected" in lines[-1]
    assert "rejected: 1 image: not an image, or of an unknown format" in lines[-1]


def test_run_lengths_that_do_not_fill_the_image_reject_only_the_mask(tmp_path, write_coco, scenes, data_config) -> None:
    """Their decoder would return uninitialised memory, which differs between two runs."""
    images, objects, captions = scenes(8)
    text = run_lengths.encode(np.eye(50, 100, dtype=np.uint8))
    bad = ["1", "", text[:-3], text + "1", [40, 10], [5000, 1], [2**31, 2**31], [], None, {"a": 1}, "0" * 9, 5000]
    for number, (one, counts) in enumerate(zip(objects, [*bad, text], strict=False)):
        one["segmentation"] = {"size": [50, 100], "counts": counts}
        one["id"] = number
    source = write_coco(tmp_path / "coco", images, objects, captions)
    manifest, _ = _go(source, tmp_path / "one", data_config)
    _go(source, tmp_path / "two", data_config)
    assert _files(tmp_path / "one") == _files(tmp_path / "two")
    assert manifest["counts"]["objects"] == 24 and manifest["counts"]["masks"] == 24 - len(bad)
    assert sorted(reject.id for reject in _rejects(tmp_path / "one", "mask")) == list(range(len(bad)))
    assert not verify(tmp_path / "one", processes=1).faults


def test_sizes_beyond_memory_reject_only_the_masks(tmp_path, write_coco, scenes, data_config) -> None:
    """Two thousand million pixels a side end a decoder in C; 40,000 a side as a list of counts would take 12 GiB."""
    images, objects, captions = scenes(8)
    for image, side in zip(images, (2_000_000_000, 40_000, 2_147_483_647, 13_378), strict=False):
        image |= {"width": side, "height": side}
        for number, one in enumerate(one for one in objects if one["image_id"] == image["id"]):
            one |= {"bbox": [0, 0, side / 2, side / 2], "area": side}
            counts = ([side * side], [1, side * side - 1], "1")[number]
            one["segmentation"] = {"size": [side, side], "counts": counts}
    source = write_coco(tmp_path / "coco", images, objects, captions, pixels=False)
    manifest, _ = _go(source, tmp_path / "data", data_config)
    assert manifest["counts"]["objects"] == 24 and manifest["counts"]["masks"] == 24 - 4 * 3
    reasons = {reject.reason for reject in _rejects(tmp_path / "data", "mask")}
    assert reasons == {"run lengths of a picture that is too large; the object is kept without a mask"}


def test_no_split_stays_empty_when_images_turn_out_unusable(tmp_path, write_coco, scenes, data_config) -> None:
    source = write_coco(tmp_path / "coco", *scenes(5))
    for split in ("test", "validation"):
        manifest, _ = _go(source, tmp_path / f"before_{split}", data_config)
        name = _column(tmp_path / f"before_{split}", split, "file_name")[0]
        (source.images / name).write_bytes(b"no picture")
    manifest, _ = _go(source, tmp_path / "data", data_config)
    assert manifest["rejected"]["kinds"]["image"] == 2 and sorted(manifest["rows"].values()) == [1, 1, 1]


def test_no_usable_image_at_all_is_refused(tmp_path, write_coco, scenes, data_config) -> None:
    source = write_coco(tmp_path / "coco", *scenes(4))
    for path in source.images.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(
        InputError, match=r"0 of 4 images can be used.*: 4 of them: not an image.*\(for example 000001.png"
    ):
        _go(source, tmp_path / "data", data_config)
    assert not (tmp_path / "data" / MANIFEST).exists()


def test_fewer_than_three_images_are_refused(tmp_path, write_coco, scenes, data_config) -> None:
    with pytest.raises(
        InputError, match=r"2 of 2 images can be used, and training, validation and test need one each$"
    ):
        _go(write_coco(tmp_path / "coco", *scenes(2)), tmp_path / "data", data_config)


@pytest.mark.real
def test_real_boxes_without_pixels(shared_coco, tmp_path, data_config) -> None:
    annotations = shared_coco / "annotations"
    small = tmp_path / "boxes.json"
    content = json.loads((annotations / "boxes.json").read_text())
    # The box of height 0 and 200 more images: the whole file takes a while.
    flat = next(record for record in content["annotations"] if record["bbox"][3] == 0)["image_id"]
    kept = {image["id"] for image in content["images"][:200]} | {flat}
    content["images"] = [image for image in content["images"] if image["id"] in kept]
    content["annotations"] = [record for record in content["annotations"] if record["image_id"] in kept]
    small.write_text(json.dumps(content))
    manifest, _ = _go(CocoSource(None, small, annotations / "boxes_captions.json"), tmp_path / "data", data_config)
    assert manifest["counts"]["images"] == len(kept)
    assert manifest["rejected"]["reasons"]["annotation: its box is empty or outside the image"] == 1
    assert manifest["counts"]["objects"] == len(content["annotations"]) - 1
    assert manifest["columns"]["image"] is False


@pytest.mark.real
def test_real_odd_images(shared_coco, tmp_path, data_config) -> None:
    """Greyscale JPEGs, and images without any object."""
    odd = shared_coco / "odd"
    source = CocoSource(odd / "images", odd / "annotations" / "instances.json", odd / "annotations" / "captions.json")
    manifest, _ = _go(source, tmp_path / "data", data_config)
    assert manifest["counts"]["images"] == 8 and manifest["rejected"]["rows"] == 0
    labels = [row for split in SPLITS for row in _column(tmp_path / "data", split, "labels")]
    assert [] in labels
