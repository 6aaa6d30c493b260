"""A data set in several parts, as COCO has it: two folders of images, two JSON files of each kind."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from objgan.config import Config
from objgan.errors import InputError
from pipelines.__main__ import main, parse
from pipelines.cli.coco_source import source_of
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.ingest import ingest
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoPart, CocoSource, Split
from pipelines.data.shards.format import load_manifest, read_split
from pipelines.data.shards.manifest import SPLITS
from pipelines.data.shards.rejected import read_rejects
from tests.tools.logged import logged

Scenes = Callable[..., tuple[list[dict], list[dict], list[dict]]]
WriteCoco = Callable[..., CocoSource]


@dataclass
class Coco2017:
    """The layout of COCO 2017: train2017/, val2017/ and annotations/, with file names that are numbers."""

    folder: Path

    def files(self, part: str) -> dict[str, Path]:
        annotations = self.folder / "annotations"
        return {
            "images": self.folder / part,
            "instances": annotations / f"instances_{part}.json",
            "captions": annotations / f"captions_{part}.json",
        }

    def options(self, *parts: str) -> list[str]:
        return [word for part in parts for name, path in self.files(part).items() for word in (f"--{name}", str(path))]

    def edit(self, part: str, what: str, change: Callable[[dict[str, Any]], None]) -> None:
        path = self.files(part)[what]
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


@pytest.fixture
def coco(tmp_path: Path, write_coco: WriteCoco, scenes: Scenes) -> Coco2017:
    """12 training images and 8 validation images; ids of annotations differ, as COCO's do."""
    made = Coco2017(tmp_path / "coco")
    (made.folder / "annotations").mkdir(parents=True)
    for part, number, start in (("train2017", 12, 1), ("val2017", 8, 100)):
        source = write_coco(tmp_path / part, *scenes(number, start))
        source.images.rename(made.files(part)["images"])
        for what in ("instances", "captions"):
            getattr(source, what).rename(made.files(part)[what])
    return made


def _source(*words: str) -> CocoSource:
    source = source_of(parse(["prepare", *words])[1])
    assert source is not None
    return source


def _go(source: CocoSource, out: Path, config: Config) -> list[str]:
    with logged() as lines:
        prepare(source, out, config, run_here)
    return lines


def _column(folder: Path, split: str, name: str) -> list[Any]:
    return [value for table in read_split(folder, load_manifest(folder), split) for value in table[name].to_pylist()]


def test_train_and_val_with_the_split_of_coco(coco: Coco2017, tmp_path: Path, data_config: Config) -> None:
    source = _source(*coco.options("train2017", "val2017"), "--split", "coco")
    _go(source, tmp_path / "out", data_config)
    manifest = load_manifest(tmp_path / "out")
    assert manifest["totals"] == {"image": 20, "annotation": 60, "caption": 40} and manifest["rejected"]["rows"] == 0
    assert _column(tmp_path / "out", "train", "image_id") == list(range(1, 13))
    held_out = [image for split in ("validation", "test") for image in _column(tmp_path / "out", split, "image_id")]
    assert sorted(held_out) == list(range(100, 108))


def test_pixels_come_from_the_folder_of_their_own_part(coco: Coco2017, tmp_path: Path, data_config: Config) -> None:
    """Also if two folders have files of the same name."""
    for part, first in (("train2017", 1), ("val2017", 100)):
        for number in range(8):
            (coco.files(part)["images"] / f"{first + number:06d}.png").rename(
                coco.files(part)["images"] / f"{number}.png"
            )

        def rename(content: dict[str, Any], first: int = first) -> None:
            for image in content["images"][:8]:
                image["file_name"] = f"{image['id'] - first}.png"

        coco.edit(part, "instances", rename)
    _go(_source(*coco.options("train2017", "val2017")), tmp_path / "both", data_config)
    assert load_manifest(tmp_path / "both")["rejected"]["rows"] == 0
    pictures = {}
    for name, parts in (("both", ("train2017", "val2017")), ("train", ("train2017",)), ("val", ("val2017",))):
        if name != "both":
            _go(_source(*coco.options(*parts)), tmp_path / name, data_config)
        for split in SPLITS:
            ids, images = (_column(tmp_path / name, split, column) for column in ("image_id", "image"))
            pictures[name] = pictures.get(name, {}) | dict(zip(ids, images, strict=True))
    assert pictures["both"] == pictures["train"] | pictures["val"]


def test_the_order_of_options_of_different_kinds_does_not_matter(coco: Coco2017) -> None:
    words = coco.options("train2017", "val2017")
    pairs = sorted(zip(words[::2], words[1::2], strict=True), key=lambda pair: pair[0])
    assert _source(*(word for pair in pairs for word in pair)) == _source(*words)


