"""One rule for every number of a record: 1, 1.0 and "1" are 1, all else is refused by field, value and type."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from objgan.errors import shown
from pipelines.data.prepare.coco_records import caption_row, image_row, object_row
from pipelines.data.prepare.record_values import identity, identity_or_none, number, text_id
from pipelines.data.shards.rejected import Unusable

HUGE = pytest.param(10**400, id="401 digits")
IMAGE = {"id": 7, "file_name": "7.png", "width": 60, "height": 40}
KITE = {"id": 3, "image_id": 7, "category_id": 38, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0}
CAPTION = {"id": 1, "image_id": 7, "caption": "a kite"}


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", " 1 ", "+1", "1e0", "10E-1", "01", "1."])
def test_every_spelling_of_one_is_one(value) -> None:
    assert number(value, "id", whole=True) == 1 and type(number(value, "id", whole=True)) is int
    assert number(value, "area") == 1 and type(number(value, "area")) is float


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("one", "id is text, not a whole number"),
        ("", "id is text, not a whole number"),
        ("1_000", "id is text, not a whole number"),
        ("\u0661", "id is text, not a whole number"),
        ("0x10", "id is text, not a whole number"),
        ("nan", "id is text, not a whole number"),
        ("inf", "id is text, not a whole number"),
        (None, "id is null, not a whole number"),
        (True, "id is true or false, not a whole number"),
        ([1], "id is a list, not a whole number"),
        ({"a": 1}, "id is an object, not a whole number"),
        (1.5, "id is a fraction, not a whole number"),
        ("1.5", "id is a fraction, not a whole number"),
        ("1e-999", "id is a fraction, not a whole number"),
        (2**63, "id is a number that is too large"),
        pytest.param(10**400, "id is a number that is too large", id="401 digits"),
        (str(2**63), "id is a number that is too large"),
        ("1e999999", "id is a number that is too large"),
        pytest.param("9" * 500, "id is a number that is too large", id="text of 500 digits"),
        (2.0**53 + 2, "id is a number that is too large"),  # as a float it may have been another id
    ],
)
def test_other_values_than_whole_numbers_are_refused_by_field_type_and_value(value, reason) -> None:
    with pytest.raises(Unusable) as caught:
        number(value, "id", whole=True)
    assert caught.value.reason == reason and caught.value.detail == f"id: {shown(value)}"
    assert (identity_or_none(value) is None) == (text_id(value) is None), "texts that are no numbers are ids"


@pytest.mark.parametrize("value", ["x", None, False, [], {}, math.nan, math.inf, HUGE, "1e999", "NaN"])
def test_other_values_than_numbers_are_refused(value) -> None:
    with pytest.raises(Unusable, match=r"^area is "):
        number(value, "area")


def test_long_ids_keep_all_their_digits() -> None:
    ids = [2**53 + 1, -(2**63), 2**63 - 1]
    assert [number(f"{value}.0", "id", whole=True) for value in ids] == ids
    assert [number(str(value), "id", whole=True) for value in ids] == ids


@given(st.integers(-(2**53), 2**53))
def test_every_spelling_of_a_whole_number_is_that_number(value) -> None:
    assert {number(one, "id", whole=True) for one in (value, float(value), str(value), f"{value}.0")} == {value}


@example([[[[[[[1]]]]]]])
@example({"a": "x" * 10_000})
@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists))
def test_any_value_is_shown_on_one_short_line(value) -> None:
    assert len(shown(value)) <= 120 and "\n" not in shown(value)


@pytest.mark.parametrize("spell", [float, str, lambda value: f" {value}.0 "])
def test_every_number_of_every_record_follows_the_rule(spell) -> None:
    image = IMAGE | {name: spell(IMAGE[name]) for name in ("id", "width", "height")}
    assert image_row(image) == image_row(IMAGE)
    names = ("id", "image_id", "category_id", "area", "iscrowd")
    kite = KITE | {name: spell(KITE[name]) for name in names} | {"bbox": [spell(side) for side in KITE["bbox"]]}
    assert object_row(kite, 0) == object_row(KITE, 0) and not object_row(kite, 0)["crowd"]
    caption = CAPTION | {name: spell(CAPTION[name]) for name in ("id", "image_id")}
    assert caption_row(caption, 0) == caption_row(CAPTION, 0)
    triangle = [[0, 0, 9, 0, 9, 9]]
    row = object_row(KITE | {"segmentation": [[spell(side) for side in triangle[0]]]}, 0)
    assert row["polygons"] == triangle and row["flaw"] is None
    lengths = {"size": [spell(40), spell(60)], "counts": [spell(2400)]}
    assert object_row(KITE | {"segmentation": lengths}, 0)["other"] == '{"size": [40, 60], "counts": [2400]}'


@given(st.text())
def test_an_id_that_is_text_is_one_number(value) -> None:
    if text_id(value) is None:
        number = identity_or_none(value)
        assert number is None or (value.strip() and -(2**63) <= number < 2**63)
        return
    assert 2**62 <= identity(value, "id") < 2**63 and identity(f" {value}\n", "id") == identity(value, "id")
    row = {"id": value, "image_id": value, "category_id": value}
    assert image_row(IMAGE | {"id": value})["image_id"] == caption_row(CAPTION | row, 0)["image_id"]
    assert len({object_row(KITE | row, 0)[name] for name in ("id", "image_id", "category")}) == 1


def test_texts_keep_their_numbers_from_version_to_version() -> None:
    assert identity("000a1249af2bc5f0", "id") == 7757272126708158507
    assert len({identity(f"{number:016x}-", "id") for number in range(10_000)}) == 10_000


@pytest.mark.parametrize("field", ["id", "image_id", "category_id", "area", "iscrowd", "bbox"])
@pytest.mark.parametrize("value", ["kite", " ", [1, 2], {"x": 1}, HUGE, "1e999"])
def test_an_object_with_a_wrong_number_is_refused_by_field_and_value(field, value) -> None:
    if value == "kite" and "id" in field:
        return
    with pytest.raises(Unusable) as caught:
        object_row(KITE | {field: value}, 0)
    assert caught.value.reason.startswith(f"{field} is ") and shown(value) in caught.value.detail


@pytest.mark.parametrize(("field", "value"), [("id", " "), ("width", "wide"), ("height", "wide")])
def test_an_image_with_a_wrong_number_is_refused(field, value) -> None:
    with pytest.raises(Unusable, match=f"^{field} is text, not a whole number .*{value}"):
        image_row(IMAGE | {field: value})


@pytest.mark.parametrize(("value", "crowd"), [(0, False), ("0", False), (0.0, False), (False, False), (None, False),
                                              (1, True), ("1", True), (1.0, True), (True, True)])  # fmt: skip
def test_crowds_are_those_that_say_one(value, crowd) -> None:
    assert object_row(KITE | {"iscrowd": value}, 0)["crowd"] is crowd


@pytest.mark.parametrize("value", [2, -1, "2", 0.5])
def test_a_crowd_flag_of_another_number_is_refused(value) -> None:
    with pytest.raises(Unusable, match=r"iscrowd is neither 0 nor 1"):
        object_row(KITE | {"iscrowd": value}, 0)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[0, 0, 9, "x", 9, 9]], "segmentation has text, not a number"),
        ([[0, 0, 9, None, 9, 9]], "segmentation has null, not a number"),
        ([[0, 0, 9, True, 9, 9]], "segmentation has true or false, not a number"),
        pytest.param([[0, 0, 9, 10**400, 9, 9]], "segmentation has a number that is too large", id="401 digits"),
        ({"size": ["a", 60], "counts": [2400]}, "size is text, not a whole number"),
        ({"size": [40, 60], "counts": [1.5]}, "counts is a fraction, not a whole number"),
        ({"size": [40, 60], "counts": 7}, "segmentation.counts is a number"),
        ({"size": "40x60", "counts": "1"}, "segmentation.size is text"),
        ({"counts": "1"}, "segmentation.size is missing"),
        ("polygon", "segmentation is text, not polygons or run lengths"),
        ("", "segmentation is text, not polygons or run lengths"),
        (7, "segmentation is a number, not polygons or run lengths"),
    ],
)
def test_a_segmentation_with_a_wrong_value_rejects_only_the_mask(segmentation, reason) -> None:
    row = object_row(KITE | {"segmentation": segmentation}, 0)
    assert row["flaw"] == reason and row["polygons"] is None and row["other"]


SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]
PAIRS = [[10, 10], [20, 10], [20, 20], [10, 20]]


@pytest.mark.parametrize(
    ("segmentation", "polygons"),
    [
        ([SQUARE], [SQUARE]),
        (PAIRS, [SQUARE]),
        ([PAIRS], [SQUARE]),
        ([PAIRS, PAIRS], [SQUARE, SQUARE]),
        ([SQUARE, PAIRS], [SQUARE, SQUARE]),
        (SQUARE, [SQUARE]),
        ([[str(side) for side in pair] for pair in PAIRS], [SQUARE]),
        ([[10.5, 10], [20, 10], [20, 20]], [[10.5, 10, 20, 10, 20, 20]]),
    ],
)
def test_polygons_are_read_for_every_nesting_of_their_points(segmentation, polygons) -> None:
    assert object_row(KITE | {"segmentation": segmentation}, 0)["polygons"] == polygons


@pytest.mark.parametrize("segmentation", [None, [], {}])
def test_an_empty_segmentation_is_none(segmentation) -> None:
    row = object_row(KITE | {"segmentation": segmentation}, 0)
    assert [row[name] for name in ("polygons", "other", "flaw")] == [None, None, None]
