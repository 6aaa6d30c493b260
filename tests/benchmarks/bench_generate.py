"""`generate --captions` beside a plain loop of `model.generate`, and its memory as captions become more.

python -m tests.benchmarks.run --only generate                   600 captions
python -m tests.benchmarks.bench_generate --captions 100000      rate from first to last shard, and efficiency
python -m tests.benchmarks.bench_generate --memory 10000 100000  peak memory of both, object store apart
python -m tests.benchmarks.bench_generate --memory 10000 100000 --every 100   a picture in every 100th row alone
python -m tests.benchmarks.bench_generate --killed 2000 --shard-rows 50       killed five times and resumed
python -m tests.benchmarks.bench_generate --here 300 1200        both without Ray: processors' time, and peak memory
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow.parquet as pq
import torch

from objgan.generation import ObjGAN
from objgan.picture import png
from pipelines.generation.bulk import BulkJob, generate_shards, open_bulk, run_here
from tests.benchmarks.bench_prepare import run_shards
from tests.benchmarks.measure import Measurement
from tests.benchmarks.prepare_limits import HERE, peak_memory
from tests.tools.untrained import write_model

QUICK, LOOPED, SHARD = 600, 300, 100
KILLS = 5
UNKNOWN = "xyzzy"
"""No word of the model: a row without a picture, which costs no time."""
TEXTS = ("two red kites above a boat", "a stop sign", "the boat on the sea", "a kite above the red boat on the sea")


def bench_generate(scratch: Path) -> Iterator[Measurement]:
    """The loop, then the command."""
    yield from measure(scratch, QUICK, SHARD)


def measure(scratch: Path, captions: int, shard: int) -> Iterator[Measurement]:
    """The plain loop over at most 300 captions, before and after the command, which takes all; its best counts.

    By the clock on a machine that does nothing else; the processors' time compares on a busy one, too.
    """
    model, cores = write_model(scratch / "model"), len(os.sched_getaffinity(0))
    looped = min(captions, LOOPED)
    loops = [plain_loop(model, looped) for _ in range(2)]
    out = scratch / f"out-{captions}"

    def shards() -> dict[Path, int]:
        manifest = json.loads((out / "manifest.json").read_text())
        return {out / shard["name"]: shard["pictures"] for shard in manifest["shards"]}

    done = run_shards(command(model, write_captions(scratch, captions), out, shard), shards)
    loops.append(plain_loop(model, looped))
    seconds = sorted(clock for clock, _ in loops)
    cpu = min(cpu for _, cpu in loops) / looped
    note = f"{1 / cpu:.1f} pictures a second of a processor's time"
    yield Measurement("plain loop, one process", seconds[1], seconds[0], len(loops), looped, "pictures", note)
    clock, at_once = loops_together(model, looped, cores)
    name = f"{cores} such loops at once"
    yield Measurement(name, clock, clock, 1, cores * looped, "pictures", f"{1 / at_once:.1f} of a processor's time")
    rate = done.images / done.seconds
    shares = rate * seconds[0] / looped / cores, rate * clock / looped / cores
    text = (
        "{:.0%} of {} x the loop's best by the clock, {:.0%} of the loops at once; by processors' time {:.0%}, {:.0%}"
    )
    by_cpu = (each * done.images / done.cpu for each in (cpu, at_once))
    note = text.format(shares[0], cores, shares[1], *by_cpu) + f"; {done.idle:.0%} idle"
    name = f"generate, first to last shard of {captions} captions"
    yield Measurement(name, done.seconds, done.seconds, 1, done.images, "pictures", note)


def plain_loop(folder: Path, captions: int) -> tuple[float, float]:
    """Seconds, and seconds of processor time, of pictures and their layouts, made one after another on one thread."""
    torch.set_num_threads(1)
    model = ObjGAN.load(folder, device="cpu")
    model.generate(TEXTS)
    began, cpu = time.perf_counter(), time.process_time()
    for number in range(captions):
        (made,) = model.generate([TEXTS[number % len(TEXTS)]])
        png(made.image), made.layout_json(model.domain.classes)
    return time.perf_counter() - began, time.process_time() - cpu


def loops_together(folder: Path, captions: int, cores: int) -> tuple[float, float]:
    """Seconds of the slowest, and of processor time a picture, of a loop on each core: what all of them can do."""
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        loops = list(pool.map(plain_loop, [folder] * cores, [captions] * cores))
    return max(clock for clock, _ in loops), sum(cpu for _, cpu in loops) / captions / cores


def shards_here(scratch: Path, captions: int, shard: int | None) -> tuple[float, float]:
    """Seconds of processor time of the same work as shards, in this process; and its peak memory in MB."""
    torch.set_num_threads(1)
    columns = dict.fromkeys(("caption", "layout", "id"))
    file, out = write_captions(scratch, captions), scratch / f"here-{captions}"
    job = BulkJob(scratch / "model", file, out, columns, shard_rows=shard, device="cpu")
    opened = open_bulk(job)
    cpu = time.process_time()
    generate_shards(opened, run_here)
    return time.process_time() - cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare_here(scratch: Path, captions: int, shard: int | None) -> str:
    """A line: both in processes of their own, one after the other."""
    model = write_model(scratch / "model")
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        looped = pool.submit(plain_loop, model, min(captions, LOOPED)).result()[1] / min(captions, LOOPED)
        cpu, memory = pool.submit(shards_here, scratch, captions, shard).result()
    rates = 1 / looped, captions / cpu
    text = (
        "{} captions: plain loop {:.1f}, shards {:.1f} pictures a second of a processor's time ({:.0%}); peak {:.0f} MB"
    )
    return text.format(captions, *rates, rates[1] / rates[0], memory)


def killed(scratch: Path, captions: int, shard: int | None) -> str:
    """A line: the command killed by SIGKILL five times, each after further shards, and resumed; what is in its shards.

    Raises:
        RuntimeError: a row is lost or doubled, a shard was made twice, or the command failed.
    """
    out = scratch / f"killed-{captions}"
    words = command(write_model(scratch / "model"), write_captions(scratch, captions), out, shard)
    before: dict[Path, int] = {}
    counts = []
    for _ in range(KILLS):
        process = subprocess.Popen(words, cwd=HERE, stdout=subprocess.DEVNULL)
        while len(_finished(out)) < len(before) + 2 and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        if process.wait() != -signal.SIGKILL:
            raise RuntimeError(f"{words} ended with {process.returncode} before it was killed: give more captions")
        before = _unchanged(before, out)
        counts.append(len(before))
    subprocess.run(words, cwd=HERE, stdout=subprocess.DEVNULL, check=True)
    shards = _unchanged(before, out)
    rows = [row for path in sorted(shards) for row in pq.read_table(path, columns=["row"])["row"].to_pylist()]
    if rows != list(range(captions)):
        raise RuntimeError(f"{captions} captions, {len(rows)} rows, {len(set(rows))} of them different")
    text = "{} captions in {} shards, killed when {} were finished: every row is there once, no shard was made twice"
    return text.format(captions, len(shards), ", ".join(map(str, counts)))


def _finished(out: Path) -> dict[Path, int]:
    """The shards, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("pictures/part-*")}


