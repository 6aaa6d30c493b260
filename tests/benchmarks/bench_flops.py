"""Operations of a whole training step of stage `images`, counted by torch: they depend on no machine.

A step at published sizes (recipe `paper`: scales of 64, 128 and 256 pixels, all parameters, Inception-v3 for the DAMSM
term), 2 pictures with 3 small and 3 large objects each. The published computation takes 3,137 GFLOP.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from objgan.config import Config
from objgan.stages.images import ImagesStage
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step
from pipelines.recipes import resolve
from tests.benchmarks.measure import Measurement
from tests.benchmarks.paper_step import Scenes, drawn_batch, drawn_state
from tests.benchmarks.published_form import convolve_after_doubling, double_object_images

PUBLISHED_GFLOP = 3137.0


def _as_it_is(networks: nn.Module) -> None: ...


def _published(networks: nn.Module) -> None:
    double_object_images(networks)
    convolve_after_doubling(networks)


@dataclass(frozen=True)
class Form:
    """A form of the step: settings over the recipe, and what is changed beyond any setting."""

    title: str
    settings: tuple[str, ...] = ()
    adapt: Callable[[nn.Module], None] = _as_it_is


FORMS: Mapping[str, Form] = {
    "published": Form("objects at 512 px, convolutions after doubling", adapt=_published),
    "A": Form("objects at 512 px", adapt=double_object_images),
    "A+B": Form("the default"),
    "C": Form("shared trunk", ("images.shared_trunk=true",)),
    "D": Form("recipe fast", ("images.shared_trunk=true", "images.half_resolution_blocks=1")),
}


def bench_flops(scratch: Path) -> Iterator[Measurement]:
    """Of every form, as a share of the published computation; then the parts of the default."""
    scenes, totals = Scenes(), {}
    for name, form in FORMS.items():
        state = drawn_state(resolve("paper", None, form.settings), scenes)
        form.adapt(state.stage.networks)
        began = time.perf_counter()
        totals[name] = step_flops(state, scenes)
        seconds = time.perf_counter() - began
        yield Measurement(f"GFLOP, {name}: {form.title}", seconds, seconds, 1, 1, "steps", _share(totals[name]))
    began = time.perf_counter()
    parts = part_flops(resolve("paper", None, FORMS["A+B"].settings), scenes, totals["A+B"])
    seconds = time.perf_counter() - began
    note = ", ".join(f"{part} {_share(count)}" for part, count in parts.items())
    yield Measurement("GFLOP, parts of A+B", seconds, seconds, 1, 1, "steps", note)


def step_flops(state: TrainState, scenes: Scenes) -> int:
    """Floating-point operations of one train step."""
    batch = drawn_batch(state.stage.config, scenes)
    return _count(lambda: train_step(state, batch, StepContext(seed=0)))


def part_flops(config: Config, scenes: Scenes, total: int) -> dict[str, int]:
    """Of the `total` of one step, by network; discriminators with both phases."""
    state = drawn_state(config, scenes)
    stage, batch = state.stage, drawn_batch(config, scenes)
    assert isinstance(stage, ImagesStage)
    state.switch_gradients(None)
    generator = _count(lambda: _backward(stage(batch).generated.images))
    with torch.no_grad():
        made = stage(batch)
    state.switch_gradients(stage.phases[0])
    pairs = stage.pairs(batch, made, [batch.pixels(size) for size in config.images.sizes], detach=True)
    text = _count(lambda: _backward([stage.judges.text_losses(pairs)[f"text_{s}"] for s in config.images.sizes]))
    state.switch_gradients(stage.phases[-1])
    for size, fake in zip(config.images.sizes, pairs.fakes, strict=True):
        judge = stage.networks[f"text_{size}"]
        text += _count(lambda judge=judge, fake=fake: _backward(judge(fake.requires_grad_(), pairs.sentence)))
    inception = _count(lambda: _backward(stage.helpers["image_encoder"](pairs.fakes[-1])))
    without = drawn_state(_without_objects(config), scenes)
    objects = total - step_flops(without, scenes)
    rest = total - generator - text - inception - objects
    return {"generator": generator, "text D": text, "layout D": rest, "object D": objects, "Inception": inception}


def _without_objects(config: Config) -> Config:
    images = config.images.model_copy(update={"object_discriminators": False})
    return config.model_copy(update={"images": images})


def _count(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def _backward(outputs: Iterable[Tensor | list[Tensor]]) -> None:
    flat = [one for output in outputs for one in (output if isinstance(output, list) else [output])]
    torch.autograd.backward([one.sum() for one in flat])


def _share(count: int) -> str:
    return f"{count / 1e9:,.0f} ({count / 1e9 / PUBLISHED_GFLOP:.3f} of 3,137)"
