"""`--captions-from classes`: captions that `prepare` writes are true, marked, and the same in every preparation."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from objgan.caption_parser import read_statements
from objgan.config import Config
from objgan.errors import InputError
from objgan.layout import Layout
from objgan.metrics.named_classes import NamedClasses
from objgan.statements import kept
from objgan.vocabulary import tokenize
from pipelines.__main__ import main
from pipelines.cli.coco_source import source_of
from pipelines.cli.options import RunOptions
from pipelines.data.loading.reader import ShardReader
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import Options, prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.data.shards.format import load_manifest, read_split, summary
from pipelines.data.shards.rejected import read_rejects
from pipelines.data.verify.verify import verify


@pytest.fixture(scope="module")
def bare(tmp_path_factory, write_coco, scenes) -> CocoSource:
    """30 scenes without captions; image 5 has no object, image 6 only a crowd, image 7 only a box outside."""
    images, objects, _ = scenes(30)
    objects = [one for one in objects if one["image_id"] not in (5, 6, 7) or (one["image_id"] == 6 and one["iscrowd"])]
    objects.append({"id": 7, "image_id": 7, "category_id": 1, "bbox": [200, 0, 10, 10]})
    return replace(write_coco(tmp_path_factory.mktemp("bare"), images, objects, []), captions=None)


@pytest.fixture(scope="module")
def written(tmp_path_factory, bare: CocoSource, data_config: Config) -> Path:
    out = tmp_path_factory.mktemp("written") / "data"
    prepare(bare, out, data_config, run_here)
    return out


def _rows(folder: Path) -> list[dict]:
    manifest = load_manifest(folder)
    tables = (table for split in ("train", "validation", "test") for table in read_split(folder, manifest, split))
    return [row for table in tables for row in table.to_pylist()]


def test_every_image_has_several_captions_that_hold(written: Path) -> None:
    rows, classes = _rows(written), load_manifest(written)["classes"]
    assert len(rows) == 27
    named = NamedClasses(classes)
    for row in rows:
        assert 2 <= len(row["captions"]) == len(set(row["captions"])) <= 5, row["captions"]
        for caption, tokens in zip(row["captions"], row["tokens"], strict=True):
            assert 0 < len(tokens.split()) <= 8, "data.max_words"
            assert re.search(r"\b(person|people|kites?)\b", caption), "by their own names: who is a man is unknown"
            assert tokens == " ".join(tokenize(caption)) and named.find(tokens.split())


def test_the_captions_are_marked_and_accounted_for(written: Path) -> None:
    manifest = load_manifest(written)
    assert manifest["source"]["captions_from"] == "classes" and "captions" not in manifest["source"]
    lines, captions = summary(manifest).splitlines(), manifest["counts"]["captions"]
    assert f"written:  {captions} captions = {captions} in shards + 0 rejected" in lines
    mark = "no caption is by a person: all are written from classes and boxes (--captions-from classes)"
    assert f"made:     {mark}" in lines
    assert not verify(written, 1).faults


def test_images_without_an_object_are_rejected_with_the_reason(written: Path) -> None:
    rejects = [reject for reject in read_rejects(written / "rejected.jsonl") if reject.kind == "image"]
    assert {reject.id: (reject.stage, reject.reason) for reject in rejects} == {
        5: ("join", "without an object"),
        6: ("pixels", "without a usable object"),
        7: ("pixels", "without a usable object"),
    }


def test_the_captions_are_the_same_after_a_stop_and_depend_on_the_settings(
    written: Path, bare: CocoSource, data_config: Config, tmp_path: Path
) -> None:
    prepare(bare, tmp_path / "again", data_config, run_here)
    for path in written.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (tmp_path / "again" / path.relative_to(written)).read_bytes()
    data = data_config.data.model_copy(update={"max_objects": 1})
    prepare(bare, tmp_path / "one", data_config.model_copy(update={"data": data}), run_here)
    texts = {caption for row in _rows(tmp_path / "one") for caption in row["captions"]}
    assert not any(" and " in text or "no " in text for text in texts), "of one object, as the model sees it"


def test_training_reads_them(written: Path, data_config: Config) -> None:
    reader = ShardReader(written, "train", frozenset({"image", "boxes", "masks"}), data_config, 8)
    assert not reader.left_out and len(reader.sample(0, 0, 0).words) > 0


def test_statements_of_the_captions_are_kept_by_the_boxes(written: Path) -> None:
    """Read by the parser that layouts are judged by."""
    manifest, read = load_manifest(written), 0
    named = NamedClasses(manifest["classes"])
    for row in _rows(written):
        objects = [index for index, crowd in enumerate(row["crowds"]) if not crowd]
        boxes = torch.tensor(row["boxes"]).reshape(-1, 4)[objects]
        labels = torch.tensor([[row["labels"][index] for index in objects]])
        layout = Layout(labels, boxes[None], torch.tensor([len(objects)]))
        for tokens in row["tokens"]:
            held = kept(read_statements(tokens.split(), named), layout)
            assert held.all(), tokens
            read += held.numel()
    assert read > 50


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["--instances", "a.json"], "--captions-from classes writes them"),
        (["--captions-from", "classes"], "give both --instances FILE"),
        (["--instances", "a.json", "--captions", "b.json", "--captions-from", "classes"], "give one of them"),
        (["--instances", "INSTANCES", "--captions-from", "classes", "--set", "data.language=de"], "written in English"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], refusal: str, bare: CocoSource, capsys, tmp_path) -> None:
    words = [str(bare.instances) if word == "INSTANCES" else word for word in words]
    assert main(["prepare", *words, "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    assert refusal in capsys.readouterr().err


def test_a_data_set_without_captions_is_refused_with_the_option(
    bare: CocoSource, data_config: Config, tmp_path: Path
) -> None:
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(InputError, match=r"has no caption; .* use --captions-from classes"):
        prepare(replace(bare, captions=captions), tmp_path / "out", data_config, run_here)


def test_strict_counts_only_what_is_lost(bare: CocoSource, data_config: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--strict: 1 rejected, the first: image 5, without an object"):
        prepare(bare, tmp_path / "out", data_config, run_here, Options(strict=True))


def test_the_command_line_names_the_same_source(bare: CocoSource) -> None:
    options = RunOptions(instances=[bare.instances, bare.instances], captions_from="classes")
    source = source_of(options)
    assert source is not None and [part.captions for part in source.parts] == [None, None]
