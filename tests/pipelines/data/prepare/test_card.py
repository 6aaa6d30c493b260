"""The data-set card: what it says of the data, in words that Markdown and YAML cannot misread."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from objgan.config import Config
from objgan.errors import InputError
from pipelines.data.prepare.card import card, source_lines
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import Options, check, prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.data.shards.format import load_manifest, read_shard, shards_of
from pipelines.data.shards.manifest import CARD
from pipelines.data.verify.verify import verify
from tests.tools.logged import logged

INFO = {"description": "COCO 2017 Dataset", "url": "http://cocodataset.org", "version": "1.0", "year": 2017}
LICENCES = [{"id": 1, "name": "CC BY 2.0", "url": "http://creativecommons.org/licenses/by/2.0/"}, {"id": 2}]


def _sections(text: str) -> dict[str, list[str]]:
    """The lines of each section that are not empty, by its title."""
    parts = text.split("\n## ")[1:]
    return {
        title: [line for line in rest.splitlines() if line] for title, _, rest in (p.partition("\n") for p in parts)
    }


def _front(text: str) -> dict:
    start, front, _ = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory, write_coco, scenes, data_config: Config) -> Path:
    """30 scenes with ellipses, written captions and 10 broken pictures; the JSON names its source and licences."""
    folder = tmp_path_factory.mktemp("card")
    source = write_coco(folder / "coco", *scenes(30))
    instances = json.loads(source.instances.read_text())
    source.instances.write_text(json.dumps({"info": INFO, "licenses": LICENCES, **instances}))
    for number in range(1, 11):
        (folder / "coco" / "images" / f"{number:06d}.png").write_bytes(b"broken")
    config = data_config.model_copy(update={"data": data_config.data.model_copy(update={"shapes": "ellipse"})})
    prepare(replace(source, captions=None), folder / "data", config, run_here)
    return folder / "data"


def test_source_and_licence_are_read_back_also_after_an_edit(stand_ins: Path, tmp_path: Path) -> None:
    assert source_lines(stand_ins)[:2] == ["description: COCO 2017 Dataset", "url: http://cocodataset.org"]
    assert "licence: CC BY 2.0 http://creativecommons.org/licenses/by/2.0/" in source_lines(stand_ins)
    assert source_lines(tmp_path) == []
    (tmp_path / CARD).write_text(
        "## Other\n\n- x\n\n## Source and licence\n\n- our \\<own\\>\n" + "- y\n" * 99 + "## Z\n"
    )
    assert source_lines(tmp_path) == ["our <own>", *["y"] * 49]


def test_a_card_says_source_contents_rejects_and_warnings(stand_ins: Path) -> None:
    manifest, sections = load_manifest(stand_ins), _sections((stand_ins / CARD).read_text())
    assert sections["Source and licence"] == [
        "- description: COCO 2017 Dataset",
        "- url: http://cocodataset.org",
        "- version: 1.0",
        "- year: 2017",
        "- licence: CC BY 2.0 http://creativecommons.org/licenses/by/2.0/",
        "- licence: unnamed",
    ]
    rows, counts = manifest["rows"], manifest["counts"]
    assert sum(rows.values()) == 20
    for split in ("train", "validation", "test"):
        assert f"| {split} | {rows[split]} |" in sections["Contents"]
    numbers = f"{counts['captions']} captions, 60 objects, 60 masks, 20 crowds; split by hash."
    assert numbers in sections["Contents"] and counts["captions"] >= 40
    assert "3 classes: person, kite, bottle." in sections["Contents"]
    rejected = sections["Rejected"]
    assert rejected[0] == f"{manifest['rejected']['rows']} records, listed in `rejected.jsonl`."
    assert len(rejected) == 1 + len(manifest["rejected"]["reasons"])
    assert any(line.startswith("- 10 image: ") for line in rejected[1:])
    assert any(line.startswith("- 10 of 30 images (33%) were rejected, 10 of them: ") for line in sections["Warnings"])


def test_a_card_and_the_shards_name_what_is_not_from_annotations(stand_ins: Path, prepared: Path) -> None:
    lines = _sections((stand_ins / CARD).read_text())["Not from annotations"]
    assert lines[0].startswith("- no mask is an annotation: each is the ellipse of its object's box")
    assert lines[1].startswith("- no caption is by a person: all are written from classes and boxes")
    schema = read_shard(stand_ins / shards_of(load_manifest(stand_ins), "train")[0].name).schema
    assert b"no annotation: the ellipse of the box" in schema.field("masks").metadata[b"description"]
    assert b"no annotation: written from classes and boxes" in schema.field("captions").metadata[b"description"]
    assert _sections((prepared / CARD).read_text())["Not from annotations"][0] == "None."


def test_a_card_without_information_says_so(prepared: Path) -> None:
    lines = _sections((prepared / CARD).read_text())["Source and licence"]
    assert lines == [
        "- source: not named at the beginning of the instances JSON",
        "- licence: not named at the beginning of the instances JSON",
    ]


def test_the_front_matter_names_files_and_columns(prepared: Path) -> None:
    (config,) = _front((prepared / CARD).read_text())["configs"]
    assert {file["split"]: file["path"] for file in config["data_files"]} == {
        split: f"{split}-*.arrow" for split in ("train", "validation", "test")
    }
    schema = read_shard(prepared / "train-00000.arrow").schema
    features = {feature["name"]: feature for feature in config["features"]}
    assert list(features) == schema.names
    assert features["image"]["dtype"] == "image" and features["boxes"]["sequence"] == "float32"
    assert features["labels"]["sequence"]["class_label"]["names"] == {"0": "person", "1": "kite", "2": "bottle"}


def test_parts_with_the_same_source_name_it_once(prepared: Path) -> None:
    header = {"info": INFO, "licenses": LICENCES}
    other = {"info": INFO | {"version": "2.0"}, "licenses": []}
    text = card(load_manifest(prepared), [header, header, other])
    assert text.count("COCO 2017 Dataset") == text.count("CC BY 2.0") == 1
    assert "- version: 1.0\n" in text and "- version: 2.0\n" in text
    assert "- licence: not named at the beginning" in text, "that of one part is unknown"


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ({"info": {"description": "a\n# b\n<script>"}}, "- description: a \\# b \\<script\\>"),
        ({"info": {"url": "[x](y) |`"}}, "- url: \\[x\\](y) \\|\\`"),
        ({"info": {"description": "x" * 10**6}}, f"- description: {'x' * 300}..."),
        ({"info": {"description": ["a", {"b": 1}]}}, "- description: \\['a', \\{'b': 1\\}\\]"),
        ({"info": [1], "licenses": {"name": "x"}}, "- licence: not named at the beginning of the instances JSON"),
        ({"info": "text", "licenses": [None, 3, {"name": None, "url": 5}]}, "- licence: unnamed 5"),
        ({"licenses": [{"name": str(n)} for n in range(25)]}, "- and 5 more licences"),
    ],
)
def test_values_of_any_kind_are_one_plain_line(prepared: Path, header: dict, line: str) -> None:
    text = card(load_manifest(prepared), [header])
    assert line in _sections(text)["Source and licence"]
    assert len(text.split("---\n")) == 3 and max(map(len, text.splitlines())) < 1000


def test_class_names_of_any_kind_survive_the_front_matter(prepared: Path) -> None:
    names = ["yes", "null", "---", "0", "'a': \"b\"", "käse", "猫 🐈", "# x"]
    text = card({**load_manifest(prepared), "classes": names}, [{}])
    labels = next(one for one in _front(text)["configs"][0]["features"] if one["name"] == "labels")
    assert list(labels["sequence"]["class_label"]["names"].values()) == names


def test_a_card_may_be_edited(tmp_path: Path, write_coco, scenes, data_config: Config) -> None:
    source: CocoSource = write_coco(tmp_path / "coco", *scenes(20))
    prepare(source, tmp_path / "data", data_config, run_here)
    (tmp_path / "data" / CARD).write_text("ours")
    with logged() as said:
        prepare(source, tmp_path / "data", data_config, run_here)
    assert "nothing to do" in said[-1] and (tmp_path / "data" / CARD).read_text() == "ours"
    assert not verify(tmp_path / "data", 1).faults


def test_a_readme_of_somebody_else_is_not_replaced(tmp_path: Path, write_coco, scenes, data_config: Config) -> None:
    source: CocoSource = write_coco(tmp_path / "coco", *scenes(20))
    readme = tmp_path / "data" / CARD
    readme.parent.mkdir()
    readme.write_bytes(b"ours \xff")
    for _ in range(2):
        with pytest.raises(InputError, match=r"README\.md is not the card .*: move it, or give another --out"):
            prepare(source, readme.parent, data_config, run_here)
        with pytest.raises(InputError, match=r"README\.md is not the card"):
            check(source, readme.parent, data_config)
    assert readme.read_bytes() == b"ours \xff" and list(readme.parent.iterdir()) == [readme]
    readme.unlink()
    prepare(source, readme.parent, data_config, run_here)
    whole = readme.read_text()
    readme.write_text(whole + "\nours")
    prepare(source, readme.parent, data_config, run_here, Options(retry=True))
    assert readme.read_text() == whole, "a card with additions is written anew"
    readme.write_text("ours")
    with pytest.raises(InputError, match="is not the card"):
        prepare(source, readme.parent, data_config, run_here, Options(retry=True))
    assert readme.read_text() == "ours" and load_manifest(readme.parent)
