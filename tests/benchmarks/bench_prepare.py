"""`prepare` on genuine COCO pictures, beside the best plain loop of one process that does the same to the pixels.

python -m tests.benchmarks.run --only prepare                  600 images: under a minute
python -m tests.benchmarks.bench_prepare --images 10000        the whole: rate from first to last shard, efficiency
python -m tests.benchmarks.bench_prepare --memory 10000 100000 peak memory of both, object store apart
python -m tests.benchmarks.bench_prepare --json 450            peak memory and rate of reading 450 MB of instances
"""

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pycocotools.mask as coco_mask
import torch
from PIL import Image

from objgan.vocabulary import tokenize
from tests.benchmarks.measure import Measurement

COCO = Path(__file__).resolve().parents[3] / "shared" / "coco"
SIZE = 256
QUICK = 600
HERE = Path(__file__).resolve().parents[2]


def bench_prepare(scratch: Path) -> Iterator[Measurement]:
    """The loop, then prepare on Ray; nothing where there is no genuine COCO."""
    if COCO.is_dir():
        yield from measure(scratch, QUICK)


def measure(scratch: Path, images: int) -> list[Measurement]:
    """The plain loop over at most 1,000 images, and the command over all."""
    coco = scratch / f"coco-{images}"
    repeat_coco(coco, images)
    looped = min(images, 1000)
    seconds = plain_loop(coco, looped)
    loop = Measurement("plain loop, one process, 256 px", seconds, seconds, 1, looped, "images")
    rate = run_prepare(coco, scratch / f"out-{images}")
    cores = len(os.sched_getaffinity(0))
    note = f"{rate / (cores * loop.rate):.0%} of {cores} x the loop"
    return [
        loop,
        Measurement(f"prepare, first to last shard, {images} images", images / rate, 0.0, 1, images, "images", note),
    ]


