"""The checks of one case, each a function that gives findings."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from objgan.errors import InputError
from objgan.runtime import check_compiler
from objgan.training import StepContext, train_step
from pipelines.redaction import in_a_line
from pipelines.training.step_numbers import MetricAccumulator
from tests.gpu_check import waits
from tests.gpu_check.agreement import Distance, Measured, distance, measured_step
from tests.gpu_check.checkpoint import checkpoint_fault
from tests.gpu_check.drawn import Case
from tests.gpu_check.forms import REFERENCE, ROUNDING, Form, Tolerance, forms, usual
from tests.gpu_check.loading import copies, late_reading_fault, overlap
from tests.gpu_check.noise import HostNoise
from tests.gpu_check.report import Finding, Verdict
from tests.gpu_check.timing import Timed, rate_of, timed_form, timed_published

Findings = Iterator[Finding]
_LEAST_HIDDEN = 0.8
"""Of the reading that must take place beside the steps."""
_ON_A_GPU = {
    "CPU and GPU": "the same losses and gradients in float32",
    "TF32, auto": "errors and pace of what the settings `auto` turn on, repeatable or not",
    "waits by CUDA": "torch.cuda.set_sync_debug_mode",
    "pinned copies": "from page-locked memory, and their rate",
    "peak memory": "of a step",
}


def all_checks(case: Case, compiled: bool, rates: Mapping[str, float]) -> Findings:
    """Every check of a case; a check that raises has failed, and the next one follows."""
    checks: dict[str, Callable[[], Findings]] = {
        "losses, gradients": lambda: agreement(case, compiled),
        "waits": lambda: no_waits(case),
        "checkpoint": lambda: checkpoint(case),
        "loader": lambda: loading(case),
        "time": lambda: times(case, compiled, rates),
        "published step": lambda: published(case),
    }
    for name, check in checks.items():
        yield from _guarded(case, name, check())


def on_a_gpu() -> Findings:
    """What a CPU cannot do."""
    for check, what in _ON_A_GPU.items():
        yield Finding("", "", check, "", "needs a GPU", what)


def without_compiler(case: Case) -> str | None:
    """Why torch.compile cannot work here; None: it can."""
    if case.device.type == "cuda" and not importlib.util.find_spec("triton"):
        return "torch.compile needs the package triton"
    try:
        check_compiler(case.device)
    except InputError as error:
        return str(error)
    return None


def agreement(case: Case, compiled: bool) -> Findings:
    """Every form against float32 on the same device; on a GPU float32 against the CPU's, with the CPU's noise."""
    check, reference = "losses, gradients", _measured(case, REFERENCE)
    if case.device.type == "cuda":
        with HostNoise():
            here = _measured(case, REFERENCE)
        host = _measured(replace(case, device=torch.device("cpu")), REFERENCE)
        yield _distance(case, "CPU and GPU", "float32", distance(here, host), ROUNDING)
    fault = without_compiler(case) if compiled else None
    if fault:
        yield _finding(case, check, "compiled", "left out", fault)
    for form in forms(case.device, compiled and not fault):
        yield from _guarded(case, check, _agreement(case, form, reference), form.name)


def no_waits(case: Case) -> Findings:
    """Steps in which the host waits for no GPU but where it is allowed to, the reading of results included."""
    form = usual(case.device)
    state, parts = case.state(form), case.few()
    context, accumulator = StepContext(seed=0, precision=form.dtype), MetricAccumulator()
    with waits.Watch(case.device) as watch:
        accumulator.add(train_step(state, parts, context))
    known = waits.ALLOWED | ({} if case.device.type == "cuda" else waits.IN_MAIN_MEMORY)
    unknown = sorted(watch.places.keys() - known.keys())
    texts = [f"{place} ({watch.places[place]}): {known.get(place, 'NOT ALLOWED')}" for place in sorted(watch.places)]
    yield _finding(case, "waits", form.name, "FAILED" if unknown else "ok", "; ".join(texts) or "none")
    if case.device.type != "cuda":
        return
    train_step(state, parts, context)
    state.step = 0  # all phases once more
    try:
        with waits.refused():
            for _ in range(3):
                accumulator.add(train_step(state, parts, context))
                list(accumulator.read())
    except RuntimeError as error:
        detail = f"{waits.place_of(error)}: {in_a_line(error, 120)}"
        yield _finding(case, "waits by CUDA", form.name, "FAILED", detail)
    else:
        yield _finding(case, "waits by CUDA", form.name, "ok", "none but those")


def checkpoint(case: Case) -> Findings:
    """Written while training goes on, and read back."""
    form = usual(case.device)
    with tempfile.TemporaryDirectory() as folder:
        fault = checkpoint_fault(case, form, Path(folder) / "checkpoint")
    good = "read back bit for bit" if case.device.type == "cuda" else "read back bit for bit, goes on with equal losses"
    yield _finding(case, "checkpoint", form.name, "FAILED" if fault else "ok", fault or good)


def loading(case: Case) -> Findings:
    """Reading ahead, results that arrive two steps late, pinned copies."""
    form = usual(case.device)
    found = overlap(case, form)
    compared = f"{1e3 * found.read:.1f} ms beside steps of {1e3 * found.step:.1f} ms"
    detail = f"reading for {compared}: {found.hidden:.2f} of what can be hidden is"
    verdict: Verdict = "ok" if found.hidden >= _LEAST_HIDDEN else "FAILED"
    figures: dict[str, float | None] = dict(vars(found))
    yield _finding(case, "loader beside steps", form.name, verdict, detail, figures)
    fault = late_reading_fault(case, form)
    good = "as if waited for, two steps late" if case.device.type == "cuda" else "as if waited for, at once on a CPU"
    yield _finding(case, "results", form.name, "FAILED" if fault else "ok", fault or good)
    if case.device.type == "cuda":
        sent = copies(case)
        detail = f"{sent.pinned / 1e9:.1f} GB/s, from other memory {sent.pageable / 1e9:.1f}"
        figures = {"pinned_bytes_s": sent.pinned, "pageable_bytes_s": sent.pageable}
        yield _finding(case, "pinned copies", "", "FAILED" if sent.fault else "ok", sent.fault or detail, figures)


def times(case: Case, compiled: bool, rates: Mapping[str, float]) -> Findings:
    """Each form's pace; forms that are there for comparison alone are not timed."""
    every = forms(case.device, compiled and not without_compiler(case))
    plain = timed_form(case, REFERENCE)
    yield _time(case, REFERENCE, plain, rates)

    def timed(form: Form) -> Findings:
        yield _time(case, form, timed_form(case, form, plain.flop), rates)

    for form in every:
        if form.name != "float32 again":
            yield from _guarded(case, "time", timed(form), form.name)