def test_one_folder_of_images_for_all_parts(coco: Coco2017, tmp_path: Path, data_config: Config) -> None:
    for path in coco.files("val2017")["images"].iterdir():
        path.rename(coco.files("train2017")["images"] / path.name)
    words = coco.options("train2017", "val2017")
    del words[words.index("--images", 1) : words.index("--images", 1) + 2]
    _go(_source(*words, "--split", "coco"), tmp_path / "out", data_config)
    assert load_manifest(tmp_path / "out")["rows"]["train"] == 12, "the names of the JSON files name the parts"


def test_boxes_alone(coco: Coco2017, tmp_path: Path, data_config: Config) -> None:
    words = coco.options("train2017", "val2017")
    kept = [(option, value) for option, value in zip(words[::2], words[1::2], strict=True) if option != "--images"]
    _go(_source(*(word for pair in kept for word in pair), "--split", "coco"), tmp_path / "out", data_config)
    assert load_manifest(tmp_path / "out")["rows"]["train"] == 12


@pytest.mark.parametrize(
    ("removed", "words"),
    [
        ("--captions", "--instances and --captions are paired in order, but given 2 and 1 times"),
        ("--instances", "--instances and --captions are paired in order, but given 1 and 2 times"),
    ],
)
def test_files_that_cannot_be_paired_are_refused(
    coco: Coco2017, capsys: pytest.CaptureFixture[str], removed: str, words: str
) -> None:
    options = coco.options("train2017", "val2017")
    place = options.index(removed)
    assert main(["prepare", "--dry-run", *options[:place], *options[place + 2 :]]) == 2
    assert words in capsys.readouterr().err
    more = ["--images", str(coco.folder)]
    assert main(["prepare", "--dry-run", *coco.options("train2017", "val2017"), *more]) == 2
    assert "--images and --instances are paired in order, but given 3 and 2 times" in capsys.readouterr().err


def test_the_same_part_twice_counts_once(coco: Coco2017, tmp_path: Path, data_config: Config) -> None:
    lines = _go(_source(*coco.options("train2017", "val2017", "train2017")), tmp_path / "twice", data_config)
    assert any("72 records occur identically in several parts" in line for line in lines)
    _go(_source(*coco.options("train2017", "val2017")), tmp_path / "once", data_config)
    assert load_manifest(tmp_path / "twice")["totals"] == load_manifest(tmp_path / "once")["totals"]
    for split in SPLITS:
        for column in ("image_id", "annotation_ids", "boxes", "captions", "masks", "image"):
            assert _column(tmp_path / "twice", split, column) == _column(tmp_path / "once", split, column)
    assert list(read_rejects(tmp_path / "twice" / "rejected.jsonl")) == []


def test_repeats_without_ids_count_once(coco: Coco2017, tmp_path: Path, data_config: Config) -> None:
    def forget(content: dict[str, Any]) -> None:
        for one in content["annotations"]:
            del one["id"]

    for what in ("instances", "captions"):
        coco.edit("train2017", what, forget)
    _go(_source(*coco.options("train2017", "train2017")), tmp_path / "out", data_config)
    assert load_manifest(tmp_path / "out")["totals"] == {"image": 12, "annotation": 36, "caption": 24}


@pytest.mark.parametrize("spilled", [False, True])
@pytest.mark.parametrize(
    ("what", "key", "field", "value", "words"),
    [
        (
            "instances",
            "images",
            "file_name",
            "other.png",
            "image id 3 for different images (file_name: 000003.png, other",
        ),
        ("instances", "images", "width", 99, "image id 3 for different images (width: 100, 99)"),
        ("instances", "annotations", "bbox", [1, 2, 3, 4], "annotation id 30 for different records"),
        ("instances", "annotations", "image_id", 100, "annotation id 30 for different records"),
        ("instances", "annotations", "iscrowd", 1, "annotation id 30 for different records"),
        ("captions", "annotations", "caption", "something else", "caption id 300 for different records"),
    ],
)
def test_an_id_with_other_content_is_refused(
    coco: Coco2017, tmp_path: Path, data_config: Config, monkeypatch: pytest.MonkeyPatch,
    what: str, key: str, field: str, value: object, words: str, spilled: bool,
) -> None:  # fmt: skip
    if spilled:
        monkeypatch.setattr("pipelines.data.prepare.external_sort._PENDING_ROWS", 4)
        monkeypatch.setattr("pipelines.data.prepare.external_sort._RUN_BYTES", 1)
        monkeypatch.setattr("pipelines.data.prepare.external_sort._BATCH_ROWS", 3)
    record = dict(
        next(one for one in json.loads(coco.files("train2017")[what].read_text())[key] if _of_three(one, key))
    )
    record[field] = value
    coco.edit("val2017", what, lambda content: content[key].append(record))
    with pytest.raises(InputError) as caught:
        _go(_source(*coco.options("train2017", "val2017")), tmp_path / "out", data_config)
    assert words in str(caught.value) and "train2017.json" in str(caught.value) and "val2017.json" in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def _of_three(record: dict[str, Any], key: str) -> bool:
    return record["id" if key == "images" else "image_id"] == 3


