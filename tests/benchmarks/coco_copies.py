"""The shared pictures of COCO over and over under new ids: as large a data set as a measurement wants."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COCO = Path(__file__).resolve().parents[3] / "shared" / "coco"
WHAT = ("instances", "captions")

Record = dict[str, Any]


def repeat_coco(folder: Path, images: int, megabytes: float = 0.0, times: tuple[int, int] = (1, 1)) -> int:
    """Write `images/` (links), `instances.json` and `captions.json`. Returns how many images there are.

    megabytes: as many images as make so large an instances file, instead
    times:     each object and each caption so often
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    told = {what: json.loads((COCO / "annotations" / f"{what}.json").read_text()) for what in WHAT}
    pictures = told["instances"]["images"]
    if megabytes:
        images = int(megabytes * 1e6 / len(json.dumps(told["instances"]["annotations"])) * len(pictures))
    records = [_linked(folder, number, pictures[number % len(pictures)]) for number in range(images)]
    for what, copies in zip(WHAT, times, strict=True):
        parts = defaultdict(list)
        for one in told[what]["annotations"]:
            parts[one["image_id"]].append(one)
        rows = (parts[pictures[number % len(pictures)]["id"]] * copies for number in range(images))
        with (folder / f"{what}.json").open("w") as file:
            file.write(f'{{"images": {json.dumps(records)}, "annotations": [')
            file.writelines(_numbered(rows))
            file.write(f'], "categories": {json.dumps(told["instances"]["categories"])}}}')
    return images


def _linked(folder: Path, number: int, picture: Record) -> Record:
    place = folder / "images" / f"{number:08d}.jpg"
    if not place.exists():
        place.symlink_to(COCO / "images" / picture["file_name"])
    return {"id": number + 1, "file_name": place.name, "width": picture["width"], "height": picture["height"]}


def _numbered(rows: Iterator[list[Record]]) -> Iterator[str]:
    """What belongs to one image after the other, with ids of its own."""
    count = 0
    for image, row in enumerate(rows, 1):
        for one in row:
            yield (", " if count else "") + json.dumps({**one, "id": count, "image_id": image})
            count += 1