def repeat_coco(folder: Path, images: int, megabytes: float = 0.0) -> None:
    """The shared pictures under new ids, linked; `megabytes`: as many as make so large an instances file."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    told = {what: json.loads((COCO / "annotations" / f"{what}.json").read_text()) for what in ("instances", "captions")}
    parts: dict[str, Any] = {what: defaultdict(list) for what in told}
    for what, content in told.items():
        for one in content["annotations"]:
            parts[what][one["image_id"]].append(one)
    pictures = told["instances"]["images"]
    if megabytes:
        images = int(megabytes * 1e6 / len(json.dumps(told["instances"]["annotations"])) * len(pictures))
    records = []
    for number in range(images):
        old = pictures[number % len(pictures)]
        place = folder / "images" / f"{number:08d}.jpg"
        if not place.exists():
            place.symlink_to(COCO / "images" / old["file_name"])
        records.append({"id": number + 1, "file_name": place.name, "width": old["width"], "height": old["height"]})
    for what, by_image in parts.items():
        with (folder / f"{what}.json").open("w") as file:
            file.write(f'{{"images": {json.dumps(records)}, "annotations": [')
            count = 0
            for number in range(images):
                for one in by_image[pictures[number % len(pictures)]["id"]]:
                    file.write((", " if count else "") + json.dumps({**one, "id": count, "image_id": number + 1}))
                    count += 1
            file.write(f'], "categories": {json.dumps(told["instances"]["categories"])}}}')


def plain_loop(coco: Path, images: int) -> float:
    """Seconds: read, decode, resize, encode, masks, tokens; annotations are in memory, nothing is checked or kept."""
    torch.set_num_threads(1)
    instances, captions = (json.loads((coco / f"{what}.json").read_text()) for what in ("instances", "captions"))
    objects, texts = defaultdict(list), defaultdict(list)
    for one in instances["annotations"]:
        objects[one["image_id"]].append(one)
    for one in captions["annotations"]:
        texts[one["image_id"]].append(one["caption"])
    tokenize("warm up")
    began = time.perf_counter()
    for image in instances["images"][:images]:
        _plain(coco / "images" / image["file_name"], image, objects[image["id"]], texts[image["id"]])
    return time.perf_counter() - began


def _plain(path: Path, image: dict[str, Any], objects: list[dict[str, Any]], texts: list[str]) -> None:
    with Image.open(io.BytesIO(path.read_bytes())) as file:
        file.load()
        upright = file if file.mode == "RGB" else file.convert("RGB")
    pixels = torch.from_dlpack(pa.array(upright).flatten()).view(1, upright.height, upright.width, 4)
    square = torch.nn.functional.interpolate(pixels.permute(0, 3, 1, 2), (SIZE, SIZE), mode="lanczos", antialias=True)[0, :3]
    picture = Image.fromarray(square.permute(1, 2, 0).contiguous().numpy())
    picture.save(io.BytesIO(), "JPEG", quality=95, subsampling=0)
    scale = np.array([SIZE / image["width"], SIZE / image["height"]])
    for one in objects:
        if isinstance(one["segmentation"], list):
            scaled = [(np.reshape(part, (-1, 2)) * scale).ravel() for part in one["segmentation"]]
            coco_mask.merge(coco_mask.frPyObjects(scaled, SIZE, SIZE))
        else:
            sides = one["segmentation"]["size"]
            mask = coco_mask.decode(coco_mask.frPyObjects(one["segmentation"], *sides)) * 255
            small = np.asarray(Image.fromarray(mask).resize((SIZE, SIZE), Image.Resampling.BOX)) >= 128
            coco_mask.encode(np.asfortranarray(small.astype(np.uint8)))
    for text in texts:
        tokenize(text)


def _command(coco: Path, out: Path) -> list[str]:
    files = {"images": coco / "images", "instances": coco / "instances.json", "captions": coco / "captions.json"}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    return [sys.executable, "-m", "pipelines", "prepare", "--recipe", "paper", "--out", str(out), *options]


def run_prepare(coco: Path, out: Path) -> float:
    """Images a second from first to last shard, as the command says it."""
    done = subprocess.run(_command(coco, out), cwd=HERE, capture_output=True, text=True, check=True)
    rates = re.findall(r"images, (\d+) images/s", done.stdout)
    return float(rates[-1])


def peak_memory(command: Sequence[str]) -> dict[str, float]:
    """Peak PSS in MB while a command runs: of the driver, of Ray's workers, of both; without the object store."""
    peak = {"driver": 0.0, "workers": 0.0, "both": 0.0, "seconds": 0.0}
    process, began = subprocess.Popen(command, cwd=HERE, stdout=subprocess.DEVNULL), time.monotonic()
    while process.poll() is None:
        driver, workers = _pss(process.pid), 0.0
        for child in _children(process.pid):
            if _name(child).startswith("ray::"):
                workers += _pss(child.pid)
        for name, value in (("driver", driver), ("workers", workers), ("both", driver + workers)):
            peak[name] = max(peak[name], value)
        time.sleep(0.5)
    peak["seconds"] = time.monotonic() - began
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return {name: round(value, 1) for name, value in peak.items()}


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _name(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def _pss(pid: int) -> float:
    """MB, without what is mapped of Ray's object store."""
    try:
        return sum(one.pss for one in psutil.Process(pid).memory_maps() if "/dev/shm" not in one.path) / 1e6
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bench_prepare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--images", type=int, metavar="N", help="rate of N images")
    parser.add_argument("--memory", type=int, nargs="+", default=[], metavar="N", help="peak memory of N images each")
    parser.add_argument("--json", type=float, metavar="MB", help="reading an instances file of so many megabytes")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="for the data (default: the system's own)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for one in measure(Path(scratch), options.images) if options.images else ():
            print(f"{one.name}: {one.rate:.1f} images/s  {one.note}", flush=True)
        for images in options.memory:
            coco = Path(scratch) / f"memory-{images}"
            repeat_coco(coco, images)
            print(f"{images} images: {peak_memory(_command(coco, Path(scratch) / f'out-{images}'))} MB", flush=True)
        if options.json:
            coco = Path(scratch) / "json"
            repeat_coco(coco, 0, options.json)
            print(f"{(coco / 'instances.json').stat().st_size / 1e6:.0f} MB of JSON: {peak_memory(_ingest(coco))} MB")
    return 0


def _ingest(coco: Path) -> list[str]:
    program = (
        "from pathlib import Path; from pipelines.coco import CocoSource; from pipelines.ingest import ingest; "
        f"c = Path({str(coco)!r}); ingest(CocoSource(None, c / 'instances.json', c / 'captions.json'), c / 'work')"
    )
    return [sys.executable, "-c", program]


if __name__ == "__main__":
    raise SystemExit(main())
