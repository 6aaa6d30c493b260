"""`python -m tests.tools.chaos_data`: break `prepare` in every way we know, and look at what is left.

2,000 data sets whose every field may be missing, null, text, a float, huge or nested must be refused in one line, or
every record must be in a row or rejected, with the same bytes twice. Kills at random moments must end in the bytes of
an undisturbed run; broken inputs must be reported in clear words, with the right exit code, and every good row is kept.
A table is printed, JSON goes to runs/chaos. The cases of `FAULTS` and three kills are part of the tests
(tests/pipelines/data/prepare/test_chaos_data.py), and so are a few of the data sets
(tests/pipelines/data/prepare/test_whole_records.py).
"""

import argparse
import contextlib
import gzip
import io
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from objgan.files import write_atomically
from pipelines.__main__ import main as command
from pipelines.__main__ import parse
from pipelines.cli.coco_source import source_of
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.shards.manifest import MANIFEST
from pipelines.recipes import resolve
from pipelines.runtime.ray_session import ray_session
from tests.tools.logged import logged
from tests.tools.whole_records import run as run_whole_records

IMAGES = 24
HERE = Path(__file__).resolve().parents[2]


@dataclass
class Case:
    """A COCO data set to spoil, and the folder that it is prepared into."""

    coco: Path
    out: Path
    options: list[str] = field(default_factory=list)

    def arguments(self) -> list[str]:
        paths = {"images": "images", "instances": "instances.json", "captions": "captions.json"}
        files = [word for name, file in paths.items() for word in (f"--{name}", str(self.coco / file))]
        small = ["--recipe", "tiny", "--set", "data.image_size=64"]
        return ["prepare", "--out", str(self.out), "--vectors", "fitted", *files, *small, *self.options]

    def edit(self, what: str, change: Callable[[dict[str, Any]], None]) -> None:
        path = self.coco / f"{what}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    def object(self, **values: Any) -> None:
        """Change the first object."""
        self.edit("instances", lambda content: content["annotations"][0].update(values))

    def picture(self, data: bytes, number: int = 5) -> None:
        (self.coco / "images" / f"{number:04d}.jpg").write_bytes(data)


@dataclass(frozen=True)
class Fault:
    """How to spoil, the exit code, words that must be said, and what of each kind is rejected in the end."""

    spoil: Callable[[Case], None]
    code: int = 0
    words: str = ""
    rejected: dict[str, int] = field(default_factory=dict)
    again: int | None = None
    """Exit code of the same command once more, with the fault still there; None: not tried."""


def write_coco(folder: Path, images: int = IMAGES) -> None:
    """Smooth pictures of 120 x 90 with two objects and two captions each."""
    (folder / "images").mkdir(parents=True)
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "captions": []}
    across, down = np.meshgrid(np.linspace(0, 255, 120), np.linspace(0, 255, 90))
    for number in range(1, images + 1):
        pixels = np.stack([across, down, np.full_like(down, number * 37 % 256)], -1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:04d}.jpg")
        content["images"].append({"id": number, "file_name": f"{number:04d}.jpg", "width": 120, "height": 90})
        for part in range(2):
            x, y, w, h = 10 + number % 20 + 30 * part, 10, 30, 40
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            one = {"id": 10 * number + part, "image_id": number, "category_id": 3 + 4 * part, "bbox": [x, y, w, h]}
            content["annotations"].append({**one, "area": w * h, "iscrowd": 0, "segmentation": polygon})
            text = f'  A "kite", flying\nover tree {number}: né, {part}! '
            content["captions"].append({"id": 10 * number + part, "image_id": number, "caption": text})
    categories = [{"id": 7, "name": "tree"}, {"id": 3, "name": "kite"}, {"id": 90, "name": "ball"}]
    shared = {"images": content["images"]}
    instances = {**shared, "annotations": content["annotations"], "categories": categories}
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / "captions.json").write_text(json.dumps({**shared, "annotations": content["captions"]}))


def jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of a few kilobytes that says it is 30,000 x 30,000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _resize_first(case: Case, width: int, height: int) -> None:
    case.edit("instances", lambda content: content["images"][4].update(width=width, height=height))
    case.picture(jpeg(width, height))


def _finished(case: Case) -> None:
    code, text = attempt(case)
    assert code == 0, text


def _cut_shard(case: Case) -> None:
    _finished(case)
    path = case.out / "train-00000.arrow"
    path.write_bytes(path.read_bytes()[:-100])


def _flip_bit(case: Case) -> None:
    """In a shard of an unfinished folder: its receipt vouches for it no longer."""
    _finished(case)
    unfinish(case.out)
    path = case.out / "train-00000.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def unfinish(out: Path) -> None:
    """As if the command had been killed before its last step."""
    from pipelines.data.prepare.prepare import reopen

    reopen(out, json.loads((out / MANIFEST).read_text()))