def test_other_pixels_under_the_same_id_and_name_are_refused(
    coco: Coco2017, tmp_path: Path, data_config: Config
) -> None:
    """Two sets with ids from 1 are not repeats, even if their records are similar."""
    for what in ("instances", "captions"):
        shutil.copy(coco.files("train2017")[what], coco.files("val2017")[what].with_name(f"{what}_copy.json"))
    other = coco.folder / "copy"
    shutil.copytree(coco.files("train2017")["images"], other)
    (other / "000005.png").write_bytes((other / "000005.png").read_bytes() + b"x")
    copy = [coco.files("val2017")[what].with_name(f"{what}_copy.json") for what in ("instances", "captions")]
    source = _source(*coco.options("train2017"))
    with pytest.raises(InputError, match=r"image id 5 for different images \(bytes: "):
        _go(replace(source, more=(CocoPart(other, *copy),)), tmp_path / "out", data_config)


def test_categories_are_those_of_all_parts(coco: Coco2017, tmp_path: Path, data_config: Config) -> None:
    coco.edit("val2017", "instances", lambda content: content["categories"].append({"id": 7, "name": "boat"}))
    _go(_source(*coco.options("train2017", "val2017")), tmp_path / "out", data_config)
    assert load_manifest(tmp_path / "out")["classes"] == ["person", "boat", "kite", "bottle"]
    coco.edit("train2017", "instances", lambda content: content["categories"].append({"id": 7, "name": "ship"}))
    with pytest.raises(InputError, match="calls category 7 'boat'"):
        _go(_source(*coco.options("train2017", "val2017")), tmp_path / "other", data_config)
    coco.edit("train2017", "instances", lambda content: content["categories"][-1].update(id=8, name="boat"))
    with pytest.raises(InputError, match="give the category 'boat' different ids"):
        _go(_source(*coco.options("train2017", "val2017")), tmp_path / "other", data_config)


def test_a_folder_that_is_wrong_for_one_part_is_refused(coco: Coco2017, tmp_path: Path, data_config: Config) -> None:
    words = coco.options("train2017", "val2017")
    words[words.index(str(coco.files("val2017")["images"]))] = str(coco.files("train2017")["images"])
    with pytest.raises(InputError, match=r"none of the 8 images of .*val2017.json is in .*train2017"):
        _go(_source(*words), tmp_path / "out", data_config)


def test_parts_are_other_inputs(coco: Coco2017, tmp_path: Path, data_config: Config) -> None:
    _go(_source(*coco.options("train2017")), tmp_path / "out", data_config)
    with pytest.raises(InputError, match="other instances; other captions; other images"):
        _go(_source(*coco.options("train2017", "val2017")), tmp_path / "out", data_config)


def test_swapped_files_of_the_second_part_are_recognised(coco: Coco2017, data_config: Config) -> None:
    part = CocoPart(**coco.files("val2017"))
    swapped = replace(part, instances=part.captions, captions=part.instances)
    source = replace(CocoSource(**coco.files("train2017")), more=(swapped,), split=Split("coco"))
    with pytest.raises(InputError, match=r"swapped: .*captions_val2017.json holds captions"):
        _go(source, coco.folder / "out", data_config)


@pytest.mark.parametrize(
    ("folder", "name", "origin"),
    [
        ("train2017", "instances.json", "train2017"),
        ("s3://key:hush@bucket/coco/val2017/?region=test2015", "instances.json", "val2017"),
        ("images", "instances_val2014.json", "val2014"),
        ("train2017", "instances_val2017.json", "val2017"),
        ("retrain2017", "instances.json", None),
        ("train20171", "instances.json", None),
        (None, "captions.json", None),
    ],
)
def test_the_part_of_coco_is_in_the_names(folder: str | None, name: str, origin: str | None) -> None:
    images = Path(folder) if folder and "://" not in folder else folder
    assert CocoPart(images, Path(name), Path("captions.json")).origin() == origin


@pytest.mark.real
def test_two_parts_of_real_coco(shared_coco: Path, tmp_path: Path) -> None:
    first, second = (
        CocoPart(folder / "images", *(folder / "annotations" / f"{what}.json" for what in ("instances", "captions")))
        for folder in (shared_coco, shared_coco / "odd")
    )
    source = CocoSource(first.images, first.instances, first.captions, more=(second, first))
    read = ingest(source, tmp_path, source.sizes())
    assert read.totals == {"image": 303 + 8, "annotation": 2740 + 86, "caption": 1515 + 40}
    assert len(read.images) == 311 and set(read.images.parts.tolist()) == {0, 1}
