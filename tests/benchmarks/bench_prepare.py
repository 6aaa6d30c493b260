"""`prepare` on genuine COCO pictures, beside the best plain loop of one process that does the same to the pixels.

python -m tests.benchmarks.run --only prepare                  3,000 images, and the libraries that were tried
python -m tests.benchmarks.bench_prepare --images 10000        the whole: rate from first to last shard, efficiency
python -m tests.benchmarks.bench_prepare --memory 10000 100000 peak memory of both, object store apart
python -m tests.benchmarks.bench_prepare --json 450            peak memory and rate of reading 450 MB of instances
python -m tests.benchmarks.bench_prepare --linear 1000         seconds at 1, 3 and 10 times so many images, ...
"""

import argparse
import io
import json
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pycocotools.mask as coco_mask
import torch
from PIL import Image

from objgan.vocabulary import tokenize
from tests.benchmarks.coco_copies import COCO, repeat_coco
from tests.benchmarks.measure import Measurement
from tests.benchmarks.prepare_limits import HERE, command, ingest_command, linear, peak_memory, processor_times

SIZE = 256
QUICK = 3000
LOOPED = 1000
REPEATS = 3


def bench_prepare(scratch: Path) -> Iterator[Measurement]:
    """The loop, then prepare on Ray; nothing where there is no genuine COCO."""
    if COCO.is_dir():
        yield from measure(scratch, QUICK)


