"""Statistics compared with hand counts, and their page: one file that fetches nothing and escapes all text."""

import html.parser
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from objgan.errors import InputError
from pipelines.__main__ import main
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import Options, prepare
from pipelines.data.report.contact_sheet import card
from pipelines.data.report.counts import Survey
from pipelines.data.report.page import page
from pipelines.data.report.survey import survey
from pipelines.data.report.table import lines, numbers, pairs, quantiles, sparks
from pipelines.data.shards.format import load_manifest, read_split
from pipelines.storage.storage import Storage

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)> & "quoted" \'too\' </style>'


class _Tags(html.parser.HTMLParser):
    """Tags, attributes and text of a page, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def counted(prepared: Path) -> Survey:
    return survey(prepared, 12)


def test_counts_equal_a_count_row_by_row(prepared: Path, counted: Survey) -> None:
    manifest = load_manifest(prepared)
    rows = [
        row for split in counted.splits for table in read_split(prepared, manifest, split) for row in table.to_pylist()
    ]
    kept = [[n for n, crowd in enumerate(row["crowds"]) if not crowd] for row in rows]
    assert counted.total.images == 40 and counted.total.captions == 80
    assert counted.total.crowds == 40 and counted.total.objects == 80 == counted.total.masks
    assert {n: int(c) for n, c in enumerate(counted.objects) if c} == Counter(map(len, kept))
    labels = [[row["labels"][n] for n in objects] for row, objects in zip(rows, kept, strict=True)]
    assert counted.class_objects.tolist() == [sum(image.count(label) for image in labels) for label in range(3)]
    together = np.zeros((3, 3), int)
    for image in labels:
        for a in set(image):
            for b in set(image):
                together[a, b] += 1
    assert counted.together.tolist() == together.tolist()
    assert counted.class_images.tolist() == together.diagonal().tolist()
    words = [text.split() for row in rows for text in row["tokens"]]
    assert {n: int(c) for n, c in enumerate(counted.words) if c} == Counter(map(len, words))
    known = set(counted.words_known)
    assert counted.total.unknown == sum(word not in known for text in words for word in text)
    assert counted.total.fully_known == sum(known.issuperset(text) for text in words) < 80
    assert counted.vocabulary[counted.words_known.index("kite")] == sum(text.count("kite") for text in words)
    assert counted.areas.sum() == counted.places.sum() == 80 and sum(counted.sizes.values()) == 80


def test_one_split_alone(prepared: Path, counted: Survey) -> None:
    validation = survey(prepared, 100, splits=("validation",))
    assert validation.total.images == counted.splits["validation"].images == len(validation.samples)
    assert {sample.split for sample in validation.samples} == {"validation"}


def test_the_seed_decides_which_samples_are_drawn(prepared: Path, counted: Survey) -> None:
    ids = [sample.image_id for sample in counted.samples]
    assert len(set(ids)) == 12 and ids == [sample.image_id for sample in survey(prepared, 12).samples]
    assert ids != [sample.image_id for sample in survey(prepared, 12, seed=1).samples]
    assert survey(prepared, 0).samples == []


def test_means_medians_bars_and_pairs(counted: Survey) -> None:
    assert quantiles(np.array([0, 1, 2, 1])) == (2.0, 2, 3)
    assert quantiles(np.zeros(4, int)) == (0.0, 0, 0)
    assert sparks(np.array([0, 1, 4, 8, 0])) == " ▁▄█" and sparks(np.zeros(3, int)) == ""
    assert pairs(counted, 5) == [("kite", "person", 40)] or pairs(counted, 5) == [("person", "kite", 40)]
    text = "\n".join(lines(counted))
    assert re.search(r"all +40 +80 +80 +80 +40 ", text) and "median   2" in text


def test_the_page_is_one_file_and_fetches_nothing(counted: Survey) -> None:
    text = page(counted, "drawn")
    seen = _Tags(text)
    assert not seen.tags["script"] and not seen.tags["link"] and not seen.tags["iframe"]
    assert seen.tags["article"] == 12 and seen.tags["svg"] >= 6 + 12
    for tag, name, value in seen.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "data", "action", "poster", "srcset", "xlink:href"):
            assert value.startswith(("data:image/jpeg;base64,", "data:image/png;base64,")), (tag, name, value[:50])
    assert "url(" not in text and "@import" not in text and "http://" not in text and "https://" not in text


def test_data_without_pixels_masks_or_objects(prepared_boxes: Path, tmp_path: Path, write_coco, scenes, data_config):
    text = page(survey(prepared_boxes, 5), "drawn")
    assert "no pixels" in text
    assert "image/jpeg" not in text and _Tags(text).tags["article"] == 5
    images, _, captions = scenes(20)
    source = write_coco(tmp_path / "coco", images, [], captions)
    prepare(source, tmp_path / "data", data_config, run_here)
    bare = survey(tmp_path / "data", 3)
    assert "nothing to show" in page(bare, "drawn") and list(lines(bare))


def test_no_text_of_the_data_becomes_markup(tmp_path: Path, write_coco, scenes, data_config) -> None:
    images, objects, captions = scenes(30)
    captions = [record | {"caption": f"{EVIL} {record['caption']}"} for record in captions]
    out = tmp_path / "data"
    prepare(write_coco(tmp_path / "coco", images, objects, captions), out, data_config, run_here)
    evil = survey(out, 30)
    evil.manifest = {**evil.manifest, "classes": [f"{EVIL}{n}" for n in range(3)]}
    evil.words_known = tuple(f"{EVIL}{word}" for word in evil.words_known)
    evil.where = EVIL
    seen = _Tags(page(evil, EVIL))
    assert not seen.tags["script"] and set(seen.tags) <= {*_Tags(page(survey(out, 3), "")).tags, "img"}
    assert not [name for _, name, _ in seen.attributes if name.startswith("on")]
    assert seen.tags["style"] == 1 and seen.tags["img"] == 60
    assert any('<script>alert("x")</script>' in text for text in seen.text), "it is shown as it is"


def test_a_bucket_is_surveyed_like_a_folder(prepared: Path, counted: Survey, s3: str) -> None:
    storage = Storage(s3)
    storage.upload(prepared, "data", last="manifest.json")
    in_bucket = survey(storage.child("data").uri, 12)
    assert [sample.image_id for sample in in_bucket.samples] == [sample.image_id for sample in counted.samples]
    assert in_bucket.together.tolist() == counted.together.tolist()
    assert "hush" not in page(in_bucket, "drawn")


@pytest.mark.parametrize("content", [b"no shard", b"", None])
def test_unreadable_data_are_refused_in_one_line(prepared: Path, tmp_path: Path, content: bytes | None) -> None:
    folder = Path(shutil.copytree(prepared, tmp_path / "data"))
    shard = next(folder.glob("train-0*.arrow"))
    shard.unlink() if content is None else shard.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .*see verify") as caught:
        survey(folder, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("counts", ["", "1", "nonsense"])
def test_a_damaged_mask_is_refused_in_one_line(counted: Survey, counts: str) -> None:
    sample = counted.samples[0]
    damaged = replace(sample, masks=[counts, *sample.masks[1:]])
    with pytest.raises(InputError, match=f"image {sample.image_id} of split {sample.split} has a damaged mask"):
        card(damaged, counted.manifest["classes"], 64)


def test_unknown_labels_are_refused_in_one_line(prepared: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(prepared, tmp_path / "data"))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"classes": manifest["classes"][:1]}))
    with pytest.raises(InputError, match="see verify"):
        survey(folder, 1)


def test_parquet_is_surveyed_like_arrow(counted: Survey, tmp_path: Path, write_coco, scenes, data_config) -> None:
    source, out = write_coco(tmp_path / "coco", *scenes(40)), tmp_path / "data"
    prepare(source, out, data_config, run_here, Options(format="parquet"))
    of_parquet = {**numbers(survey(out, 12)), "data": "", "digest": ""}
    assert of_parquet == {**numbers(counted), "data": "", "digest": ""}


def test_rejects_are_shown_with_their_reasons(tmp_path: Path, write_coco, scenes, data_config) -> None:
    images, objects, captions = scenes(30)
    objects[0]["bbox"], objects[1]["category_id"] = [1, 1, -4, 0], 999
    source, out = write_coco(tmp_path / "coco", images, objects, captions), tmp_path / "data"
    prepare(source, out, data_config, run_here)
    rejecting = survey(out, 1)
    assert numbers(rejecting)["rejected"]["rows"] == 2
    text = "".join(_Tags(page(rejecting, "")).text)
    assert "its box is empty or outside the image" in text and "its category is not in the JSON" in text
    assert any("its category is not in the JSON" in line for line in lines(rejecting))


def test_pictures_have_the_shape_of_the_original(counted: Survey) -> None:
    sample = counted.samples[0]
    assert sample.width != sample.height
    wide = sample.width > sample.height
    share = f"{100 * min(sample.width, sample.height) / max(sample.width, sample.height):.2f}%"
    shape = f"width:100.00%;height:{share}" if wide else f"width:{share};height:100.00%"
    assert f'class="picture" style="{shape}"' in page(counted, "")


def test_the_command_writes_the_same_bytes_twice(prepared: Path, tmp_path: Path, capsys) -> None:
    pages = [tmp_path / "new" / name for name in ("a.html", "b.html")]
    for path in pages:
        assert main(["inspect", str(prepared), "--out", str(path), "--samples", "3"]) == 0
    output = capsys.readouterr().out
    assert "together: " in output and f"page: {pages[1]}" in output
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_stdout_has_only_the_json(prepared: Path, tmp_path: Path, capsys) -> None:
    command = ["inspect", str(prepared), "--out", str(tmp_path / "a.html"), "--samples", "0", "--json"]
    assert main([*command, "--split", "train"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["splits"]) == ["train"] and result["samples"] == [] and result["page"].endswith("a.html")
    assert result["objects_per_image"]["mean"] == 2.0 and sum(result["areas"]["counts"]) == sum(
        result["sizes"].values()
    )


def test_a_page_that_cannot_be_written_is_refused_in_one_line(prepared: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["inspect", str(prepared), "--out", str(tmp_path / "file" / "a.html")]) == 2
    assert capsys.readouterr().err.startswith("error: --out: cannot write")
