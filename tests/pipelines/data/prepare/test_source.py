"""COCO JSON as it is, and each way in which it can be wrong.

Splits are a function of the image id.
"""

import gzip
import hashlib
import json
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from objgan.errors import InputError
from objgan.sections import DataConfig
from objgan.vocabulary import tokenize
from pipelines.data.prepare.convert import block_of, records_of
from pipelines.data.prepare.ingest import UNREAD, Ingested, check_folder, ingest
from pipelines.data.prepare.rows import Record
from pipelines.data.prepare.source import CocoPart, CocoSource, split_images, split_of
from pipelines.data.shards.manifest import TEXT_IDS
from pipelines.data.shards.rejected import Reject, read_rejects

IMAGE = {"id": 7, "file_name": "7.png", "width": 60, "height": 40}
IMAGE_ROW = {"file_name": "7.png", "width": 60, "height": 40, "scene": None, "origin": None, "part": 0}
CAPTION = {"id": 1, "image_id": 7, "caption": "a kite"}
KITE = {"id": 3, "image_id": 7, "category_id": 38, "bbox": [1, 2, 30, 20]}

CONFIG = DataConfig(validation_percent=10, test_percent=20)


@dataclass
class Read:
    """Result of the JSON: rows by image id, rejects, and numbers of ids that are texts."""

    data: Ingested
    rejects: list[Reject]
    records: list[Record]
    texts: dict[tuple[str, str], int]

    @property
    def reasons(self) -> list[tuple[str, int | None, str]]:
        return [(reject.kind, reject.id, reject.reason) for reject in self.rejects]


def _read(source: CocoSource) -> Read:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = ingest(source, work)
        records = records_of(block_of(data.images.ids, "train", "x"), work)
        lines = [json.loads(line) for line in (work / TEXT_IDS).read_text().split("\n")[:-1]]
        texts = {(line["kind"], line["text"]): line["id"] for line in lines}
        return Read(data, list(read_rejects(work / UNREAD)), records, texts)


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
    read = _read(good)
    assert (read.data.classes, read.data.categories) == (("person", "kite", "bottle"), (1, 38, 44))
    (record,) = read.records
    assert {**record.image, "origin": None} == {**IMAGE_ROW, "image_id": 7}
    assert [caption["text"] for caption in record.captions] == ["a kite"]
    assert [(annotation["category"], annotation["box"], annotation["id"]) for annotation in record.objects] == [
        (38, [1, 2, 30, 20], 3)
    ]
    assert read.rejects == [] and read.data.totals == {"image": 1, "annotation": 1, "caption": 1}


def test_records_without_area_crowd_flag_and_segmentation(good) -> None:
    (record,) = _read(good).records
    (kite,) = record.objects
    assert [kite[name] for name in ("area", "crowd", "polygons", "other", "colour")] == [None, False, None, None, None]
    assert record.image["scene"] is None


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
    assert [record["colour"] for record in records[0].objects] == ["red"] + [None] * len(said)
    assert [record.image["scene"] for record in records] == ["snow", None, None, None, None]


def test_a_caption_that_no_tokenizer_takes_is_rejected(tmp_path, write_coco) -> None:
    texts = {6: "x" * 3_000_000, 7: "\ufdfa" * 50_000, 8: "a dog runs"}
    captions = [{"id": number, "image_id": 7, "caption": text} for number, text in texts.items()]
    read = _read(write_coco(tmp_path, [IMAGE], [KITE], captions))
    assert read.reasons == [("caption", 6, "caption has more than 50000 characters")]
    assert len(read.rejects[0].detail) < 200
    assert [bool(tokenize(caption["text"])) for caption in read.records[0].captions] == [True, True]


def test_captions_are_cleaned_ordered_by_id_and_empty_ones_counted(tmp_path, write_coco) -> None:
    texts = {5: ' says "hé"\n ', 4: "\ta  dog\nruns ", 6: " \n"}
    captions = [{"id": number, "image_id": 7, "caption": text} for number, text in texts.items()]
    read = _read(write_coco(tmp_path, [IMAGE], [], captions))
    assert [caption["text"] for caption in read.records[0].captions] == ["a dog runs", 'says "hé"']
    assert read.reasons == [("caption", 6, "empty caption")]


