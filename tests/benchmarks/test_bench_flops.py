"""Operations of a step of stage `images`: what the cheaper forms save, what costs nothing."""

import pytest

from pipelines.recipes import resolve
from tests.benchmarks.bench_flops import FORMS, part_flops, step_flops
from tests.benchmarks.paper_step import LAYERS, Scenes, drawn_state

TWO = Scenes(samples=2)
PUBLISHED = (*LAYERS, "images.training.perceptual_weight=0")
"""Recipe `tiny` with the published layers and terms."""


def _flops(name: str) -> int:
    form = FORMS[name]
    state = drawn_state(resolve("tiny", None, (*PUBLISHED, *form.settings)), TWO)
    form.adapt(state.stage.networks)
    return step_flops(state, TWO)


def test_every_form_takes_fewer_operations_than_the_one_before() -> None:
    counts = [_flops(name) for name in FORMS]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == len(counts)


def test_the_parts_make_up_the_step() -> None:
    total = _flops("A+B")
    parts = part_flops(resolve("tiny", None, PUBLISHED), TWO, total)
    assert sum(parts.values()) == total and min(parts.values()) > 0
    assert parts["layout D"] < parts["object D"]


def test_classes_cost_nothing_and_objects_little() -> None:
    """With the recipe `small`: in `tiny` the trunks are so thin that ten objects' heads are a fifth of the step."""
    cases = (Scenes(2, 3, 3, 10), Scenes(2, 3, 3, 1000), Scenes(2, 0, 1), Scenes(2, 5, 5))
    few, many, one, ten = (
        step_flops(drawn_state(resolve("small", None, ["images.training.gradient_penalty=0"]), scenes), scenes)
        for scenes in cases
    )
    # Augmentation hides an object now and then.
    assert many == pytest.approx(few, rel=0.01)
    assert ten == pytest.approx(one, rel=0.15)
