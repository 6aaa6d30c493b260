"""Small COCO data sets, made by hand, the shards that come of them, and an untrained model in a folder."""

import itertools
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from objgan.config import Config, build_config
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from tests.tools.ports import free_port
from tests.tools.untrained import write_model

CATEGORIES = [{"id": 44, "name": "bottle"}, {"id": 1, "name": "person"}, {"id": 38, "name": "kite"}]
WriteCoco = Callable[..., CocoSource]


@pytest.fixture(scope="session")
def data_config() -> Config:
    """Pictures of 64, masks of 32, at most 3 objects, 8 words."""
    stages = {name: {"training": {"max_words": 8}} for name in ("encoders", "boxes", "shapes", "images")}
    stages["images"]["sizes"] = (32, 64)
    data = {"image_size": 64, "mask_size": 32, "max_objects": 3, "max_words": 8, "vector_channels": 6}
    return build_config({"data": data, **stages})


@pytest.fixture(scope="session")
def write_coco() -> WriteCoco:
    """write_coco(folder, images, objects, captions, pixels=True) -> CocoSource; records as COCO has them."""
    return _write_coco


def _write_coco(
    folder: Path, images: list[dict], objects: list[dict], captions: list[dict], pixels: bool = True
) -> CocoSource:
    folder.mkdir(parents=True, exist_ok=True)
    instances = {"images": images, "annotations": objects, "categories": CATEGORIES}
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    if pixels:
        (folder / "images").mkdir(exist_ok=True)
        for image in images:
            _draw(folder / "images" / image["file_name"], image)
    return CocoSource(folder / "images" if pixels else None, folder / "instances.json", folder / "captions.json")


def _draw(path: Path, image: dict) -> None:
    """Smooth colours that differ from image to image."""
    width, height = image.get("width", 60), image.get("height", 40)
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([across, down, np.full_like(down, image["id"] * 37 % 256)], -1)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def scene(image_id: int, texts: list[str]) -> tuple[dict, list[dict], list[dict]]:
    """An image of 100 x 50 with a kite (a triangle), a person (a square) and a crowd, and its captions."""
    image = {"id": image_id, "file_name": f"{image_id:06d}.png", "width": 100, "height": 50}
    shift = image_id % 20
    boxes = ((38, [10 + shift, 5, 40, 20]), (1, [60, 10 + shift, 10, 20]))
    objects: list[dict[str, Any]] = []
    for number, (category, (x, y, w, h)) in enumerate(boxes):
        polygon = [x, y, x + w, y, x + w, y + h] + ([x, y + h] if category == 1 else [])
        objects.append(
            {
                "id": 10 * image_id + number,
                "image_id": image_id,
                "category_id": category,
                "bbox": [x, y, w, h],
                "area": w * h / (1 if category == 1 else 2),
                "iscrowd": 0,
                "segmentation": [polygon],
            }
        )
    crowd = {"id": 10 * image_id + 9, "image_id": image_id, "category_id": 1, "bbox": [0, 40, 100, 10], "iscrowd": 1}
    # Column-major runs: 40 rows of nothing, 10 of crowd, in each of the 100 columns.
    crowd |= {"area": 1000, "segmentation": {"size": [50, 100], "counts": [40, 10] * 100}}
    lines = [{"id": 100 * image_id + n, "image_id": image_id, "caption": text} for n, text in enumerate(texts)]
    return image, [*objects, crowd], lines


@pytest.fixture(scope="session")
def scenes() -> Callable[..., tuple[list[dict], list[dict], list[dict]]]:
    """scenes(number) -> images, objects, captions of that many scenes."""

    def make(number: int, start: int = 1) -> tuple[list[dict], list[dict], list[dict]]:
        parts = [
            scene(image_id, [f"A kite above person {image_id}.", "Someone flies a kite to the left of a very big tree"])
            for image_id in range(start, start + number)
        ]
        images, objects, captions = zip(*parts, strict=True)
        return list(images), [one for many in objects for one in many], [one for many in captions for one in many]

    return make


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, write_coco, scenes, data_config) -> Path:
    """40 scenes with pixels and masks, prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(write_coco(folder / "coco", *scenes(40)), folder / "data", data_config, run_here)
    return folder / "data"


@pytest.fixture(scope="session")
def prepared_boxes(tmp_path_factory, write_coco, scenes, data_config) -> Path:
    """20 scenes without pixels; every other one without any mask."""
    folder = tmp_path_factory.mktemp("prepared_boxes")
    images, objects, captions = scenes(20)
    bare = [
        {k: v for k, v in one.items() if one["image_id"] % 2 or k not in ("area", "iscrowd", "segmentation")}
        for one in objects
    ]
    source = write_coco(folder / "coco", images, bare, captions, pixels=False)
    prepare(source, folder / "data", data_config, run_here)
    return folder / "data"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """See `tests.tools.untrained.write_model`."""
    return write_model(tmp_path_factory.mktemp("finished") / "model")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[str]:
    """Address of an S3 server of these tests alone, in a process of its own."""
    pytest.importorskip("moto.server", reason="no moto[server]: install the `dev` extra")
    port = free_port()
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait_for(f"http://127.0.0.1:{port}/", server, log)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def s3(s3_server: str) -> str:
    """URI of a folder in a new bucket, with all that a client needs to know."""
    bucket = f"bucket-{next(_BUCKETS)}"
    urllib.request.urlopen(urllib.request.Request(f"http://{s3_server}/{bucket}", method="PUT")).close()
    return f"s3://id:hush@{bucket}/runs/one?endpoint_override={s3_server}&scheme=http&region=us-east-1"


_BUCKETS = itertools.count()


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounting a small file system is not permitted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