def test_records_that_do_not_join_are_rejected_and_counted(tmp_path, write_coco) -> None:
    images = [IMAGE, {**IMAGE, "id": 8}, IMAGE]
    objects = [KITE, {**KITE, "image_id": 99}, {**KITE, "bbox": [1, 2, None, 4]}, {**KITE, "bbox": [1, 2, 3]}]
    source = write_coco(tmp_path, images, objects, [CAPTION, {**CAPTION, "image_id": 99}])
    _edit(source.captions, images=[*images, {"id": 99}])
    read = _read(source)
    assert [record.image["image_id"] for record in read.records] == [7]
    assert read.reasons == [
        ("image", 7, "an earlier image record has the same id"),
        ("image", 99, "only in the captions JSON, not in the instances JSON"),
        ("annotation", 3, "bbox has null, not a number"),
        ("annotation", 3, "bbox is a list of another length, not a list of four numbers"),
        ("image", 8, "without a caption"),
        ("caption", 1, "its image is not in the instances JSON"),
        ("annotation", 3, "its image is not in the instances JSON"),
    ]
    assert read.data.totals == {"image": 4, "annotation": 4, "caption": 2}


def test_nan_is_not_a_box(tmp_path, write_coco) -> None:
    read = _read(write_coco(tmp_path, [IMAGE], [{**KITE, "bbox": [1, float("nan"), 3, 4]}, KITE], [CAPTION]))
    assert read.reasons == [("annotation", 3, "bbox has null, not a number")]
    assert len(read.records[0].objects) == 1


def test_images_without_objects_or_sizes_are_kept(tmp_path, write_coco) -> None:
    (record,) = _read(write_coco(tmp_path, [{"id": 7, "file_name": "7.png"}], [], [CAPTION])).records
    assert (record.image["width"], record.image["height"], record.objects) == (None, None, [])


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


@pytest.mark.parametrize("what", ["instances", "captions", "images"])
def test_missing_inputs_are_refused_before_anything_is_read(tmp_path, write_coco, what) -> None:
    source = write_coco(tmp_path, [IMAGE], [KITE], [CAPTION])
    source.check()
    (tmp_path / "broken.json").write_text("{")
    replace(source, instances=tmp_path / "broken.json").check()
    with pytest.raises(InputError, match=rf"{what}: no (file|folder) .*nowhere; check the path"):
        replace(source, **{what: tmp_path / "nowhere"}).check()


def test_categories_are_needed(good) -> None:
    _edit(good.instances, categories=None)
    assert '"categories"' in _refusal(good)
    _edit(good.instances, categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}])
    assert "category id 1 twice" in _refusal(good)
    _edit(good.instances, categories=[{"id": 1, "name": "a" * 3_000_000}])
    assert "a category of 3,000,000 characters" in _refusal(good) and len(_refusal(good)) < 500


def test_swapped_files_are_recognised(good) -> None:
    assert "are swapped" in _refusal(CocoSource(good.images, good.captions, good.instances))
    assert "holds captions, not instances" in _refusal(CocoSource(good.images, good.captions, good.captions))
    assert "holds instances, not captions" in _refusal(CocoSource(good.images, good.instances, good.instances))


ONE_FILE = {
    "captions among the objects": lambda objects, captions: {"annotations": [*objects, *captions]},
    "captions first": lambda objects, captions: {"annotations": [*captions, *objects]},
    "in records that are both": lambda objects, captions: {"annotations": [{**objects[0], "caption": "a kite"}]},
    "in a list of their own": lambda objects, captions: {"annotations": objects, "captions": captions},
}


