"""COCO JSON as it is, and each way in which it can be wrong."""

import gzip
import json
from pathlib import Path

import pytest

from objgan.errors import InputError
from pipelines.coco import CocoSource, read_coco

IMAGE = {"id": 7, "file_name": "7.png", "width": 60, "height": 40}
CAPTION = {"id": 1, "image_id": 7, "caption": "a kite"}
KITE = {"id": 3, "image_id": 7, "category_id": 38, "bbox": [1, 2, 30, 20]}


def _read(source: CocoSource):
    return read_coco(source.images, source.instances, source.captions)


def _refusal(source: CocoSource) -> str:
    with pytest.raises(InputError) as caught:
        _read(source)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def good(tmp_path, write_coco) -> CocoSource:
    return write_coco(tmp_path / "coco", [IMAGE], [KITE], [CAPTION])


def _edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_records_are_joined_by_image_and_labels_follow_the_category_ids(good) -> None:
    data = _read(good)
    assert data.classes == ("person", "kite", "bottle")
    row = data.records.to_pylist()[0]
    assert (row["image_id"], row["width"], row["height"], row["captions"]) == (7, 60, 40, ["a kite"])
    assert (row["labels"], row["boxes"], row["annotation_ids"]) == ([1], [1, 2, 30, 20], [3])
    assert data.dropped == {}


def test_records_without_area_crowd_flag_and_segmentation(good) -> None:
    row = _read(good).records.to_pylist()[0]
    assert (row["areas"], row["crowds"], row["segmentations"]) == ([None], [False], [None])
    assert (row["colours"], row["scene"]) == ([None], None)


def test_attributes_are_optional_and_ill_typed_or_unknown_ones_are_ignored(tmp_path, write_coco) -> None:
    said = (
        {"colour": "red"},
        {"colour": "teal"},
        {"colour": 3},
        {"colour": ["red"]},
        {},
        {"colour": None},
        "red",
        ["red"],
        None,
    )
    kites = [{**KITE, "id": number, "attributes": attributes} for number, attributes in enumerate(said)]
    scenes = ("snow", "desert", 1, ["snow"], None)
    images = [{**IMAGE, "id": 7 + number, "scene": scene} for number, scene in enumerate(scenes)]
    captions = [{**CAPTION, "id": image["id"], "image_id": image["id"]} for image in images]
    source = write_coco(tmp_path, images, [*kites, {**KITE, "id": len(said)}], captions)
    records = _read(source).records
    assert records["colours"].to_pylist()[0] == ["red"] + [None] * len(said)
    assert records["scene"].to_pylist() == ["snow", None, None, None, None]


def test_captions_are_cleaned_ordered_by_id_and_empty_ones_counted(tmp_path, write_coco) -> None:
    texts = {5: ' says "hé"\n ', 4: "\ta  dog\nruns ", 6: " \n"}
    captions = [{"id": number, "image_id": 7, "caption": text} for number, text in texts.items()]
    data = _read(write_coco(tmp_path, [IMAGE], [], captions))
    assert data.records["captions"].to_pylist() == [["a dog runs", 'says "hé"']]
    assert data.dropped == {"empty captions": 1}


def test_what_does_not_belong_together_is_dropped_and_counted(tmp_path, write_coco) -> None:
    images = [IMAGE, {**IMAGE, "id": 8}, IMAGE]
    objects = [KITE, {**KITE, "image_id": 99}, {**KITE, "bbox": [1, 2, None, 4]}, {**KITE, "bbox": [1, 2, 3]}]
    source = write_coco(tmp_path, images, objects, [CAPTION, {**CAPTION, "image_id": 99}])
    _edit(source.captions, images=[*images, {"id": 99}])
    data = _read(source)
    assert data.records["image_id"].to_pylist() == [7]
    assert data.dropped == {
        "captions of images that the instances JSON lacks": 1,
        "image records with an id seen before": 1,
        "images of the captions JSON that the instances JSON lacks": 1,
        "images without a caption": 1,
        "objects of images that the instances JSON lacks": 1,
        "objects without a box of four numbers": 2,
    }


def test_not_a_number_is_no_box(tmp_path, write_coco) -> None:
    data = _read(write_coco(tmp_path, [IMAGE], [{**KITE, "bbox": [1, float("nan"), 3, 4]}], [CAPTION]))
    assert data.dropped == {"objects without a box of four numbers": 1}


