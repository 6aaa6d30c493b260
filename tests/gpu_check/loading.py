"""The way of a batch to the device and of its losses back: reading ahead, pinned copies, reading two steps late."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objgan.batch import Batch, Part
from objgan.training import StepContext, StepRecord, train_step
from pipelines.data.loading.read_ahead import read_ahead
from pipelines.training.step_numbers import MetricAccumulator
from tests.gpu_check.drawn import Case, moved
from tests.gpu_check.forms import Form
from tests.gpu_check.timing import finish, train

_STEPS = {"cuda": 8, "cpu": 3}


@dataclass(frozen=True)
class Overlap:
    """Mean seconds: of a step, of reading a batch, of the wait for a batch, and of the part of it that no reader could
    spare, because the step was shorter than the reading.
    """

    step: float
    read: float
    wait: float
    owed: float

    @property
    def hidden(self) -> float:
        """Of the reading that could take place beside the steps, the share that did."""
        return 1 - max(0.0, self.wait - self.owed) / self.read


def overlap(case: Case, form: Form) -> Overlap:
    """Steps on batches of a reader that takes half a step, through the thread and the pinned memory of training."""
    state, parts, device = case.state(form), case.many(), case.device
    context = StepContext(seed=0, groups=len(parts), precision=form.dtype)
    steps_to_do = _STEPS[device.type]
    train(state, moved(parts, device), context, 1)
    begun = time.perf_counter()
    train(state, moved(parts, device), context, steps_to_do // 2)
    pause, reads = (time.perf_counter() - begun) / (steps_to_do // 2) / 2, list[float]()

    def read(number: int) -> list[Part]:
        begun = time.perf_counter()
        time.sleep(pause)
        reads.append(time.perf_counter() - begun)
        return parts

    waits, steps, accumulator = list[float](), list[float](), MetricAccumulator()
    batches = read_ahead(read, range(steps_to_do + 1), pin=device.type == "cuda")
    batch = next(batches)
    for _ in range(steps_to_do):
        begun = time.perf_counter()
        accumulator.add(train_step(state, moved(batch, device), context))
        list(accumulator.read())
        # As long as the GPU computes: the host alone would be done at once, and wait for the reader.
        finish(device)
        stepped = time.perf_counter()
        batch = next(batches)
        steps.append(stepped - begun)
        waits.append(time.perf_counter() - stepped)
    owed = [max(0.0, read - step) for read, step in zip(reads[1:], steps, strict=True)]
    return Overlap(*(sum(values) / steps_to_do for values in (steps, reads[1:], waits, owed)))


def late_reading_fault(case: Case, form: Form) -> str | None:
    """What is wrong with the results that arrive later (on a GPU by two steps) beside those that are waited for."""
    state, parts, accumulator = case.state(form), case.few(), MetricAccumulator()
    context, records, arrived = StepContext(seed=0, precision=form.dtype), list[StepRecord](), list[int]()
    numbers: dict[int, dict[str, float]] = {}
    for _ in range(4):
        records.append(train_step(state, parts, context))
        accumulator.add(records[-1])
        found = list(accumulator.read())
        arrived.append(len(found))
        numbers |= {one.step: one.values for one in found}
    numbers |= {one.step: one.values for one in accumulator.read(everything=True)}
    if arrived != ([0, 0, 1, 1] if case.device.type == "cuda" else [1, 1, 1, 1]):
        return f"results of 4 steps arrived after steps in numbers of {arrived}"
    # As text: NaN is equal to nothing.
    wrong = [record.step for record in records if str(numbers.get(record.step)) != str(record.numbers())]
    return f"results of steps {wrong} differ from what was waited for" if wrong else None


@dataclass(frozen=True)
class Copies:
    """What differs after a copy from pinned memory (None: nothing), and bytes a second from pinned memory and not."""

    fault: str | None
    pinned: float
    pageable: float


def copies(case: Case) -> Copies:
    """Of a batch to a GPU."""
    parts, device = case.many(), case.device
    pinned = [Part(part.group, part.batch.pin_memory()) for part in parts]
    loose = [tensor for part in pinned for tensor in _tensors(part.batch) if not tensor.is_pinned()]
    sent = moved(pinned, device)
    finish(device)
    pairs = zip(_all(parts), _all(sent), strict=True)
    fault = f"{len(loose)} tensors of a batch are not pinned" if loose else None
    if not all(torch.equal(here, copy.cpu()) for here, copy in pairs):
        fault = "a batch arrived with other values"
    size = sum(tensor.numel() * tensor.element_size() for tensor in _all(parts))
    return Copies(fault, size / _seconds(pinned, device), size / _seconds(parts, device))


def _seconds(parts: Sequence[Part], device: torch.device, times: int = 10) -> float:
    moved(parts, device)
    finish(device)
    begun = time.perf_counter()
    for _ in range(times):
        moved(parts, device)
    finish(device)
    return (time.perf_counter() - begun) / times


def _all(parts: Sequence[Part]) -> list[Tensor]:
    return [tensor for part in parts for tensor in _tensors(part.batch)]


def _tensors(batch: Batch) -> Iterator[Tensor]:
    layout = batch.layout
    columns = (batch.image_ids, batch.words, batch.word_count, batch.images, batch.colours, batch.scenes)
    yield from (tensor for tensor in (*columns, *vars(layout).values()) if isinstance(tensor, Tensor))