def _unchanged(before: dict[Path, int], out: Path) -> dict[Path, int]:
    """The shards of now, which have those of before among them."""
    now = _finished(out)
    if not before.items() <= now.items():
        raise RuntimeError("a finished shard is lost or was made again")
    return now


def write_captions(scratch: Path, captions: int, every: int = 1) -> Path:
    """A file with that number of captions; only those of every `every`-th row become pictures."""
    path = scratch / f"captions-{captions}.txt"
    lines = (UNKNOWN if number % every else TEXTS[number // every % len(TEXTS)] for number in range(captions))
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def command(model: Path, captions: Path, out: Path, shard: int | None) -> list[str]:
    """`generate` of all captions, on all cores."""
    words = [sys.executable, "-m", "pipelines", "generate", "--model", str(model), "--captions", str(captions)]
    words += ["--out", str(out), "--device", "cpu"]
    return words + ([] if shard is None else ["--shard-rows", str(shard)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bench_generate", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--captions", type=int, metavar="N", help="rate of N captions")
    parser.add_argument("--memory", type=int, nargs="+", default=[], metavar="N", help="peak memory of N captions each")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="for --memory: rows of a picture (default: 1)"
    )
    parser.add_argument("--killed", type=int, metavar="N", help=f"N captions, killed {KILLS} times and resumed")
    parser.add_argument("--shard-rows", type=int, metavar="N", help="captions of a shard (default: the command's own)")
    parser.add_argument("--here", type=int, nargs="+", default=[], metavar="N", help="N captions each, without Ray")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for result in measure(scratch, options.captions, options.shard_rows) if options.captions else ():
            print(f"{result.name}: {result.items / result.fastest:.1f} pictures/s  {result.note}", flush=True)
        for captions in options.here:
            print(compare_here(scratch, captions, options.shard_rows), flush=True)
        for captions in options.memory:
            words = command(
                write_model(scratch / "model"),
                write_captions(scratch, captions, options.every),
                scratch / f"memory-{captions}",
                options.shard_rows,
            )
            print(f"{captions} captions: {peak_memory(words)} MB", flush=True)
        if options.killed:
            print(killed(scratch, options.killed, options.shard_rows), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