def published(case: Case) -> Findings:
    """The published step beside this one's, on the same batch: time and operations."""
    if case.stage != "images":
        return
    if case.config.images.shared_trunk or case.config.images.training.warmup:
        detail = "the recipe's own form is far from the published one (shared trunk or warm-up)"
        yield _finding(case, "published step", "", "left out", detail)
        return
    form = usual(case.device)
    found = timed_published(case, form)
    old, ours = found["published"], found["A+B"]
    time, flop = ours.step_ms / old.step_ms, ours.flop / old.flop
    detail = f"{old.step_ms:,.0f} ms, here {ours.step_ms:,.0f}: {time:.3f} of the time, {flop:.3f} of the operations"
    figures = {"published_ms": old.step_ms, "ms": ours.step_ms, "published_flop": old.flop, "flop": ours.flop}
    yield _finding(case, "published step", form.name, "measured", detail, figures)


def _agreement(case: Case, form: Form, reference: Measured) -> Findings:
    found = distance(_measured(case, form), reference)
    yield _distance(case, "losses, gradients", form.name, found, form.tolerance)


def _time(case: Case, form: Form, found: Timed, rates: Mapping[str, float]) -> Finding:
    rate = rate_of(form, rates)
    return _finding(case, "time", form.name, "measured", _text(found, rate), _figures(found, rate))


def _measured(case: Case, form: Form) -> Measured:
    """A step of every phase: where the first part of a run has phases of its own, of those, too."""
    phases, total = case.state(form).stage.phases, Measured()
    for steps in (0, 10**6) if any(phase.active(0.0) != phase.active(1.0) for phase in phases) else (0,):
        context = StepContext(seed=0, precision=form.dtype, total_steps=steps)
        found = measured_step(case.state(form), case.few(), context)
        total.losses.update(found.losses)
        total.gradients.update(found.gradients)
    return total


def _distance(case: Case, check: str, form: str, found: Distance, tolerance: Tolerance | None) -> Finding:
    if found.equal:
        detail = "equal bit for bit"
    else:
        detail = f"loss {found.loss:.1e} ({found.loss_of}), gradient {found.gradient:.1e} ({found.gradient_of})"
        within = "equal bits" if tolerance is None else f"{tolerance.loss:g}, {tolerance.gradient:g}"
        detail += f"; tolerated: {within}"
    figures: dict[str, float | None] = {"loss_error": found.loss, "gradient_error": found.gradient}
    return _finding(case, check, form, "ok" if found.within(tolerance) else "FAILED", detail, figures)


def _text(found: Timed, rate: float) -> str:
    memory = "" if found.peak_gb is None else f", {found.peak_gb:.2f} GB"
    return (
        f"{found.step_ms:,.1f} ms a step, {found.samples_s:,.1f} samples/s{memory}, {found.flop_s / 1e9:,.0f} GFLOP/s: "
        f"{found.flop_s / rate:.3f} of a product's {rate / 1e9:,.0f}"
    )


def _figures(found: Timed, rate: float) -> dict[str, float | None]:
    return {**vars(found), "matrix_flop_s": rate}


def _finding(
    case: Case, check: str, form: str, verdict: Verdict, detail: str, figures: Mapping[str, float | None] | None = None
) -> Finding:
    return Finding(case.recipe, case.stage, check, form, verdict, detail, dict(figures or {}))


def _guarded(case: Case, check: str, findings: Iterable[Finding], form: str = "") -> Findings:
    try:
        yield from findings
    except Exception as error:  # whatever it is: the other checks are worth running
        yield _finding(case, check, form, "FAILED", f"{type(error).__name__}: {in_a_line(error, 200)}")
