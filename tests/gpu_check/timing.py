"""Time, memory and rate of training steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from objgan.batch import Part
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step
from pipelines.training.step_numbers import MetricAccumulator
from tests.benchmarks.bench_flops import FORMS
from tests.benchmarks.measure import Measurement, time_calls
from tests.gpu_check.drawn import Case, Pace, moved
from tests.gpu_check.forms import Form

_SIDE = {"cuda": 8192, "cpu": 1024}
"""Of the matrices whose product is timed."""


@dataclass(frozen=True)
class Timed:
    """milliseconds of a step, samples/s, peak memory in GB (None on a CPU), operations of a step, their rate per s."""

    step_ms: float
    samples_s: float
    peak_gb: float | None
    flop: float
    flop_s: float


def finish(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def train(state: TrainState, parts: Sequence[Part], context: StepContext, steps: int) -> None:
    """Some steps on one batch from step 1 on, their results read two steps late, and the wait for the last of them."""
    state.step, accumulator = 1, MetricAccumulator()
    for _ in range(steps):
        accumulator.add(train_step(state, parts, context))
        for _numbers in accumulator.read():
            pass
    finish(state.device)


def timed_form(case: Case, form: Form, flop: float | None = None) -> Timed:
    """Steps of a stage in one form. flop: of a step, if it is known; of compiled blocks torch counts nothing."""
    return timed_state(case.state(form), moved(case.many(), case.device), form, case.pace, flop)


def timed_state(state: TrainState, parts: Sequence[Part], form: Form, pace: Pace, flop: float | None = None) -> Timed:
    """The same for a stage that was made already."""
    device, samples = state.device, sum(len(part.batch) for part in parts)
    context = StepContext(seed=0, groups=len(parts), precision=form.dtype)
    warm_up = 2 if device.type == "cuda" or form.compute.compile else 1
    for _ in range(warm_up):
        train(state, parts, context, pace.steps)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    call = lambda: train(state, parts, context, pace.steps)  # noqa: E731
    measured = time_calls(form.name, call, pace.steps * samples, "samples", pace.repeats, 0)
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    if flop is None:
        flop = flop_per_step(state, parts, context, pace.steps)
    seconds = measured.seconds / pace.steps
    return Timed(1e3 * seconds, measured.rate, peak, flop, flop / seconds)


def flop_per_step(state: TrainState, parts: Sequence[Part], context: StepContext, steps: int) -> float:
    """Operations of convolutions and products as torch counts them, the mean over steps 1 to `steps`."""
    every = max(phase.every for phase in state.stage.phases)
    counts: dict[bool, int] = {}
    for step in range(1, steps + 1):
        full = step % every == 0
        if full not in counts:
            state.step = step
            counts[full] = _count(lambda: train_step(state, parts, context))
    return sum(counts[step % every == 0] for step in range(1, steps + 1)) / steps


class _Operations(TorchDispatchMode):
    """Counts as torch's FlopCounterMode, which also asks for modules, and so cannot count a gradient penalty."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, formula = func(*args, **(kwargs or {})), flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def _count(call: Callable[[], object]) -> int:
    operations = _Operations()
    with operations:
        call()
    return operations.total


def matrix_rates(device: torch.device) -> Mapping[str, float]:
    """Operations a second of a large product, by the numbers that products are made of: `float32`, `TF32` (on a GPU)
    and `bfloat16`.
    """
    side = _SIDE[device.type]
    kinds = {"float32": ("ieee", torch.float32), "bfloat16": ("ieee", torch.bfloat16)}
    if device.type == "cuda":
        kinds["TF32"] = ("tf32", torch.float32)
    rates = {}
    for name, (precision, dtype) in kinds.items():
        before = torch.backends.cuda.matmul.fp32_precision
        torch.backends.cuda.matmul.fp32_precision = precision
        try:
            rates[name] = 2 * side**3 / _product(side, dtype, device).seconds
        finally:
            torch.backends.cuda.matmul.fp32_precision = before
    return rates


def _product(side: int, dtype: torch.dtype, device: torch.device) -> Measurement:
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        torch.mm(one, other)
        finish(device)

    return time_calls("product", multiply, 1, "products", repeats=5)


def rate_of(form: Form, rates: Mapping[str, float]) -> float:
    """The matrix rate that a form's steps could reach."""
    if form.dtype == torch.bfloat16:
        return rates["bfloat16"]
    return rates["float32" if form.compute.precision == "float32" else "TF32"]


def timed_published(case: Case, form: Form) -> dict[str, Timed]:
    """A step of stage `images` as published and as it is (`tests.benchmarks.bench_flops.FORMS`), by form.

    The case has a trunk for each object-wise discriminator.
    """
    found = {}
    for name in ("published", "A+B"):
        state = case.state(form)
        FORMS[name].adapt(state.stage.networks)
        found[name] = timed_state(state, moved(case.many(), case.device), form, case.pace)
    return found
