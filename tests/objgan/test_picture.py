import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.layout_file import read_layout
from objgan.picture import Picture, PictureLayout

CAPTION = "two red kites above a boat"


@pytest.fixture
def picture(model: ObjGAN) -> Picture:
    """With two or three of the four objects that the model takes."""
    made = (model(CAPTION, seed=seed) for seed in range(30))
    return next(one for one in made if 2 <= len(one.layout.objects) < 4)


def test_a_caption_becomes_a_picture(model: ObjGAN, tmp_path: Path) -> None:
    picture, one = model("a zebra above a boat", seed=3), model.generate(["a zebra above a boat"], seed=3)[0]
    assert np.array_equal(picture.image, one.image) and picture.facts == one.facts
    assert picture.unknown_words == ("zebra",) and [o.label for o in picture.layout.objects] == list(one.names)
    picture.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == picture._repr_png_()
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), one.image)
    given = read_layout(tmp_path / "a.json", model.rules)
    assert np.array_equal(model.generate([str(given.caption)], layouts=[given])[0].image, one.image)


def test_redrawn_without_an_edit_it_stays_the_same(model: ObjGAN, picture: Picture) -> None:
    again = model.redraw(picture)
    assert np.array_equal(again.image, picture.image) and again.layout.to_dict() == picture.layout.to_dict()
    assert not np.array_equal(model.redraw(picture, seed=99).image, picture.image)


def test_a_moved_box_takes_its_shape_along(model: ObjGAN, picture: Picture) -> None:
    first, *others = (entry.to_dict() for entry in picture.layout.objects)
    entry = picture.layout.objects[0]
    entry.box = (0, 0, 0.5, 0.5)
    entry.move(0.25, 0.5)
    assert entry.box == (0.25, 0.5, 0.5, 0.5) and entry.to_dict()["mask"] == first["mask"], "until it is redrawn"
    redrawn = model.redraw(picture)
    assert not np.array_equal(redrawn.image, picture.image)
    found = {one.to_dict()["place"]: one for one in redrawn.layout.objects}
    moved = found.pop(first["place"])
    assert moved.box == (0.25, 0.5, 0.5, 0.5) and moved.to_dict()["mask"] != first["mask"]
    assert sorted(found) == sorted(entry["place"] for entry in others)
    assert all(found[entry["place"]].to_dict() == entry for entry in others)


def test_objects_are_added_removed_and_renamed(model: ObjGAN, picture: Picture) -> None:
    layout = picture.layout
    kept = layout.objects[1].to_dict()
    layout.remove(layout.objects[0])
    layout.objects[0].label = "sheep"
    added = layout.add("stop sign", (0.1, 0.1, 0.2, 0.3))
    redrawn = {str(one): one.to_dict() for one in model.redraw(picture).layout.objects}
    assert len(redrawn) == len(layout.objects) and redrawn[str(added)]["mask"]
    assert redrawn[str(layout.objects[0])] == kept | {"label": "sheep"}


def test_a_forgotten_shape_is_drawn_again(model: ObjGAN, picture: Picture) -> None:
    before = picture.layout.to_dict()
    for entry in picture.layout.objects:
        entry.forget_shape()
        assert "mask" not in entry.to_dict()
    assert model.redraw(picture).layout.to_dict() == before, "of the same noise in the same boxes"


def test_other_words_keep_the_layout(model: ObjGAN, picture: Picture) -> None:
    before = picture.layout.to_dict()["objects"]
    picture.caption = "two blue kites above a boat"
    blue = model.redraw(picture)
    assert blue.layout.to_dict()["objects"] == before and not np.array_equal(blue.image, picture.image)


def test_wrong_edits_are_refused_at_once(model: ObjGAN, picture: Picture) -> None:
    layout, entry = picture.layout, picture.layout.objects[0]
    before = layout.to_dict()
    with pytest.raises(InputError, match="unknown label 'kiet': did you mean kite"):
        entry.label = "kiet"
    for box in ((0, 0, 2, 1), (0, 0, 0, 1), (0, 0, 1), (0, 0, 1, "1"), (float("nan"), 0, 1, 1)):
        with pytest.raises(InputError, match="box of "):
            entry.box = box  # type: ignore[assignment]
    with pytest.raises(InputError, match="leaves the image"):
        entry.move(1, 0)
    with pytest.raises(InputError, match="unknown label"):
        layout.add("zebra", (0, 0, 1, 1))
    assert layout.to_dict() == before
    while len(layout.objects) < 4:
        layout.add("kite", (0, 0, 1, 1))
    with pytest.raises(InputError, match="at most 4 objects"):
        layout.add("kite", (0, 0, 1, 1))
    with pytest.raises(ValueError, match="not in list"):
        layout.remove(PictureLayout(before, model.rules).objects[0])


def test_a_layout_goes_through_a_dictionary(model: ObjGAN, picture: Picture) -> None:
    content = json.loads(json.dumps(picture.layout.to_dict()))
    picture.layout = PictureLayout(content, model.rules)
    assert np.array_equal(model.redraw(picture).image, picture.image)
    content["objects"][0]["label"] = "kiet"
    with pytest.raises(InputError, match="did you mean kite"):
        PictureLayout(content, model.rules)
