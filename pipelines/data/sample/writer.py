"""The sample as files in COCO's format, with COCO's category ids."""

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from objgan.cores import available_cores
from objgan.errors import InputError
from objgan.files import write_atomically
from pipelines.data.sample.captions import describe
from pipelines.data.sample.drawing import draw
from pipelines.data.sample.outlines import Mask, area, polygons, run_lengths
from pipelines.data.sample.relations import hull
from pipelines.data.sample.scene import Scene
from pipelines.data.sample.scenes import MINIMUM_SIDE, build_scene

Json = dict[str, Any]

_DESCRIPTION = "objgan sample: drawn scenes"
_VERSION = 2  # of the drawings and annotations: raised when the same seed would give other files
_QUALITY = 92
_FEW = 300
"""Images that are drawn sooner than further processes start."""
_INFO: Json = {
    "description": _DESCRIPTION,
    "url": "",
    "version": f"{_VERSION}.0",
    "year": 2025,
    "contributor": "objgan",
    "date_created": "2025/01/01",
}
_LICENSES: list[Json] = [{"id": 1, "name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}]

_BY_SUPERCATEGORY = {
    "person": "1 person",
    "vehicle": "2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat",
    "outdoor": "10 traffic light, 11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench",
    "animal": "16 bird, 17 cat, 18 dog, 19 horse, 20 sheep, 21 cow, 22 elephant, 23 bear, 24 zebra, 25 giraffe",
    "accessory": "27 backpack, 28 umbrella, 31 handbag, 32 tie, 33 suitcase",
    "sports": (
        "34 frisbee, 35 skis, 36 snowboard, 37 sports ball, 38 kite, 39 baseball bat, 40 baseball glove, "
        "41 skateboard, 42 surfboard, 43 tennis racket"
    ),
    "kitchen": "44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl",
    "food": (
        "52 banana, 53 apple, 54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza, 60 donut, 61 cake"
    ),
    "furniture": "62 chair, 63 couch, 64 potted plant, 65 bed, 67 dining table, 70 toilet",
    "electronic": "72 tv, 73 laptop, 74 mouse, 75 remote, 76 keyboard, 77 cell phone",
    "appliance": "78 microwave, 79 oven, 80 toaster, 81 sink, 82 refrigerator",
    "indoor": "84 book, 85 clock, 86 vase, 87 scissors, 88 teddy bear, 89 hair drier, 90 toothbrush",
}

CATEGORIES: list[Json] = [
    {"supercategory": supercategory, "id": int(number), "name": name}
    for supercategory, members in _BY_SUPERCATEGORY.items()
    for number, _, name in (member.partition(" ") for member in members.split(", "))
]
"""As in the `categories` list of an instances file, in the order of the ids."""

CATEGORY_IDS: dict[str, int] = {category["name"]: category["id"] for category in CATEGORIES}


def make_sample(
    out: Path, images: int, seed: int, *, side: int = 256, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write the sample data set: `out/images/*.jpg`, `out/annotations/{instances,captions}.json`, `out/sample.json`.

    Beyond COCO's own keys, an image has "scene" (see `objgan.attributes.SCENES`), and an object of a kind that comes in
    several colours has "attributes": {"colour": ...} (see `objgan.attributes.COLOURS`).

    The same (images, seed, side) gives the same bytes, and image k is the same whatever the number of images. Sizes
    vary around `side` pixels. A finished sample is left as it is; an unfinished one is written again. `progress` is
    called with (images done, images in all).

    Raises:
        InputError: images < 1, seed < 0, side too small, or `out` holds another sample or something else.
    """
    _check(images, seed, side)
    wanted = {"images": images, "seed": seed, "side": side, "version": _VERSION}
    if _finished(out, wanted):
        return
    write_atomically(_marker(out), json.dumps(wanted) + "\n")
    folder = out / "images"
    folder.mkdir(exist_ok=True)
    _remove_leftovers(folder, images)
    records = _Records()
    for index, drawn in enumerate(_draw_all(images, partial(_draw_one, folder, seed, side))):
        records.add(index + 1, drawn)
        if progress is not None:
            progress(index + 1, images)
    write_atomically(out / "annotations" / "instances.json", json.dumps(records.instances()))
    write_atomically(out / "annotations" / "captions.json", json.dumps(records.captions()))
    write_atomically(out / "sample.json", json.dumps(wanted) + "\n")
    _marker(out).unlink()


def _check(images: int, seed: int, side: int) -> None:
    if images < 1:
        raise InputError(f"sample: the number of images is {images}; give at least 1")
    if seed < 0:
        raise InputError(f"sample: the seed is {seed}; give 0 or more")
    if side < MINIMUM_SIDE:
        raise InputError(f"sample: the side is {side} pixels; give at least {MINIMUM_SIDE}")


def _finished(out: Path, wanted: Json) -> bool:
    """Whether `out` has the sample already; refuses a folder with other content than (a part of) a sample."""
    if out.exists() and not out.is_dir():
        raise InputError(f"sample: {out} is a file; give a folder")
    if (out / "sample.json").exists():
        content = _read(out / "sample.json")
        if content != wanted:
            other = f"({_listed(content)}; wanted {_listed(wanted)})"
            raise InputError(f"sample: {out} holds another sample {other}; remove it or choose another folder")
        return True
    if not out.exists() or not any(out.iterdir()) or _marker(out).exists():
        return False
    # It would overwrite the images of another data set: COCO's files have the same names.
    if _read(out / "annotations" / "instances.json").get("info", {}).get("description") != _DESCRIPTION:
        raise InputError(f"sample: {out} is not empty and holds no sample; choose another folder")
    return False


def _read(path: Path) -> Json:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _listed(parameters: Json) -> str:
    return ", ".join(f"{name} {value}" for name, value in parameters.items()) or "unreadable"


def _marker(out: Path) -> Path:
    """Exists while a sample is being written."""
    return out / "sample.unfinished.json"


def _remove_leftovers(folder: Path, images: int) -> None:
    names = {_file_name(index) for index in range(images)}
    for path in folder.glob("*.jpg"):
        if path.name not in names:
            path.unlink()


def _file_name(index: int) -> str:
    return f"{index + 1:012d}.jpg"


@dataclass(frozen=True)
class _Drawn:
    """What the annotation files say of an image; ids are not known yet."""

    image: Json
    captions: list[str]
    objects: list[Json]


def _draw_all(images: int, draw_one: Callable[[int], _Drawn]) -> Iterator[_Drawn]:
    """The images in their order; many are drawn on all cores."""
    processes = available_cores() if images > _FEW else 1
    if processes == 1:
        yield from map(draw_one, range(images))
        return
    # The processes end with this one, also if it is killed; Ctrl-C, which they get too, is its matter.
    with multiprocessing.get_context("spawn").Pool(processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap(draw_one, range(images))


def _draw_one(folder: Path, seed: int, side: int, index: int) -> _Drawn:
    """Write image `index` into `folder`."""
    scene, name = build_scene(seed, index, side), _file_name(index)
    draw(scene).save(folder / name, "JPEG", quality=_QUALITY)
    image = {"file_name": name, "width": scene.width, "height": scene.height, "license": 1, "scene": scene.background}
    return _Drawn(image, describe(scene, np.random.default_rng((seed, index, 3))), list(_objects(scene)))


def _objects(scene: Scene) -> Iterator[Json]:
    for number, group in enumerate(scene.groups):
        masks = [scene.masks[i] for i in scene.members(number)]
        if group.crowd:
            masks = [np.logical_or.reduce(masks)]
        known = {} if group.colour is None else {"attributes": {"colour": group.colour}}
        for mask in masks:
            yield {"category_id": CATEGORY_IDS[group.kind], **_shape(mask, group.crowd), **known}


class _Records:
    """The lists of the two annotation files, filled image by image."""

    def __init__(self) -> None:
        self._images: list[Json] = []
        self._objects: list[Json] = []
        self._sentences: list[Json] = []

    def add(self, image_id: int, drawn: _Drawn) -> None:
        self._images.append({"id": image_id, **drawn.image})
        for caption in drawn.captions:
            self._sentences.append({"id": len(self._sentences) + 1, "image_id": image_id, "caption": caption})
        for facts in drawn.objects:
            self._objects.append({"id": len(self._objects) + 1, "image_id": image_id, **facts})

    def instances(self) -> Json:
        return {**_header(), "images": self._images, "annotations": self._objects, "categories": CATEGORIES}

    def captions(self) -> Json:
        return {**_header(), "images": self._images, "annotations": self._sentences}


def _header() -> Json:
    return {"info": _INFO, "licenses": _LICENSES}


def _shape(mask: Mask, crowd: bool) -> Json:
    """Segmentation, area (square pixels), bbox (x, y, w, h in pixels) and iscrowd of a mask [height, width]."""
    height, width = mask.shape
    if crowd:
        left, top, right, bottom = (float(v) for v in hull([mask]))
        runs = run_lengths(mask)
        return {
            "segmentation": runs,
            "area": area(runs, height, width),
            "bbox": [left, top, right - left, bottom - top],
            "iscrowd": 1,
        }
    outlines = polygons(mask)
    xs, ys = [x for o in outlines for x in o[::2]], [y for o in outlines for y in o[1::2]]
    bbox = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {"segmentation": outlines, "area": area(outlines, height, width), "bbox": bbox, "iscrowd": 0}
