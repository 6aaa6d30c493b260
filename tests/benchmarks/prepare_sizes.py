"""The part of `prepare` that its driver does, by the number of images: time, and peak memory of the process.

`python -m tests.benchmarks.prepare_sizes [--images 10000 100000]` writes annotations of images without pixels (their
files are empty), lists, reads, joins, splits and plans, and stops where Ray Data would convert the first shard. The
memory of the libraries and of the sort's buffers, which 50,000 images fill, is the same for all numbers.
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.recipes import resolve

HERE = Path(__file__).resolve().parents[2]
OBJECTS, CAPTIONS, SIDE, CLASSES = 3, 2, 640, 80


class _Planned(Exception):
    """All shards are planned."""


def write_annotations(folder: Path, images: int, files: bool = True) -> CocoSource:
    """`instances.json` and `captions.json` of so many images, the same for the same number.

    files: whether `images/` has an empty file for each image
    """
    draw, place = random.Random(images), folder / "images"
    place.mkdir(parents=True)
    categories = ", ".join(f'{{"id": {number}, "name": "class {number}"}}' for number in range(1, CLASSES + 1))
    with (folder / "instances.json").open("w") as instances, (folder / "captions.json").open("w") as captions:
        instances.write('{"images": [')
        for number in range(images):
            name = f"{number:012d}.jpg"
            if files:
                (place / name).touch()
            image = f'{{"id": {number}, "file_name": "{name}", "width": {SIDE}, "height": {SIDE}}}'
            instances.write(f"{', ' if number else ''}{image}")
        instances.write('], "annotations": [')
        captions.write('{"annotations": [')
        for number in range(images * OBJECTS):
            instances.write(f"{', ' if number else ''}{_object(number, draw)}")
        for number in range(images * CAPTIONS):
            caption = f"a class {draw.randint(1, CLASSES)} beside a class {draw.randint(1, CLASSES)}"
            record = f'{{"id": {number}, "image_id": {number // CAPTIONS}, "caption": "{caption}"}}'
            captions.write(f"{', ' if number else ''}{record}")
        instances.write(f'], "categories": [{categories}]}}')
        captions.write("]}")
    return CocoSource(place if files else None, folder / "instances.json", folder / "captions.json")


def _object(number: int, draw: random.Random) -> str:
    x, y, w, h = (draw.randint(1, SIDE // 2 - 1) for _ in range(4))
    polygon = [x, y, x + w, y, x + w, y + h, x + w / 2, y + h + 0.5, x, y + h]
    return (
        f'{{"id": {number}, "image_id": {number // OBJECTS}, "category_id": {draw.randint(1, CLASSES)}, '
        f'"bbox": [{x}, {y}, {w}, {h}], "area": {w * h}, "iscrowd": 0, "segmentation": [{polygon}]}}'
    )


def plan(folder: Path) -> float:
    """Seconds of the processor until all shards of what `write_annotations` wrote are planned."""
    place = folder / "images"
    images = place if any(place.iterdir()) else None
    source = CocoSource(images, folder / "instances.json", folder / "captions.json")

    def stop(blocks: list[pa.Table], arguments: dict[str, Any]) -> Iterator[str]:
        raise _Planned

    began = time.process_time()
    try:
        prepare(source, folder / "out", resolve("paper", None, []), stop)
    except _Planned:
        return time.process_time() - began
    raise RuntimeError("nothing was planned")


def measured(images: int, scratch: Path) -> tuple[float, float]:
    """Seconds of the processor, and peak MB, of a process that plans the shards of so many images."""
    folder = scratch / str(images)
    write_annotations(folder, images)
    words = [sys.executable, "-m", "tests.benchmarks.prepare_sizes", "--folder", str(folder)]
    seconds, peak = subprocess.run(words, cwd=HERE, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(peak)


def main() -> None:
    """Print a table, or, with `--folder`, the seconds and the peak of one folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        print(plan(arguments.folder), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    print("| images | processor seconds | ms per image | peak MB | bytes per further image |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="objgan-sizes-") as scratch:
        before = None
        for images in sorted(arguments.images):
            seconds, peak = measured(images, Path(scratch))
            more = "" if before is None else f"{(peak - before[1]) * 2**20 / (images - before[0]):.0f}"
            print(f"| {images:,} | {seconds:.1f} | {1000 * seconds / images:.3f} | {peak:.0f} | {more} |", flush=True)
            before = images, peak


if __name__ == "__main__":
    main()
