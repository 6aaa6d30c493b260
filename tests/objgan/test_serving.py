import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.serving import OUTPUTS, Params, answer

CAPTIONS = ["two red kites above a boat", "sheep on the sea"]
BOX = [0.1, 0.1, 0.5, 0.5]


def layout(**more: Any) -> str:
    return json.dumps({"objects": [{"label": "kite", "box": BOX} | more]})


def answers(model: ObjGAN, *rows: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    return list(answer(model, rows, Params.read(params)))


def test_every_picture_is_a_row_with_all_that_is_known_of_it(model: ObjGAN) -> None:
    rows = [{"caption": "a zebra above three kites", "id": "x"}, {"caption": CAPTIONS[1], "layout": None, "id": 7}]
    found = answers(model, *rows, n=2, seed=3)
    made = model.generate([row["caption"] for row in rows], n=2, seed=3)
    assert [tuple(row) for row in found] == [OUTPUTS] * 4
    keys = ("id", "row", "sample", "seed", "caption", "error")
    assert [tuple(row[key] for key in keys) for row in found] == [
        *(("x", 0, sample, 3, rows[0]["caption"], None) for sample in (0, 1)),
        *((7, 1, sample, 3, rows[1]["caption"], None) for sample in (0, 1)),
    ]
    for row, one in zip(found, made, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(row["image_png"]))) as image:
            assert image.format == "PNG" and np.array_equal(np.asarray(image), one.image)
        assert row["layout"] == one.layout_json(model.domain.classes)
        assert json.loads(row["facts"]) == [fact._asdict() for fact in one.facts]
    assert json.loads(found[0]["unknown_words"]) == ["zebra", "three"] and json.loads(found[0]["facts"])
    assert found[2]["unknown_words"] == "[]"


def test_what_came_out_gives_the_same_when_it_goes_in(model: ObjGAN) -> None:
    first = answers(model, {"caption": CAPTIONS[0]}, n=3, seed=3)
    back = answers(model, *({"caption": row["caption"], "layout": row["layout"]} for row in first))
    assert [row | {"row": 0} for row in back] == first
    assert len({row["image_png"] for row in first}) == 3


def test_layouts_alone_have_no_image(model: ObjGAN) -> None:
    (one,), (full,) = answers(model, {"caption": CAPTIONS[0]}, steps="layout"), answers(model, {"caption": CAPTIONS[0]})
    assert one == full | {"image_png": None} and full["image_png"]


GOOD = {"caption": "a kite"}
WRONG_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"caption": None}, "caption is missing"),
    "no caption": ({}, "caption is missing"),
    "bytes": ({"caption": b"a kite"}, "caption must be a text, got b'a kite' (bytes)"),
    "list": ({"caption": ["a kite"]}, "caption must be a text, got ['a kite'] (list)"),
    "dict": ({"caption": {"a": "kite"}}, "caption must be a text"),
    "number": ({"caption": 5}, "caption must be a text, got 5 (int)"),
    "fraction": ({"caption": 0.5}, "caption must be a text, got 0.5 (float)"),
    "true": ({"caption": True}, "caption must be a text, got True (bool)"),
    "array": ({"caption": np.zeros(3)}, "caption must be a text"),
    "empty": ({"caption": ""}, "caption '' has no words"),
    "blank": ({"caption": " \n"}, "has no words"),
    "signs": ({"caption": "?!"}, "caption '?!' has no words"),
    "unknown": ({"caption": "zebra crossing"}, "'zebra crossing': this model knows none of its words"),
    "surrogate": ({"caption": "a kite \ud800"}, "half a surrogate pair"),
    "long": ({"caption": "a kite " * 20_000}, "is longer than"),
    "layout bytes": (GOOD | {"layout": b"{}"}, "layout must be a text, the JSON of a layout file, got b'{}' (bytes)"),
    "layout dict": (GOOD | {"layout": {"objects": []}}, "layout must be a text"),
    "layout number": (GOOD | {"layout": 3}, "layout must be a text"),
    "layout empty": (GOOD | {"layout": ""}, "layout is not JSON"),
    "layout text": (GOOD | {"layout": "a kite"}, "layout is not JSON"),
    "layout list": (GOOD | {"layout": "[]"}, 'layout: no "objects" list'),
    "layout label": (GOOD | {"layout": layout(label="kiite")}, "unknown label 'kiite': did you mean kite?"),
    "layout box": (GOOD | {"layout": layout(box=[0, 0, 2, 1])}, "leaves the image"),
    "layout key": (GOOD | {"layout": layout(maks=1)}, "unknown key 'maks'"),
    "layout mask": (GOOD | {"layout": layout(mask={"size": [8, 8], "counts": "0"})}, "mask size [8, 8]"),
    "layout place": (GOOD | {"layout": layout(place=99)}, "place must be"),
    "layout seed": (GOOD | {"layout": '{"objects": [], "seed": "x"}'}, "seed must be a whole number"),
    "layout sample": (GOOD | {"layout": '{"objects": [], "sample": -1}'}, "sample must be"),
    "layout deep": (GOOD | {"layout": "[" * 10_000}, "layout is n"),
    "layout NaN": (GOOD | {"layout": layout(box=[float("nan")] * 4)}, "layout holds NaN"),
    "layout many": (GOOD | {"layout": json.dumps({"objects": [{"label": "kite", "box": BOX}] * 9})}, "9 objects"),
    "id list": (GOOD | {"id": ["x"]}, "id must be a text or a whole number"),
    "id bytes": (GOOD | {"id": b"x"}, "id must be"),
    "id fraction": (GOOD | {"id": 0.5}, "id must be"),
    "id true": (GOOD | {"id": True}, "id must be"),
}