def _newer(case: Case) -> None:
    _finished(case)
    manifest = json.loads((case.out / MANIFEST).read_text())
    (case.out / MANIFEST).write_text(json.dumps(manifest | {"schema_version": 99}))


def _gzip(case: Case) -> None:
    for what in ("instances", "captions"):
        path = case.coco / f"{what}.json"
        path.write_bytes(gzip.compress(path.read_bytes()))


def _cut(case: Case) -> None:
    path = case.coco / "instances.json"
    path.write_bytes(path.read_bytes()[:-500])


def _each(case: Case, what: str, key: str, **values: Any) -> None:
    """Change every record of a list."""
    case.edit(what, lambda content: [one.update(values) for one in content[key]] and None)


def _nested(case: Case) -> None:
    path = case.coco / "instances.json"
    path.write_text(path.read_text().replace('"iscrowd": 0', f'"iscrowd": {"[" * 100_000 + "]" * 100_000}', 1))


def _texts(case: Case) -> None:
    for what in ("instances", "captions"):
        path = case.coco / f"{what}.json"
        path.write_text(json.dumps(json.loads(path.read_text(), parse_int=str, parse_float=str)))


def _twice(content: dict[str, Any]) -> None:
    content["images"].append({**content["images"][2], "file_name": "other.jpg"})


# An image that is lost takes two objects and two captions with it.
_LOST = {"image": 1, "annotation": 2, "caption": 2}
FAULTS: dict[str, Fault] = {
    "nothing": Fault(lambda case: None, again=0),
    "truncated JPEG": Fault(lambda case: case.picture(jpeg(120, 90)[:400]), words="cannot decode", rejected=_LOST),
    "zip named .jpg": Fault(lambda case: case.picture(b"PK\3\4 zip"), words="not an image", rejected=_LOST, again=0),
    "image missing": Fault(
        lambda case: (case.coco / "images" / "0005.jpg").unlink(), words="no such file", rejected=_LOST
    ),
    "1 x 1 image": Fault(lambda case: _resize_first(case, 1, 1), rejected={"annotation": 2}),
    "12,000 x 9,000 image": Fault(lambda case: _resize_first(case, 12000, 9000)),
    "decompression bomb": Fault(lambda case: case.picture(bomb()), words="far too large", rejected=_LOST),
    "image id twice": Fault(
        lambda case: case.edit("instances", _twice), words="an earlier image record has", rejected={"image": 1}
    ),
    "annotation for no image": Fault(
        lambda case: case.object(image_id="kite"), words="not in the instances JSON", rejected={"annotation": 1}
    ),
    "unknown category": Fault(
        lambda case: case.object(category_id=12), words="its category is not in the JSON", rejected={"annotation": 1}
    ),
    "NaN in a box": Fault(
        lambda case: case.object(bbox=[float("nan"), 1, 2, 3]),
        words="bbox has null, not a number",
        rejected={"annotation": 1},
    ),
    "every number a text": Fault(_texts),
    "a blank id": Fault(lambda case: case.object(image_id=" "), words="image_id is text", rejected={"annotation": 1}),
    "an id of 30 digits": Fault(
        lambda case: case.object(image_id=10**30), words="image_id is a number that is too", rejected={"annotation": 1}
    ),
    "captions without images": Fault(lambda case: case.edit("captions", lambda content: content.pop("images"))),
    "polygons as pairs": Fault(lambda case: case.object(segmentation=[[10, 10], [30, 10], [30, 40]])),
    "every caption empty": Fault(
        lambda case: _each(case, "captions", "annotations", caption="\u200b\u00ad "), 2, "48 of them: empty caption"
    ),
    "every image's id blank": Fault(
        lambda case: _each(case, "instances", "images", id=" "), 2, "24 of them: id is text, not a whole number"
    ),
    "every category unknown": Fault(
        lambda case: _each(case, "instances", "annotations", category_id=12), 2, "its category is not in the JSON"
    ),
    "every box outside": Fault(
        lambda case: _each(case, "instances", "annotations", bbox=[500, 500, 9, 9]), 2, "48 of them: its box is empty"
    ),
    "boxes as fractions": Fault(
        lambda case: _each(case, "instances", "annotations", bbox=[0.1, 0.1, 0.5, 0.5]), words="are they fractions?"
    ),
    "boxes as corners": Fault(
        lambda case: _each(case, "instances", "annotations", bbox=[60, 50, 90, 80]), words="are they corners"
    ),
    "nested without end": Fault(_nested, 2, "nested over 64 levels"),
    "negative box": Fault(
        lambda case: case.object(bbox=[10, 10, -5, -5]), words="empty or outside", rejected={"annotation": 1}
    ),
    "RLE of the wrong size": Fault(
        lambda case: case.object(segmentation={"size": [1, 2], "counts": [1, 1]}),
        words="without a mask",
        rejected={"mask": 1},
    ),
    "truncated JSON": Fault(_cut, 2, "is not JSON"),
    "gzip JSON": Fault(_gzip),
    "no images": Fault(
        lambda case: case.edit("instances", lambda content: content.update(images=[])), 2, "an empty data set"
    ),
    "no annotations": Fault(lambda case: case.edit("instances", lambda content: content.update(annotations=[]))),
    "no captions": Fault(
        lambda case: case.edit("captions", lambda content: content.update(annotations=[])), 2, "has no caption"
    ),
    "strict": Fault(
        lambda case: (case.picture(b"x"), case.options.append("--strict")),
        2,
        "--strict: 5 rejected, the first: image 5",
    ),
    "shard cut short": Fault(_cut_shard, 2, "bytes instead of"),
    "one bit flipped": Fault(_flip_bit),
    "manifest of a newer version": Fault(_newer, 2, "schema version 99"),
    "other settings": Fault(
        lambda case: (_finished(case), case.options.extend(["--set", "data.min_count=2"])), 2, "data.min_count: 1 -> 2"
    ),
    "another format": Fault(
        lambda case: (_finished(case), case.options.extend(["--format", "parquet"])), 2, "--format: arrow -> parquet"
    ),
}