def measure(scratch: Path, images: int) -> Iterator[Measurement]:
    """The plain loop over at most 1,000 images, before and after the command, which takes all; its best counts.

    By the clock on a machine that does nothing else; the processors' time compares on a busy one, too.
    """
    coco, cores = scratch / f"coco-{images}", len(os.sched_getaffinity(0))
    repeat_coco(coco, images)
    looped = min(images, LOOPED)
    loops = [plain_loop(coco, looped) for _ in range(REPEATS)]
    done = run_prepare(coco, scratch / f"out-{images}")
    loops.append(plain_loop(coco, looped))
    seconds = sorted(clock for clock, _ in loops)
    note = f"{looped / min(cpu for _, cpu in loops):.0f} images a second of a processor's time"
    yield Measurement(
        f"plain loop, one process, {SIZE} px",
        seconds[len(seconds) // 2],
        seconds[0],
        len(seconds),
        looped,
        "images",
        note,
    )
    together = loops_together(coco, looped, cores)
    yield Measurement(f"{cores} such loops at once", together, together, 1, cores * looped, "images")
    ideal = seconds[0] / looped / cores
    by_cpu = min(cpu for _, cpu in loops) / looped / (done.cpu / done.images)
    shares = ideal * done.images / done.seconds, together / (cores * looped) * done.images / done.seconds, by_cpu
    told = "{:.0%} of {} x the loop's best, {:.0%} of the loops at once; {:.0%} by processors' time, {:.0%} idle"
    note = told.format(shares[0], cores, *shares[1:], done.idle)
    name = f"prepare, first to last shard of {images} images"
    yield Measurement(name, done.seconds, done.seconds, 1, done.images, "images", note)


def plain_loop(coco: Path, images: int) -> tuple[float, float]:
    """Seconds, and seconds of processor time: read, decode, resize, encode, masks, tokens.

    Annotations are in memory, nothing is checked or kept.
    """
    torch.set_num_threads(1)
    instances, captions = (json.loads((coco / f"{what}.json").read_text()) for what in ("instances", "captions"))
    objects, texts = defaultdict(list), defaultdict(list)
    for one in instances["annotations"]:
        objects[one["image_id"]].append(one)
    for one in captions["annotations"]:
        texts[one["image_id"]].append(one["caption"])
    for image in instances["images"][:20]:
        _plain(coco / "images" / image["file_name"], image, objects[image["id"]], texts[image["id"]])
    began, cpu = time.perf_counter(), time.process_time()
    for image in instances["images"][:images]:
        _plain(coco / "images" / image["file_name"], image, objects[image["id"]], texts[image["id"]])
    return time.perf_counter() - began, time.process_time() - cpu


def loops_together(coco: Path, images: int, cores: int) -> float:
    """Seconds of a loop over so many images in each of so many processes: what the cores can do with all at work."""
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        list(pool.map(plain_loop, [coco] * cores, [20] * cores))
        return max(clock for clock, _ in pool.map(plain_loop, [coco] * cores, [images] * cores))


def _plain(path: Path, image: dict[str, Any], objects: list[dict[str, Any]], texts: list[str]) -> None:
    with Image.open(io.BytesIO(path.read_bytes())) as file:
        file.load()
        upright = file if file.mode == "RGB" else file.convert("RGB")
    pixels = torch.from_dlpack(pa.array(upright).values).view(1, upright.height, upright.width, 4)
    wide = pixels.permute(0, 3, 1, 2)
    square = torch.nn.functional.interpolate(wide, (SIZE, SIZE), mode="lanczos", antialias=True)[0, :3]
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


@dataclass(frozen=True)
class Done:
    """Images of all shards but the first of each core (a worker's first shard holds its start), the seconds from the
    first of these to the last by the clock of the disk, those of all the command's processes on the processors, and the
    share of all processors' time in which they idled.
    """

    images: int
    seconds: float
    cpu: float
    idle: float


def run_prepare(coco: Path, out: Path) -> Done:
    """Run the command, and look what it did."""

    def shards() -> dict[Path, int]:
        manifest = json.loads((out / "manifest.json").read_text())
        return {out / shard["name"]: shard["rows"] for shard in manifest["shards"]}

    return run_shards(command(coco, out), shards)


def run_shards(words: Sequence[str], shards: Callable[[], dict[Path, int]]) -> Done:
    """Run a command that writes shards. shards: the files, and the images of each, when it has ended."""
    process = subprocess.Popen(words, cwd=HERE, stdout=subprocess.DEVNULL)
    looks: list[tuple[float, dict[int, float], float]] = []
    while process.poll() is None:
        machine = psutil.cpu_times()
        looks.append((time.time(), processor_times(process.pid), machine.idle + machine.iowait))
        time.sleep(1.0)
    written = sorted((path.stat().st_mtime, rows) for path, rows in shards().items())
    cores = len(os.sched_getaffinity(0))
    (first, _), (last, _) = written[cores - 1], written[-1]
    inside = [look for look in looks if first <= look[0] <= last]
    if len(inside) < 2:
        raise RuntimeError("too few images: it was over at once")
    (since, before, idle), (until, after, idler) = inside[0], inside[-1]
    cpu = sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())
    idled = (idler - idle) / (until - since) / (psutil.cpu_count() or 1)
    share = (last - first) / (until - since)
    return Done(sum(count for _, count in written[cores:]), last - first, cpu * share, idled)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bench_prepare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--images", type=int, metavar="N", help="rate of N images")
    parser.add_argument("--memory", type=int, nargs="+", default=[], metavar="N", help="peak memory of N images each")
    parser.add_argument("--json", type=float, metavar="MB", help="reading an instances file of so many megabytes")
    parser.add_argument("--linear", type=int, metavar="N", help="seconds at 1, 3 and 10 times N images, without pixels")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="for the data (default: the system's own)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for one in measure(Path(scratch), options.images) if options.images else ():
            print(f"{one.name}: {one.items / one.fastest:.1f} images/s  {one.note}", flush=True)
        for images in options.memory:
            coco = Path(scratch) / f"memory-{images}"
            repeat_coco(coco, images)
            print(f"{images} images: {peak_memory(command(coco, Path(scratch) / f'out-{images}'))} MB", flush=True)
        if options.json:
            coco = Path(scratch) / "json"
            repeat_coco(coco, 0, options.json)
            size = (coco / "instances.json").stat().st_size / 1e6
            print(f"{size:.0f} MB of JSON: {peak_memory(ingest_command(coco))} MB", flush=True)
        for line in linear(Path(scratch), options.linear) if options.linear else ():
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
