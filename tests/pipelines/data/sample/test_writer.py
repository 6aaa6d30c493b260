import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from objgan.attributes import COLOURS, SCENES
from objgan.errors import InputError
from pipelines.data.sample import make_sample, writer
from pipelines.data.sample.kinds import PALETTE
from pipelines.data.sample.scenes import build_scene
from pipelines.data.sample.writer import CATEGORY_IDS
from tests.tools.local_cluster import wait_until

COUNT, SEED, SIDE = 50, 4, 64


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample") / "out"
    make_sample(out, COUNT, SEED, side=SIDE)
    return out


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _load(folder: Path, name: str) -> Any:
    return json.loads((folder / "annotations" / f"{name}.json").read_text())


def test_same_arguments_same_bytes(sample: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "again", COUNT, SEED, side=SIDE)
    assert _bytes(tmp_path / "again") == _bytes(sample)


def test_processes_draw_the_same_bytes(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_FEW", 0)
    monkeypatch.setattr(writer, "available_cores", lambda: 2)
    make_sample(tmp_path / "out", COUNT, SEED, side=SIDE)
    assert _bytes(tmp_path / "out") == _bytes(sample)


def test_drawing_processes_end_with_a_killed_parent(tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "sample", "--out", str(tmp_path / "out"), "--images", "3000"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    parent = subprocess.Popen(command, cwd=repository, env=environment, stdout=subprocess.DEVNULL)
    wait_until(lambda: len(list(tmp_path.glob("out/images/*.jpg"))) > 3, 60, "the first images")
    children = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert len(children) > 1 and not alive


def test_an_image_does_not_depend_on_the_count(sample: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "few", 7, SEED, side=SIDE)
    many = _bytes(sample)
    few = _bytes(tmp_path / "few")
    assert sum(name.startswith("images") for name in few) == 7
    assert all(many[name] == data for name, data in few.items() if name.startswith("images"))
    for name in ("instances", "captions"):
        ours = _load(tmp_path / "few", name)["annotations"]
        assert ours == _load(sample, name)["annotations"][: len(ours)]


def test_the_files_are_coco(sample: Path) -> None:
    instances, captions = _load(sample, "instances"), _load(sample, "captions")
    assert {"info", "licenses", "images", "annotations", "categories"} == set(instances)
    assert len(instances["categories"]) == 80
    assert instances["categories"][0] == {"supercategory": "person", "id": 1, "name": "person"}
    assert instances["categories"][-1] == {"supercategory": "indoor", "id": 90, "name": "toothbrush"}
    assert instances["images"] == captions["images"] and len(captions["annotations"]) == 5 * COUNT
    for entry in instances["images"]:
        with Image.open(sample / "images" / entry["file_name"]) as image:
            assert image.format == "JPEG" and image.mode == "RGB" and image.size == (entry["width"], entry["height"])
    for data in (instances, captions):
        ids = [a["id"] for a in data["annotations"]]
        assert len(ids) == len(set(ids))
        assert {a["image_id"] for a in data["annotations"]} <= {i["id"] for i in data["images"]}
    assert {a["category_id"] for a in instances["annotations"]} <= {c["id"] for c in instances["categories"]}


def test_attributes_are_those_of_the_drawn_scenes(sample: Path) -> None:
    instances = _load(sample, "instances")
    of_image: dict[int, list[tuple[int, str | None]]] = {image["id"]: [] for image in instances["images"]}
    for entry in instances["annotations"]:
        colour = entry.get("attributes", {}).get("colour")
        assert ("attributes" in entry) == (colour in COLOURS)
        of_image[entry["image_id"]].append((entry["category_id"], colour))
    for index, image in enumerate(instances["images"]):
        scene = build_scene(SEED, index, SIDE)
        assert image["scene"] == scene.background in SCENES
        drawn = [
            (CATEGORY_IDS[group.kind], group.colour)
            for group in scene.groups
            for _ in range(1 if group.crowd else group.count)
        ]
        assert of_image[image["id"]] == drawn
    colours = {colour for found in of_image.values() for _, colour in found}
    assert None in colours and len(colours) > 5 and tuple(PALETTE) == COLOURS


def test_area_and_box_agree_with_the_mask(sample: Path) -> None:
    instances = _load(sample, "instances")
    sizes = {i["id"]: (i["height"], i["width"]) for i in instances["images"]}
    for entry in instances["annotations"]:
        segmentation = entry["segmentation"]
        assert isinstance(segmentation, dict) == (entry["iscrowd"] == 1)
        encoded = coco_mask.frPyObjects(segmentation, *sizes[entry["image_id"]])
        encoded = coco_mask.merge(encoded) if isinstance(encoded, list) else encoded
        mask = coco_mask.decode(encoded)
        assert entry["area"] == mask.sum() > 0
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])
        assert np.allclose(entry["bbox"], box, atol=1.01)


def test_there_are_crowds_and_multi_part_polygons(tmp_path: Path) -> None:
    make_sample(tmp_path / "s", 150, 1, side=48)
    entries = _load(tmp_path / "s", "instances")["annotations"]
    crowds = [e for e in entries if e["iscrowd"]]
    assert crowds and all(set(e["segmentation"]) == {"size", "counts"} for e in crowds)
    assert any(len(e["segmentation"]) > 1 for e in entries if not e["iscrowd"])


def test_a_finished_sample_is_left_alone(sample: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in sample.rglob("*")}
    make_sample(sample, COUNT, SEED, side=SIDE, progress=lambda *_: pytest.fail("drew again"))
    assert {p: p.stat().st_mtime_ns for p in sample.rglob("*")} == before


def test_an_interrupted_sample_is_written_again(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Killed(Exception):
        pass

    def kill(done: int, _total: int) -> None:
        if done == 20:
            raise Killed

    with pytest.raises(Killed):
        make_sample(out, COUNT + 40, SEED, side=SIDE, progress=kill)
    assert not (out / "sample.json").exists()
    steps: list[tuple[int, int]] = []
    make_sample(out, 10, SEED, side=SIDE, progress=lambda *step: steps.append(step))
    assert steps == [(n, 10) for n in range(1, 11)]
    assert len(list((out / "images").iterdir())) == 10
    (out / "sample.json").unlink()
    make_sample(out, COUNT, SEED, side=SIDE)
    assert _bytes(out) == _bytes(sample)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 0}, "the number of images is 0; give at least 1"),
        ({"images": 3, "seed": -1}, "the seed is -1; give 0 or more"),
        ({"images": 3, "side": 8}, "the side is 8 pixels; give at least 32"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make_sample(tmp_path / "out", **{"seed": 0, **arguments})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_another_sample_is_refused(sample: Path) -> None:
    with pytest.raises(
        InputError, match=rf"holds another sample \(images {COUNT}, seed {SEED}.*wanted images 3, seed 9"
    ):
        make_sample(sample, 3, 9, side=SIDE)


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "images" / "000000000001.jpg"
    theirs.parent.mkdir()
    theirs.write_bytes(b"precious")
    with pytest.raises(InputError, match="is not empty and holds no sample"):
        make_sample(tmp_path, 2, 0, side=SIDE)
    assert theirs.read_bytes() == b"precious"
    with pytest.raises(InputError, match="is a file"):
        make_sample(theirs, 2, 0)