def attempt(case: Case) -> tuple[int, str]:
    """Exit code and words of the command, in this process; Ray is started unless it runs."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = command(case.arguments())
    return code, told.getvalue()


def check_fault(name: str, case: Case) -> str:
    """Spoil, prepare, look. Returns what is wrong; nothing where all is well."""
    fault = FAULTS[name]
    fault.spoil(case)
    code, text = attempt(case)
    if code != fault.code or fault.words not in text or "Traceback" in text:
        return f"exit code {code}, expected {fault.code}; it said: {text[-600:]}"
    if code == 0:
        manifest = json.loads((case.out / MANIFEST).read_text())
        lost = {kind: n for kind, n in manifest["rejected"]["kinds"].items() if n}
        if lost != fault.rejected:
            return f"rejected {lost}, expected {fault.rejected}"
        if sum(manifest["rows"].values()) != manifest["totals"]["image"] - lost.get("image", 0):
            return f"rows {manifest['rows']}"
    if fault.again is not None and attempt(case)[0] != fault.again:
        return "the same command again ended otherwise"
    return ""


def content(folder: Path) -> dict[str, bytes]:
    """Every file of the finished folder: neither a lock nor what a command says of itself meanwhile is left."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def run_process(case: Case, rows_per_shard: int = 4, ray: bool = True) -> subprocess.Popen[str]:
    """The command in a process of its own, with small shards, so that there are many moments to kill it at.

    ray: False does the same without it, which starts at once
    """
    told = f"import sys, pipelines.data.prepare.prepare as p; p.ROWS_PER_SHARD = {rows_per_shard}; "
    if ray:
        program = f"{told}from pipelines.__main__ import main; sys.exit(main({case.arguments()!r}))"
    else:
        program = f"{told}from tests.tools.chaos_data import prepare_here; prepare_here({case.arguments()!r})"
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def prepare_here(arguments: list[str]) -> None:
    """What the command does, without Ray."""
    _, options = parse(arguments)
    config = resolve(options.recipe, None, options.assignments)
    source = source_of(options)
    assert source is not None
    with logged(print):
        prepare(source, options.out, config, run_here)


def ended(process: subprocess.Popen[str]) -> int:
    """Wait for the end; exit code."""
    process.communicate(timeout=300)
    return process.returncode


def kill_driver(process: subprocess.Popen[str]) -> bool:
    """SIGKILL, and wait until Ray's processes, which are its children, have noticed and gone; False: it had ended."""
    if process.poll() is not None:
        return False
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    psutil.wait_procs(children, timeout=60)
    return True


def kill_worker(process: subprocess.Popen[str], patience: float = 60.0) -> bool:
    """SIGKILL one of its Ray workers that is at work; False: none was seen."""
    until = time.monotonic() + patience
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            for child in psutil.Process(process.pid).children(recursive=True):
                if "".join(child.cmdline()[:1]).startswith(("ray::MapBatches", "ray::MapWorker")):
                    child.kill()
                    return True
        time.sleep(0.01)
    return False


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str], patience: float = 120.0) -> None:
    """Until it is there, or the process has ended."""
    until = time.monotonic() + patience
    while not there() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)