@pytest.mark.parametrize("name", ONE_FILE)
def test_one_file_for_both_options_is_read_where_it_holds_both(good, tmp_path, name) -> None:
    apart = _read(good)
    _edit(good.instances, **ONE_FILE[name]([KITE], [CAPTION]))
    link = tmp_path / "link.json"
    link.symlink_to(good.instances)
    for captions in (good.instances, link):
        read = _read(replace(good, captions=captions))
        assert read.data.totals == {"image": 1, "annotation": 1, "caption": 1} and not read.rejects
        assert [caption["text"] for caption in read.records[0].captions] == ["a kite"]
        assert read.records[0].objects == apart.records[0].objects or name != "in a list of their own"
        assert [record["box"] for record in read.records[0].objects] == [[1, 2, 30, 20]]


def test_every_record_of_one_file_for_both_is_accounted_for(good) -> None:
    strange = [{"id": 9}, {"id": 8, "caption": 3, "image_id": 7}, {"id": 7, "bbox": "x", "image_id": 7}]
    _edit(good.instances, annotations=[KITE, *strange, CAPTION])
    read = _read(replace(good, captions=good.instances))
    assert read.data.totals == {"image": 1, "annotation": 3, "caption": 2}
    assert read.reasons == [
        ("caption", 8, "caption is a number, not text"),
        ("annotation", 9, "image_id is missing"),
        ("annotation", 7, "bbox is text, not a list of four numbers"),
    ]


def test_empty_data_sets(tmp_path, write_coco) -> None:
    assert "is an empty data set" in _refusal(write_coco(tmp_path / "a", [], [], [CAPTION]))
    assert "captions.json has no caption" in _refusal(write_coco(tmp_path / "b", [IMAGE], [KITE], []))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": {"id": " "}}, "none of the 4 images can be used: 2 of them: id is text, not a whole number"),
        ({"captions": {"image_id": " "}}, "none of the 3 captions can be used: 3 of them: image_id is text"),
        ({"captions": {"image_id": "x"}}, "none of the 3 captions can be used: 3 of them: its image is not in the"),
        ({"captions": {"caption": "\u2003\n"}}, "none of the 3 captions can be used: 3 of them: empty caption"),
        ({"captions": {"image_id": 99}}, "none of the 3 captions can be used: 3 of them: its image is not in the"),
        ({"objects": {"bbox": [1, 2, 3]}}, "none of the 2 objects can be used: 2 of them: bbox is a list of another"),
        ({"objects": {"image_id": 99}}, "none of the 2 objects can be used: 2 of them: its image is not in the"),
    ],
)
def test_a_data_set_without_usable_records_of_a_kind_is_refused_with_the_most_frequent_reason(
    tmp_path, write_coco, change, reason
) -> None:
    parts = {"images": [IMAGE, IMAGE | {"id": 8}], "objects": [KITE, KITE], "captions": [CAPTION] * 3}
    source = write_coco(tmp_path, **parts)
    (name, values), *_ = change.items()
    file, key = (source.captions, "annotations") if name == "captions" else (source.instances, name)
    key = "annotations" if name == "objects" else key
    _edit(file, **{key: [one | values for one in parts[name]]})
    refusal = _refusal(source)
    assert reason in refusal and refusal.count("none of the") == 1 and UNREAD in refusal


def test_the_most_frequent_reason_is_named_with_its_count(tmp_path, write_coco) -> None:
    wrong = [{"bbox": None}, {"area": "big"}, {"area": "huge"}]
    source = write_coco(tmp_path, [IMAGE], [KITE | record for record in wrong], [CAPTION])
    assert "none of the 3 objects can be used: 2 of them: area is text, not a number (for example area: 'big')" in (
        _refusal(source)
    )


def test_unknown_category(tmp_path, write_coco) -> None:
    objects = [{**KITE, "category_id": category} for category in (12, "", None, 44, "44", "ant")]
    read = _read(write_coco(tmp_path, [IMAGE], objects, [CAPTION]))
    assert [record["category"] for record in read.records[0].objects] == [44, 44]
    assert read.reasons == [
        ("annotation", 3, "its category is not in the JSON"),
        ("annotation", 3, "category_id is text, not a whole number"),
        ("annotation", 3, "category_id is missing"),
        ("annotation", 3, "its category is not in the JSON"),
    ]
    assert [read.rejects[place].detail for place in (0, 3)] == ["12", "'ant'"], "as the JSON has them"


