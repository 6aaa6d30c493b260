"""`run` from the first step to the last on data in another form than COCO's: no masks, no captions, text ids."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from objgan.generation import ObjGAN
from pipelines.__main__ import main
from pipelines.data.shards.format import load_manifest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TRAINING = "{training: {steps: 2, batch_size: 6, validation_samples: 6, checkpoint_every: 2}}"
SETTINGS = "".join(f"{stage}: {TRAINING}\n" for stage in ("encoders", "boxes", "images"))


def _detection(folder: Path) -> None:
    """40 pictures as tools for detection export them: boxes, uuid-like ids, class names with odd letters."""
    (folder / "images" / "day 1").mkdir(parents=True)
    draw, images, objects = random.Random(0), [], []
    for number in range(40):
        key = f"{number:04x}-ab/{number}"
        images.append({"id": key, "file_name": f"day 1/caf\u00e9 {number}.png", "width": 80, "height": 60})
        Image.fromarray(np.full((60, 80, 3), 6 * number, np.uint8)).save(folder / "images" / images[-1]["file_name"])
        for place in range(draw.randint(1, 3)):
            box = [draw.randint(0, 50), draw.randint(0, 40), draw.randint(8, 30), draw.randint(8, 20)]
            objects.append({"id": f"{key}:{place}", "image_id": key, "category_id": draw.choice("ab"), "bbox": box})
    categories = [{"id": "a", "name": "hard hat"}, {"id": "b", "name": "person/no-vest"}]
    content = {"images": images, "annotations": objects, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))


def test_detection_data_become_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _detection(tmp_path / "detection")
    (tmp_path / "quick.yaml").write_text(SETTINGS)
    words = ["--images", "detection/images", "--instances", "detection/instances.json", "--captions-from", "classes"]
    words += ["--set", "data.shapes=ellipse", "--out", "runs/detection", "--config", "quick.yaml"]
    assert main(["run", *words]) == 0
    steps = {path.parent.name.split("-")[0]: path.parent for path in tmp_path.glob("runs/detection/*/step.json")}
    assert steps.keys() == {"prepare", "encoders", "boxes", "images", "assemble", "evaluate", "register"}
    manifest = load_manifest(steps["prepare"] / "data")
    assert manifest["counts"]["images"] == 40 and not manifest["rejected"]["rows"]
    assert manifest["text_ids"]["rows"] == 2 + 40 + manifest["counts"]["objects"]
    skipped = json.loads((steps["evaluate"] / "measures.json").read_text())["skipped"]
    assert "data.shapes=ellipse" in skipped["shapes"]
    (one,) = ObjGAN.load(steps["assemble"] / "model", "cpu").generate(["two hard hats below a person"])
    assert one.image.shape == (64, 64, 3)
