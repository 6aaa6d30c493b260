"""A step of stage `images`: seconds and memory at published sizes, and how its time goes with objects and classes."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from objgan.config import Config
from objgan.runtime import autocast_dtype, prepare_networks
from objgan.sections import ComputeConfig
from objgan.training import StepContext, train_step
from pipelines.recipes import resolve
from tests.benchmarks.measure import Measurement, time_calls
from tests.benchmarks.paper_step import Scenes, drawn_batch, drawn_state

REPOSITORY = Path(__file__).resolve().parents[2]
SIDE = 2048
PAPER_STEPS = 3
RECIPES = ("paper", "fast")
COMPUTE = {
    "as it is": ComputeConfig(),
    "channels_last": ComputeConfig(channels_last="on"),
    "bfloat16": ComputeConfig(precision="bfloat16"),
    "compile": ComputeConfig(compile=True),
}


def bench_paper(scratch: Path) -> Iterator[Measurement]:
    """Each recipe in a process of its own: seconds a step, the share of a matrix product's rate, peak memory."""
    for recipe in RECIPES:
        command = [sys.executable, "-m", "tests.benchmarks.bench_images", recipe]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        seconds = sorted(found["seconds"])
        rate = found["flop"] / seconds[0]
        note = (
            f"{rate / 1e9:.0f} GFLOP/s, {rate / found['product']:.2f} of the {found['product'] / 1e9:.0f} of a product "
            f"of {SIDE} x {SIDE} matrices; at its rate {found['flop'] / found['product']:.1f} s; "
            f"peak memory {found['peak'] / 1e9:.2f} GB"
        )
        middle = seconds[len(seconds) // 2]
        yield Measurement(
            f"{recipe}: a step of 2 samples, 256 px", middle, seconds[0], len(seconds), 2, "samples", note
        )


def bench_scaling(scratch: Path) -> Iterator[Measurement]:
    """Recipe `small`, 2 samples: 1 and 10 objects, 10 and 1,000 classes; the times should agree within 15 %."""
    yield from _compared({"1 object": Scenes(2, 0, 1), "10 objects": Scenes(2, 5, 5)})
    yield from _compared({"10 classes": Scenes(2, 3, 3, 10), "1,000 classes": Scenes(2, 3, 3, 1000)})


def bench_runtime(scratch: Path) -> Iterator[Measurement]:
    """Recipe `tiny`, 8 samples: memory format, number type and compilation, against none of them."""
    config, scenes, plain = resolve("tiny", None, []), Scenes(8), 0.0
    for name, compute in COMPUTE.items():
        began = time.perf_counter()
        step = _stepper(config, scenes, compute)
        step()
        first = time.perf_counter() - began
        measured = time_calls(f"tiny, 8 samples: {name}", step, 8, "samples")
        plain = plain or measured.fastest
        ratio = f"{measured.fastest / plain:.2f} of the first row's time; first step after {first:.0f} s"
        yield replace(measured, note=ratio)


def _compared(cases: dict[str, Scenes]) -> Iterator[Measurement]:
    """The cases' steps in turn, so that what else the machine does falls on both."""
    config = resolve("small", None, ["images.training.gradient_penalty=0"])
    steps = {name: _stepper(config, scenes) for name, scenes in cases.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(9):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    first = min(next(iter(seconds.values())))
    for name, found in seconds.items():
        ordered = sorted(found)
        note = f"{ordered[0] / first:.2f} of the time with {next(iter(cases))}"
        yield Measurement(
            f"small, 2 samples: {name}", ordered[len(ordered) // 2], ordered[0], len(ordered), 2, "samples", note
        )


def _stepper(config: Config, scenes: Scenes, compute: ComputeConfig | None = None) -> Callable[[], object]:
    compute, device = compute or ComputeConfig(), torch.device("cpu")
    state = drawn_state(config, scenes, lambda stage: prepare_networks(stage, compute, device))
    batch = drawn_batch(config, scenes)
    context = StepContext(seed=0, precision=autocast_dtype(compute, device))
    return lambda: train_step(state, batch, context)


def measure_paper(recipe: str) -> dict[str, object]:
    """In this process: seconds of steps, operations of one, the matrix product's rate, and the peak memory (bytes)."""
    step = _stepper(resolve(recipe, None, []), Scenes())
    seconds, product = [], 0.0
    for _ in range(PAPER_STEPS + 1):
        # In turn, so that both see the same machine.
        product = max(product, product_rate())
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with FlopCounterMode(display=False) as counter:
        step()
    return {"seconds": seconds[1:], "flop": counter.get_total_flops(), "product": product, "peak": peak}


def product_rate() -> float:
    """Operations a second of a float32 matrix product, the best of 5."""
    a, b = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    return 2 * SIDE**3 / time_calls("product", lambda: a @ b, 1, "products", repeats=5, warm_up=1).fastest


if __name__ == "__main__":
    print(json.dumps(measure_paper(sys.argv[1])))
