"""The metrics of the judge of objects, on hand-made logits and captions."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from objgan.attributes import COLOURS, SCENES
from objgan.batch import Batch
from objgan.layout import Layout
from objgan.networks.judge import Judge, JudgeLogits
from pipelines.evaluation.synthesis import Prompts
from pipelines.evaluation.trained_judges import ObjectJudge, stated_pairs

RED, BLUE = COLOURS.index("red"), COLOURS.index("blue")
KITE, BOAT, DOG = range(3)
GRID = 8


class FakeJudge:
    """Sees a red kite at the left and a blue boat at the right, on grass."""

    found_threshold = 0.5

    def __call__(self, images: Tensor) -> JudgeLogits:
        classes, colours = torch.zeros(2, 4, GRID, GRID), torch.zeros(2, len(COLOURS), GRID, GRID)
        classes[:, KITE, :, :3], classes[:, BOAT, :, 5:], classes[:, 3, :, 3:5] = 20, 20, 20
        colours[:, RED, :, :4], colours[:, BLUE, :, 4:] = 20, 20
        scenes = torch.zeros(2, len(SCENES))
        scenes[:, SCENES.index("grass")] = 9
        return JudgeLogits(*(logits[: len(images)] for logits in (classes, colours, scenes)))


@pytest.fixture
def prompts() -> Prompts:
    """Two red kites, a red boat and, as padding, a blue dog. The captions state some of them."""
    labels, colours = torch.tensor([[KITE, KITE, BOAT, DOG]] * 2), torch.tensor([[RED, RED, RED, BLUE]] * 2)
    left, right = [0.0, 0.0, 0.375, 1.0], [0.625, 0.0, 0.375, 1.0]
    boxes = torch.tensor([[left, left, right, right]] * 2)
    layout = Layout(labels, boxes, torch.tensor([3, 3]))
    texts = ("a red kite above a boat on the grass", "a boat")
    batch = Batch(torch.tensor([1, 2]), torch.ones(2, 9).long(), torch.tensor([9, 2]), layout, None, colours)
    return Prompts(((1, 0), (2, 0)), tuple(tuple(text.split()) for text in texts), batch)


@pytest.fixture
def judge() -> ObjectJudge:
    made = ObjectJudge.__new__(ObjectJudge)
    made.__dict__.update(_judge=cast(Judge, FakeJudge()), _smallest=10 / 256, _classes=("kite", "boat", "dog"))
    return made


NAMED = torch.tensor([[True, True, False], [False, True, False]])


def test_pairs_are_true_objects_whose_class_and_colour_the_caption_states_once(prompts: Prompts) -> None:
    """Not the second red kite, not the dog (padding), and no colour where the caption has none."""
    assert stated_pairs(prompts, NAMED).tolist() == [[True, False, True, False], [False] * 4]


def test_stated_classes_and_colours_may_be_anywhere_in_the_image(judge: ObjectJudge, prompts: Prompts) -> None:
    found = judge.measure(torch.zeros(2, 3, 64, 64), prompts, NAMED)
    assert found["found"].tolist() == [[True, True, False]] * 2
    assert found["stated_object_accuracy"].tolist() == [1, 1]
    assert found["stated_scene_accuracy"][0] == 1 and found["stated_scene_accuracy"][1].isnan()
    colours = found["stated_colour_accuracy"]
    assert colours[0] == 0.5, "the kite is red; there is a boat, and something red, but no red boat"
    assert colours[1].isnan()


def test_a_picture_is_described_object_by_object(judge: ObjectJudge, prompts: Prompts) -> None:
    """A box without a class in it is nothing; a hidden object and padding are left out."""
    image, layout = np.zeros((64, 64, 3), np.uint8), prompts.batch.layout[:1]
    assert judge.describe(image, layout) == "red kite, blue boat; grass"
    boxes = torch.tensor([[[0.0, 0.0, 0.375, 0.5], [0.0, 0.5, 0.375, 0.5], [0.375, 0.0, 0.25, 1.0], [0.0] * 4]])
    assert judge.describe(image, replace(layout, boxes=boxes)) == "2 x red kite, nothing; grass"
    assert judge.describe(image, replace(layout, count=torch.tensor([0]))) == "grass"


def test_a_named_class_that_the_judge_does_not_see_lowers_the_accuracy(judge: ObjectJudge, prompts: Prompts) -> None:
    named = torch.tensor([[True, True, True], [False, False, False]])
    accuracy = judge.measure(torch.zeros(2, 3, 64, 64), prompts, named)["stated_object_accuracy"]
    assert accuracy[0] == pytest.approx(2 / 3)
    assert accuracy[1].isnan()


def test_true_objects_are_judged_inside_their_shapes(judge: ObjectJudge, prompts: Prompts) -> None:
    """The first kite is hidden behind the second and does not count; the boat is there, but in blue."""
    found = judge.measure(torch.zeros(2, 3, 64, 64), prompts, NAMED, prompts.batch.layout)
    assert found["object_accuracy"].tolist() == [1, 1]
    assert found["colour_accuracy"].tolist() == [0.5, 0.5]
    assert found["told_colour_accuracy"][0] == 0.5, "the second caption states no colour"
    assert found["told_colour_accuracy"][1].isnan()
    assert "scene_accuracy" not in found


def test_without_colours_there_is_no_colour_accuracy(judge: ObjectJudge, prompts: Prompts) -> None:
    batch = prompts.batch
    bare = Batch(batch.image_ids, batch.words, batch.word_count, batch.layout)
    found = judge.measure(torch.zeros(2, 3, 64, 64), Prompts(prompts.keys, prompts.tokens, bare), NAMED)
    assert "stated_colour_accuracy" not in found