def _kills(scratch: Path, number: int, seed: int) -> Iterator[tuple[str, str, float]]:
    write_coco(scratch / "coco", 200)
    whole = Case(scratch / "coco", scratch / "whole")
    began = time.monotonic()
    assert ended(run_process(whole)) == 0
    length, expected = time.monotonic() - began, content(whole.out)
    chance = random.Random(seed)
    for n in range(number):
        for who in ("driver", "worker"):
            case, after = Case(scratch / "coco", scratch / f"{who}-{n}"), chance.uniform(0.2, 1.0) * length
            began, process = time.monotonic(), run_process(case)
            if who == "driver":
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(after)
                killed = kill_driver(process)
                code = ended(run_process(case))
            else:
                time.sleep(chance.uniform(0.0, 0.3))
                killed = kill_worker(process)
                code = ended(process)
            wrong = "" if code == 0 else f"exit code {code}"
            wrong = wrong or ("" if content(case.out) == expected else "other bytes than an undisturbed run's")
            yield (
                f"kill -9 {who} {n} at {after:.1f} s",
                wrong or ("" if killed else "not killed"),
                time.monotonic() - began,
            )
            shutil.rmtree(case.out)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of that size, where we may mount one."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def full_disk(scratch: Path) -> str:
    """No space for the shards: exit code 1 and clear words; with space, the same command goes on."""
    write_coco(scratch / "coco", 200)
    with small_disk(scratch / "disk", "300k") as disk:
        case = Case(scratch / "coco", disk / "out")
        code, text = attempt(case)
        if code != 1 or "no space left" not in text or "Traceback" in text:
            return f"exit code {code}; it said {text[-300:]}"
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        code, text = attempt(case)
        return "" if code == 0 else f"with space: exit code {code}; it said {text[-300:]}"


def read_only(scratch: Path) -> str:
    """A mount that cannot be written: exit code 2 and clear words."""
    write_coco(scratch / "coco")
    with small_disk(scratch / "disk", "16m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        code, text = attempt(Case(scratch / "coco", disk / "out"))
    return "" if code == 2 and "cannot write to" in text else f"exit code {code}; it said {text[-300:]}"


def _faults(scratch: Path) -> Iterator[tuple[str, str, float]]:
    with ray_session():
        for name in FAULTS:
            folder, began = scratch / name.replace(" ", "-"), time.monotonic()
            write_coco(folder / "coco")
            yield name, check_fault(name, Case(folder / "coco", folder / "out")), time.monotonic() - began
        for check in (full_disk, read_only):
            folder, began = scratch / check.__name__, time.monotonic()
            folder.mkdir()
            try:
                wrong = check(folder)
            except (subprocess.CalledProcessError, FileNotFoundError):
                wrong = "not tried: mounting is not allowed here"
            yield check.__name__.replace("_", " "), wrong, time.monotonic() - began


def _whole_records(examples: int, seed: int) -> Iterator[tuple[str, str, float]]:
    """Data sets whose every field may be anything (see `tests.tools.whole_records`)."""
    began, wrong = time.monotonic(), ""
    try:
        print(run_whole_records(examples, seed).text(), flush=True)
    except Exception as error:  # whatever it is, it is a fault, and the other results are kept
        traceback.print_exc()
        wrong = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    yield f"{examples} data sets of any values", wrong, time.monotonic() - began


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    case: str
    wrong: str
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Break, print, write; 1 if anything went wrong."""
    options_ = argparse.ArgumentParser(prog="python -m tests.tools.chaos_data", description=__doc__.splitlines()[0])
    options_.add_argument("--kills", type=int, default=20, metavar="N", help="of driver and worker each (default: 20)")
    options_.add_argument("--only-kills", action="store_true", help="only kill")
    options_.add_argument(
        "--examples", type=int, default=2000, metavar="N", help="data sets of any values (default: %(default)s)"
    )
    options_.add_argument("--seed", type=int, default=0, metavar="S", help="of the moments (default: 0)")
    options_.add_argument("--out", type=Path, default=Path("runs/chaos"), metavar="DIR", help="(default: %(default)s)")
    options = options_.parse_args(arguments)
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "faults").mkdir(), (Path(scratch) / "kills").mkdir()
        results = [
            _whole_records(options.examples, options.seed),
            _faults(Path(scratch) / "faults"),
            _kills(Path(scratch) / "kills", options.kills, options.seed),
        ]
        for result in chain.from_iterable(results[2:] if options.only_kills else results):
            lines.append(Line(*result))
            print(
                f"{lines[-1].case:<36}{lines[-1].seconds:>7.1f} s  {lines[-1].wrong or 'as it should be'}", flush=True
            )
    path = options.out / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    write_atomically(path, json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    bad = [line for line in lines if line.wrong and not line.wrong.startswith("not ")]
    print(f"{len(lines) - len(bad)} of {len(lines)} as it should be; {path}")
    return 1 if bad else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