def test_numbers_as_text_join_with_numbers(tmp_path, write_coco) -> None:
    objects = [{**KITE, "image_id": "7", "iscrowd": "0"}, {**KITE, "image_id": 7.0, "iscrowd": "1"}]
    source = write_coco(tmp_path, [IMAGE], objects, [{**CAPTION, "image_id": "7.0"}])
    _edit(source.instances, categories=[{"id": "1", "name": "person"}, {"id": 38.0, "name": "kite"}])
    read = _read(source)
    assert [record["crowd"] for record in read.records[0].objects] == [False, True]
    assert len(read.records[0].captions) == 1 and read.data.categories == (1, 38) and not read.rejects


@pytest.mark.parametrize("image_id", [10**30, 1e300, " ", [7], {"id": 7}])
def test_an_id_that_is_not_a_number_rejects_only_its_record(tmp_path, write_coco, image_id) -> None:
    read = _read(write_coco(tmp_path, [IMAGE], [{**KITE, "image_id": image_id}, KITE], [CAPTION]))
    assert len(read.records[0].objects) == 1
    (reject,) = read.rejects
    assert reject.reason.startswith("image_id is ") and reject.detail.startswith("image_id: ")


def test_captions_without_a_list_of_images_are_read(good) -> None:
    content = json.loads(good.captions.read_text())
    good.captions.write_text(json.dumps({"annotations": content["annotations"]}))
    read = _read(good)
    assert len(read.records) == 1 and not read.rejects
    good.captions.write_text(json.dumps({"annotations": content["annotations"], "images": {"7": {}}}))
    assert 'no list of objects "images"' in _refusal(good)


def test_image_folder_missing_or_of_other_images(good, tmp_path) -> None:
    with pytest.raises(InputError, match="images: no folder"):
        CocoSource(tmp_path / "none", good.instances, good.captions).digests()
    (tmp_path / "others").mkdir()
    others = CocoSource(tmp_path / "others", good.instances, good.captions)
    data = ingest(others, tmp_path / "work", others.sizes())
    with pytest.raises(InputError, match=r"none of the 1 images .* \(the first: 7.png\)"):
        check_folder(others, data, tmp_path / "work")


def test_digests_do_not_depend_on_the_location(good, tmp_path) -> None:
    before = good.digests()
    assert sorted(before) == ["captions", "images", "instances"]
    moved = good.instances.parent.rename(tmp_path / "moved")
    moved_source = CocoSource(moved / "images", moved / "instances.json", moved / "captions.json")
    assert moved_source.digests() == before
    (moved / "images" / "7.png").write_bytes(b"other")
    assert moved_source.digests()["images"] != before["images"]
    with pytest.raises(InputError, match="no file"):
        good.digests()


def test_the_digest_of_images_is_that_of_the_sorted_names_and_sizes(tmp_path, write_coco) -> None:
    names = ["z.png", "\u00e9.png", "\U0001f600.png", "\uff5e.png", "./z.png", "none.png", "a.png", "B.png"]
    images = [{**IMAGE, "id": number, "file_name": name} for number, name in enumerate(names)]
    source = write_coco(tmp_path, images, [KITE], [CAPTION])
    files = {name: number for number, name in enumerate(names) if not name.startswith((".", "none"))}
    for name, size in files.items():
        (source.images / name).write_bytes(b"x" * size)
    (source.images / "none.png").unlink()
    listing = json.dumps(sorted(files.items()))
    assert source.digests()["images"] == hashlib.sha256(listing.encode()).hexdigest()


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
    read = _read(CocoSource(images and shared_coco / images, shared_coco / instances, shared_coco / captions))
    assert len(read.records) == rows and len(read.data.classes) == 80
    assert read.data.classes[:2] == ("person", "bicycle") and read.data.classes[-1] == "toothbrush"
    assert sum(len(record.objects) for record in read.records) == objects
    texts = [caption["text"] for record in read.records for caption in record.captions]
    assert not any(text != text.strip() or "\n" in text for text in texts)
    lost = Counter(reject.kind for reject in read.rejects)
    kept = {"image": rows, "annotation": objects, "caption": len(texts)}
    assert {kind: lost[kind] + n for kind, n in kept.items()} == read.data.totals


