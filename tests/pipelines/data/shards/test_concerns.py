"""Boxes, masks and areas that contradict each other, and many rejects: counts, page, warnings."""

import json

import pytest

from objgan.errors import InputError
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import Options, prepare
from pipelines.data.report.page import page
from pipelines.data.report.survey import survey
from pipelines.data.report.table import lines, numbers
from pipelines.data.shards.concerns import concerns, doubts
from pipelines.data.shards.format import summary
from pipelines.data.shards.manifest import MANIFEST
from pipelines.data.verify.verify import verify


@pytest.fixture
def made(tmp_path, write_coco, scenes, data_config):
    """made(change, number): prepares `number` scenes (a kite, a person, a crowd each), after `change`."""

    def make(change, number: int = 10):
        images, objects, captions = scenes(number)
        change(images, objects, captions)
        source = write_coco(tmp_path / "coco", images, objects, captions)
        return prepare(source, tmp_path / "data", data_config, run_here)

    return make


def _each(part: int, **values):
    def change(*parts) -> None:
        for one in parts[part]:
            one.update(values)

    return change


def _first(number: int, **values):
    """The first `number` objects."""

    def change(images, objects, captions) -> None:
        for one in objects[:number]:
            one.update(values)

    return change


def test_good_data_have_no_contradiction(made) -> None:
    manifest = made(lambda *parts: None)
    assert manifest["contradictions"] == {
        "boxes": 30, "masks": 30, "areas": 30, "outside": 0, "oversized": 0, "tiny": 0, "cut": 0,
    }  # fmt: skip
    assert not list(concerns(manifest)) and not list(doubts(manifest)) and "warning" not in summary(manifest)


# In scenes of 100 x 50 pixels: what is changed of how many objects of 30, what is counted, and what is said.
KINDS = {
    "a mask outside its box": ({"segmentation": [[60, 30, 90, 30, 90, 45, 60, 45]], "bbox": [5, 5, 20, 20]}, "outside"),
    "an area over the box's": ({"area": 900, "bbox": [10, 10, 20, 20], "segmentation": None}, "oversized"),
    "a box of fractions": ({"bbox": [0.1, 0.2, 0.5, 0.5], "area": None, "segmentation": None}, "tiny"),
    "a box of corners": ({"bbox": [60, 30, 90, 45], "area": None, "segmentation": None}, "cut"),
    "a box far over the border": ({"bbox": [-9, 5, 20, 20], "area": None, "segmentation": None}, "cut"),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_counted_and_over_five_percent_is_a_warning(made, name) -> None:
    values, counted = KINDS[name]
    manifest = made(_first(2, **values))
    counts = {kind: manifest["contradictions"][kind] for kind in ("outside", "oversized", "tiny", "cut")}
    assert counts == {**dict.fromkeys(counts, 0), counted: 2}
    (warning,) = concerns(manifest)
    assert warning.startswith("2 of ") and f"warning:  {warning}" in summary(manifest).splitlines()


def test_one_in_thirty_is_doubtful_without_a_warning(made) -> None:
    manifest = made(_first(1, area=5000))
    assert not list(concerns(manifest))
    (doubt,) = doubts(manifest)
    assert doubt == "1 of 30 areas are over 1.2 x their box (3.3%)" and f"doubtful: {doubt}" in summary(manifest)


@pytest.mark.parametrize(
    ("box", "hint"), [([0.1, 0.2, 0.5, 0.5], "are they fractions?"), ([60, 30, 90, 45], "are they corners [x1")]
)
def test_if_most_boxes_contradict_the_warning_names_a_likely_cause(made, box, hint) -> None:
    manifest = made(_each(1, bbox=box, area=None, segmentation=None))
    assert any(hint in text for text in concerns(manifest))


@pytest.mark.parametrize("box", [[-0.9, 0, 30, 20], [70, 30, 30.9, 20.9], [0, 0, 100, 50], [5, 5, 2, 0.5]])
def test_boxes_that_are_rounded_at_the_border_or_thin_are_no_contradiction(made, box) -> None:
    manifest = made(_first(30, bbox=box, area=None, segmentation=None))
    assert not list(concerns(manifest)) and not list(doubts(manifest))


def test_boxes_and_masks_of_a_pixel_are_no_contradiction(made) -> None:
    """At the stored size, a mask of one pixel is displaced by up to a pixel."""
    corners = [50.4, 20.4, 52.4, 20.4, 52.4, 22.4, 50.4, 22.4]
    tiny = {"bbox": [50.4, 20.4, 2, 2], "segmentation": [corners], "area": 4}
    assert made(_first(30, **tiny))["contradictions"]["outside"] == 0


def test_they_are_in_the_manifest_in_inspect_and_seen_by_verify(made, tmp_path) -> None:
    made(_first(6, area=5000))
    found = survey(tmp_path / "data", 0)
    text = "6 of 30 areas are over 1.2 x their box (20.0%)"
    assert numbers(found)["warnings"] == [text] and numbers(found)["contradictions"]["oversized"] == 6
    assert text in page(found, "") and any(text in line for line in lines(found))
    assert not verify(tmp_path / "data", 1).faults
    manifest = json.loads((tmp_path / "data" / MANIFEST).read_text())
    manifest["contradictions"]["oversized"] = 0
    (tmp_path / "data" / MANIFEST).write_text(json.dumps(manifest))
    faults = verify(tmp_path / "data", 1).faults
    assert any("contradictions says" in str(fault) for fault in faults)


def test_a_retry_keeps_the_counts(made, tmp_path, write_coco, scenes, data_config) -> None:
    first = made(_first(6, area=5000))
    images, objects, captions = scenes(10)
    _first(6, area=5000)(images, objects, captions)
    source = write_coco(tmp_path / "coco", images, objects, captions)
    again = prepare(source, tmp_path / "data", data_config, run_here, Options(retry=True))
    assert again == first


def test_over_a_fifth_of_a_kind_rejected_is_a_warning(made) -> None:
    manifest = made(_first(7, area="large"))
    text = "7 of 30 objects (23%) were rejected, 7 of them: area is text, not a number"
    assert list(concerns(manifest)) == [text] and f"warning:  {text}" in summary(manifest)


def test_a_fifth_of_a_kind_rejected_is_no_warning(made) -> None:
    assert not list(concerns(made(_first(6, area="large"))))


def test_rejected_masks_are_a_kind(made) -> None:
    text = "10 of 30 masks (33%) were rejected, 10 of them: segmentation is text, not polygons or run lengths"
    manifest = made(_first(10, segmentation="x"))
    assert [one.partition(";")[0] for one in concerns(manifest)] == [text]


def test_data_without_objects_are_prepared_with_a_warning(made) -> None:
    manifest = made(lambda images, objects, captions: objects.clear())
    assert list(concerns(manifest)) == ["the input has no objects: only the stage encoders can be trained"]


def test_objects_that_are_all_lost_among_the_pixels_are_refused(made, tmp_path) -> None:
    with pytest.raises(InputError, match=r"none of the 30 objects can be used: 30 of them: its box is empty") as caught:
        made(_each(1, bbox=[500, 500, 9, 9]))
    assert not (tmp_path / "data" / MANIFEST).exists()
    listed = tmp_path / "data" / "rejected.jsonl"
    assert str(listed) in str(caught.value) and len(listed.read_text().splitlines()) == 30
