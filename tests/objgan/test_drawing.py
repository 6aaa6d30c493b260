import numpy as np
import pytest
import torch
from PIL import Image

from objgan.drawing import caption_strip, class_colour, draw_boxes, draw_masks, enlarge, grid, name_colours, to_image

COCO_LIKE = ["kite", "boat", "sheep", "clock", "pizza", "frisbee", "umbrella", "stop sign", "car", "bird", "dog", "cat"]


def test_images_of_both_kinds_map_to_the_same_pixels() -> None:
    floats = torch.tensor([-1.0, 0.0, 1.0, 3.0]).view(1, 2, 2).expand(3, 2, 2)
    image = to_image(floats)
    assert [image.getpixel(at)[0] for at in ((0, 0), (1, 0), (0, 1), (1, 1))] == [0, 128, 255, 255]
    pixels = torch.arange(12, dtype=torch.uint8).view(3, 2, 2)
    assert to_image(pixels).getpixel((1, 0)) == (1, 5, 9)


def test_colours_differ_within_a_picture_and_stay_between_pictures() -> None:
    colours = name_colours(COCO_LIKE)
    assert len(set(colours.values())) == len(COCO_LIKE)
    assert name_colours(["kite", "boat"])["kite"] == name_colours(["kite"])["kite"]
    assert len({class_colour(index) for index in range(24)}) == 24
    many = [f"class {index}" for index in range(80)]
    assert set(name_colours(many)) == set(many)


def test_a_box_is_outlined_where_it_lies() -> None:
    picture = np.asarray(draw_boxes(["kite"], torch.tensor([[0.25, 0.5, 0.5, 0.25]]), side=128)).astype(int)
    outline = (picture == name_colours(["kite"])["kite"]).all(-1)
    assert outline[64:96, 32].all() and outline[64:96, 95].all() and outline[95, 32:96].all()
    assert not outline[96:].any() and not outline[:, :32].any() and not outline[:, 96:].any()


def test_a_mask_is_painted_where_it_lies() -> None:
    masks = torch.zeros(1, 32, 32)
    masks[0, 16:, 16:] = 1.0
    for given in (masks, (masks * 255).byte()):
        picture = np.asarray(draw_masks(["boat"], given, side=64)).astype(int)
        blank = np.asarray(draw_masks([], masks[:0], side=64)).astype(int)[0, 0]
        assert (picture[:16] == blank).all() and (picture[40:, 40:] != blank).any(-1).all()


@pytest.mark.parametrize("side", [32, 64, 256])
def test_edge_cases_draw(side: int) -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.999, 0.999, 0.001, 0.001], [0.5, 0.5, 0.0, 0.0]])
    assert draw_boxes(["stop sign", "boat", "kite"], boxes, side).size == (side, side)
    assert draw_boxes([], boxes[:0], side).size == (side, side)
    assert draw_masks(["kite"], torch.zeros(1, 16, 16), side).size == (side, side)


def test_captions_wrap_and_none_is_lost() -> None:
    short, long = caption_strip("a kite", 200), caption_strip("a kite above a boat " * 10, 200)
    assert short.width == long.width == 200 and long.height > 3 * short.height
    word = caption_strip("w" * 200, 100)
    assert (np.asarray(word)[:, :2] == 255).all() and (np.asarray(word)[:, -2:] == 255).all()
    assert caption_strip("", 100).height > 0


def test_enlarging_by_whole_factors_keeps_pixels() -> None:
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    assert np.array_equal(np.asarray(enlarge(small, 32))[::4, ::4], np.asarray(small))
    assert enlarge(small, 20).size == (20, 20)


def test_a_grid_holds_every_picture_whole() -> None:
    red, blue = Image.new("RGB", (40, 40), (255, 0, 0)), Image.new("RGB", (20, 60), (0, 0, 255))
    sheet = np.asarray(grid([[red, blue], [blue]], captions=["one", "two"], headings=["left", "right"]))
    assert (sheet == (255, 0, 0)).all(-1).sum() == 1600
    assert (sheet == (0, 0, 255)).all(-1).sum() == 2400
    assert grid([]).width > 0
    with pytest.raises(ValueError, match="1 captions for 2 rows"):
        grid([[red], [red]], captions=["one"])