def test_a_wrong_row_costs_only_itself(model: ObjGAN) -> None:
    rows = [GOOD | {"id": "first"}, *(row for row, _ in WRONG_ROWS.values()), {"caption": CAPTIONS[1], "id": "last"}]
    found = answers(model, *rows, on_error="row", n=2)
    good = [found[0], found[1], found[-2], found[-1]]
    assert [row["id"] for row in good] == ["first", "first", "last", "last"] and len(found) == len(WRONG_ROWS) + 4
    alone = answers(model, rows[0], rows[-1], n=2)
    assert [row | {"row": 0} for row in good] == [row | {"row": 0} for row in alone]
    for number, (row, (name, (given, message))) in enumerate(zip(found[2:-2], WRONG_ROWS.items(), strict=True), 1):
        assert message in row["error"] and "\n" not in row["error"] and len(row["error"]) < 1000, name
        assert row["row"] == number and row["sample"] is row["image_png"] is row["layout"] is None, name
        assert row["caption"] in (None, given.get("caption")), name
        json.dumps(row)


def test_nothing_is_generated_where_a_row_is_wrong(model: ObjGAN) -> None:
    with pytest.raises(InputError) as caught:
        next(answer(model, [GOOD, {"caption": 5}, GOOD, {"caption": None}, {}], Params()))
    assert str(caught.value).startswith("row 1 has an error: caption must be a text, got 5 (int); so do 2 more rows")
    with pytest.raises(InputError, match=r"row 0 has an error: caption is missing: give a text$"):
        next(answer(model, [{}], Params()))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sed": 1}, "unknown param 'sed': did you mean seed?"),
        ({"temperature": 0.5}, "unknown param 'temperature': choose one of n, seed, steps, on_error"),
        *(({"n": n}, "param n must be a whole number from 1 to 64") for n in (0, 65, -1, 2.0, True, "2", None, [2])),
        *(({"seed": seed}, "param seed must be a whole number") for seed in (1.0, True, "1", 2**63)),
        ({"steps": "images"}, "unknown value of param steps 'images': did you mean image?"),
        ({"steps": None}, "unknown value of param steps None: choose one of layout, image"),
        ({"on_error": "ignore"}, "unknown value of param on_error 'ignore': choose one of raise, row"),
    ],
)
def test_wrong_params_are_refused_by_name(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Params.read(params)
    assert message in str(caught.value)


def test_ids_of_a_table_with_gaps_are_whole_numbers_again(model: ObjGAN) -> None:
    """pandas makes floats of whole numbers where one is missing."""
    found = answers(model, GOOD | {"id": 1.0}, GOOD | {"id": None}, steps="layout")
    assert [row["id"] for row in found] == [1, None] and type(found[0]["id"]) is int