def _split(image_ids: range) -> dict[str, list[int]]:
    return {name: ids.tolist() for name, ids in split_images(image_ids, CONFIG).items()}


def test_shares_are_those_of_the_settings() -> None:
    splits = _split(range(20000))
    assert {name: round(len(ids) / 200) for name, ids in splits.items()} == {"train": 70, "validation": 10, "test": 20}


def test_an_image_keeps_its_split_among_any_others() -> None:
    everyone, some = _split(range(2000)), _split(range(0, 2000, 7))
    assert all(set(some[name]) <= set(everyone[name]) for name in everyone)
    assert all({split_of(image_id, CONFIG) for image_id in ids} == {name} for name, ids in everyone.items())
    # Pinned: another hash would mix the splits of data that were prepared before.
    assert [split_of(image_id, CONFIG) for image_id in range(8)] == PINNED


PINNED = ["train", "train", "test", "train", "train", "train", "test", "train"]


def test_every_split_of_a_tiny_data_set_has_an_image() -> None:
    for number in range(3, 12):
        splits = _split(range(number))
        assert all(splits.values()) and sorted(one for ids in splits.values() for one in ids) == list(range(number))
        assert splits == _split(range(number)[::-1])
    with pytest.raises(InputError, match=r"2 usable image\(s\)"):
        split_images([1, 2], CONFIG)


def test_ids_that_are_texts_join_and_are_written_down(tmp_path, write_coco) -> None:
    image, kite = {**IMAGE, "id": "street/a b.png"}, {**KITE, "id": "uuid-1", "category_id": "k"}
    objects = [{**kite, "image_id": " street/a b.png "}, {**kite, "id": 5, "image_id": "street/a b.png"}]
    source = write_coco(
        tmp_path, [image], objects, [{**CAPTION, "id": "c\u2028d\n", "image_id": "street/a b.png"}], False
    )
    _edit(source.instances, categories=[{"id": 1, "name": "person"}, {"id": "k", "name": "kite"}])
    read = _read(source)
    (record,) = read.records
    assert not read.rejects and len(record.objects) == 2 and len(record.captions) == 1
    assert read.texts == {
        ("category", "k"): record.objects[0]["category"],
        ("image", "street/a b.png"): record.image["image_id"],
        ("caption", "c\u2028d"): record.captions[0]["id"],
        ("annotation", "uuid-1"): max(one["id"] for one in record.objects),
    }
    assert read.data.categories == (1, record.objects[0]["category"]) and read.data.classes == ("person", "kite")


def test_messages_show_an_id_that_is_text_as_the_json_has_it(tmp_path, write_coco) -> None:
    image, kite = {**IMAGE, "id": "a"}, {**KITE, "id": "k", "image_id": "a", "category_id": "c"}
    caption, person = {**CAPTION, "image_id": "a"}, {"id": "c", "name": "person"}

    def part(name: str, image: dict, category: dict, kite: dict) -> CocoSource:
        source = write_coco(tmp_path / name, [image], [kite], [caption], False)
        _edit(source.instances, categories=[category])
        return source

    first = part("first", image, person, kite)
    for other, words in (
        (part("image", {**image, "width": 61}, person, kite), "image id 'a' for different images (width: 60, 61)"),
        (part("category", image, {"id": "c", "name": "kite"}, kite), "category 'c' 'kite'"),
        (part("object", image, person, {**kite, "bbox": [1, 2, 3, 4]}), "annotation id 'k' for different records"),
    ):
        more = CocoPart(None, other.instances, other.captions)
        assert words in _refusal(replace(first, more=(more,)))
    _edit(first.instances, categories=[person, {"id": " c ", "name": "kite"}])
    assert "category id ' c ' twice" in _refusal(first)