def test_images_without_objects_or_sizes_are_kept(tmp_path, write_coco) -> None:
    data = _read(write_coco(tmp_path, [{"id": 7, "file_name": "7.png"}], [], [CAPTION]))
    row = data.records.to_pylist()[0]
    assert (row["width"], row["height"], row["labels"]) == (None, None, [])


def test_gzipped_json(good) -> None:
    good.captions.write_bytes(gzip.compress(good.captions.read_bytes()))
    assert len(_read(good).records) == 1
    good.captions.write_bytes(good.captions.read_bytes()[:-12])
    assert "broken gzip" in _refusal(good)


def test_missing_unreadable_and_other_files(good, tmp_path) -> None:
    assert "instances: no file" in _refusal(CocoSource(good.images, tmp_path / "none.json", good.captions))
    assert "captions: cannot read" in _refusal(CocoSource(good.images, good.instances, tmp_path))
    good.instances.write_bytes(good.instances.read_bytes()[:-5])
    assert "is not JSON" in _refusal(good)
    good.instances.write_bytes(b"\xff\xfe\x00PK")
    assert "is not JSON" in _refusal(good)
    good.instances.write_text("[1, 2]")
    assert 'not COCO JSON: it has no list of objects "images"' in _refusal(good)
    good.instances.write_text('{"images": [1], "annotations": []}')
    assert 'no list of objects "images"' in _refusal(good)


def test_categories_are_needed(good) -> None:
    _edit(good.instances, categories=None)
    assert '"categories"' in _refusal(good)
    _edit(good.instances, categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}])
    assert "category id 1 twice" in _refusal(good)


def test_swapped_files_are_recognised(good) -> None:
    assert "are swapped" in _refusal(CocoSource(good.images, good.captions, good.instances))
    assert "holds captions, not instances" in _refusal(CocoSource(good.images, good.captions, good.captions))
    assert "holds instances, not captions" in _refusal(CocoSource(good.images, good.instances, good.instances))


def test_empty_data_sets(tmp_path, write_coco) -> None:
    assert "is an empty data set" in _refusal(write_coco(tmp_path / "a", [], [], [CAPTION]))
    assert "has a caption" in _refusal(write_coco(tmp_path / "b", [IMAGE], [KITE], []))


def test_unknown_category(tmp_path, write_coco) -> None:
    text = _refusal(write_coco(tmp_path, [IMAGE], [{**KITE, "category_id": 12}], [CAPTION]))
    assert "no category 12 that annotation 3 is of" in text


def test_image_folder_missing_or_of_other_images(good, tmp_path) -> None:
    assert "images: no folder" in _refusal(CocoSource(tmp_path / "none", good.instances, good.captions))
    (tmp_path / "others").mkdir()
    text = _refusal(CocoSource(tmp_path / "others", good.instances, good.captions))
    assert "none of the 1 images" in text and "7.png" in text


def test_digests_do_not_depend_on_where_the_files_lie(good, tmp_path) -> None:
    before = good.digests()
    assert sorted(before) == ["captions", "images", "instances"]
    moved = good.instances.parent.rename(tmp_path / "moved")
    there = CocoSource(moved / "images", moved / "instances.json", moved / "captions.json")
    assert there.digests() == before
    (moved / "images" / "7.png").write_bytes(b"other")
    assert there.digests()["images"] != before["images"]
    with pytest.raises(InputError, match="no file"):
        good.digests()


@pytest.mark.real
@pytest.mark.parametrize(
    ("images", "instances", "captions", "rows", "objects"),
    [
        ("images", "annotations/instances.json", "annotations/captions.json", 303, 2740),
        (None, "annotations/boxes.json", "annotations/captions_large.json.gz", 4133, 30588),
        ("odd/images", "odd/annotations/instances.json", "odd/annotations/captions.json", 8, 86),
    ],
)
def test_real_coco(shared_coco, images, instances, captions, rows, objects) -> None:
    data = read_coco(images and shared_coco / images, shared_coco / instances, shared_coco / captions)
    assert len(data.records) == rows and len(data.classes) == 80
    assert data.classes[:2] == ("person", "bicycle") and data.classes[-1] == "toothbrush"
    assert sum(len(labels) for labels in data.records["labels"].to_pylist()) == objects
    assert not any(text != text.strip() for texts in data.records["captions"].to_pylist() for text in texts)
