"""How `prepare` grows: peak memory of its processes, and seconds as images, objects and captions become more."""

import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.recipes import resolve
from tests.benchmarks.coco_copies import repeat_coco
from tests.tools.logged import logged

HERE = Path(__file__).resolve().parents[2]
TIMES = (1, 3, 10)


def command(coco: Path, out: Path) -> list[str]:
    """`prepare` of what `repeat_coco` wrote."""
    files = {"images": coco / "images", "instances": coco / "instances.json", "captions": coco / "captions.json"}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    return [sys.executable, "-m", "pipelines", "prepare", "--recipe", "paper", "--out", str(out), *options]


def ingest_command(coco: Path) -> list[str]:
    """Its first step alone: the JSON is read, sorted and spilled."""
    program = (
        "from pathlib import Path; from pipelines.data.prepare.source import CocoSource; "
        "from pipelines.data.prepare.ingest import ingest; "
        f"c = Path({str(coco)!r}); ingest(CocoSource(None, c / 'instances.json', c / 'captions.json'), c / 'work')"
    )
    return [sys.executable, "-c", program]


def peak_memory(words: Sequence[str]) -> dict[str, float]:
    """Peak PSS in MB while a command runs, without the object store: of the driver, of workers that convert, of both
    together; and of the processes that Ray keeps in Python for itself.
    """
    peak = dict.fromkeys(("driver", "workers", "both", "ray's own", "seconds"), 0.0)
    process, began = subprocess.Popen(words, cwd=HERE, stdout=subprocess.DEVNULL), time.monotonic()
    while process.poll() is None:
        now = {"driver": _pss(process.pid), "workers": 0.0, "ray's own": 0.0}
        for child in _children(process.pid):
            name = _name(child)
            if name.startswith("ray::"):
                now["workers" if name.startswith("ray::Map") else "ray's own"] += _pss(child.pid)
        for kind, value in (*now.items(), ("both", now["driver"] + now["workers"])):
            peak[kind] = max(peak[kind], value)
        time.sleep(1.0)
    peak["seconds"] = time.monotonic() - began
    if process.returncode:
        raise RuntimeError(f"{words} ended with {process.returncode}")
    return {name: round(value, 1) for name, value in peak.items()}


def processor_times(pid: int) -> dict[int, float]:
    """Seconds on the processors of a process and its descendants, by process id."""
    found = {}
    for process in (psutil.Process(pid), *_children(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


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


def linear(scratch: Path, images: int) -> Iterator[str]:
    """Seconds of each step, in this process and without pixels, as one of images, objects and captions becomes more.

    More images bring their objects and captions with them.
    """
    yield "| more | reading the JSON | shards | vocabulary, statistics, indices |\n| --- | --- | --- | --- |"
    _steps(scratch / "warm-up", 100, (1, 1))
    for what, grow in (("images", (1, 0, 0)), ("objects", (0, 1, 0)), ("captions", (0, 0, 1))):
        for times in TIMES:
            more, objects, captions = (times if grows else 1 for grows in grow)
            steps = _steps(scratch / f"{what}-{times}", images * more, (objects, captions))
            yield f"| {times} x {what} | {' | '.join(f'{seconds:.2f}' for seconds in steps)} |"


def _steps(folder: Path, images: int, times: tuple[int, int]) -> list[float]:
    """Seconds between what the command says; from the last shard on, all that follows."""
    repeat_coco(folder, images, times=times)
    said: list[tuple[float, str]] = []
    source = CocoSource(None, folder / "instances.json", folder / "captions.json")
    config = resolve("paper", None, [])
    with logged(lambda line: said.append((time.perf_counter(), line))):
        prepare(source, folder / "out", config, run_here)
    starts = ("prepare: reading", f"prepare: {images} images", "prepare: vocabulary", "images:")
    moments = [next(moment for moment, line in said if line.startswith(start)) for start in starts]
    return [after - before for before, after in itertools.pairwise(moments)]
