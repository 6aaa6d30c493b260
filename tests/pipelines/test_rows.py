"""One record to one row: pictures of all kinds, boxes at the border, order, rejects."""

import numpy as np
import pytest
from PIL import Image

from pipelines.coco import read_coco
from pipelines.pixels import Unreadable, decode, read_image, squash
from pipelines.rows import convert

SIZE = 64


def _rows(source):
    data = read_coco(source.images, source.instances, source.captions)
    return convert(data.records.to_pylist(), "train", source.images, SIZE)


def _record(**changes):
    base = {"image_id": 1, "file_name": "a.png", "width": 100, "height": 50, "captions": ["A kite, flying!"]}
    empty = {key: [] for key in ("annotation_ids", "labels", "boxes", "areas", "crowds", "segmentations")}
    return base | empty | {"colours": [], "scene": None} | changes


def _objects(*boxes, areas=None, segmentations=None):
    n = len(boxes)
    return {
        "annotation_ids": list(range(10, 10 + n)),
        "labels": list(range(n)),
        "boxes": [float(side) for box in boxes for side in box],
        "areas": areas or [None] * n,
        "crowds": [False] * n,
        "segmentations": segmentations or [None] * n,
        "colours": [None] * n,
    }


def test_a_row_has_pixels_tokens_and_squashed_objects(tmp_path, write_coco, scenes) -> None:
    row = _rows(write_coco(tmp_path, *scenes(1))).rows[0]
    assert decode(row["image"]).shape == (3, SIZE, SIZE)
    assert (row["width"], row["height"], row["split"]) == (100, 50, "train")
    assert row["tokens"][0] == "a kite above person 1"
    # Boxes: the crowd 100 x 10, the kite 40 x 20 and the person 10 x 20, largest first.
    assert row["labels"] == [0, 1, 0] and row["crowds"] == [True, False, False]
    assert np.allclose(row["boxes"], [0, 0.8, 1, 0.2, 0.11, 0.1, 0.4, 0.4, 0.6, 0.22, 0.1, 0.4])
    assert np.allclose(row["areas"], [0.2, 0.08, 0.04])
    assert all(isinstance(mask, str) for mask in row["masks"])


def test_boxes_are_cut_at_the_border_and_degenerate_ones_counted() -> None:
    boxes = ((-10, -10, 20, 20), (90, 40, 30, 30), (10, 10, 5, 0), (120, 10, 5, 5), (10, 10, -5, 5))
    result = convert([_record(**_objects(*boxes))], "train", None, SIZE)
    row = result.rows[0]
    assert np.allclose(row["boxes"], [0, 0, 0.1, 0.2, 0.9, 0.8, 0.1, 0.2])
    assert row["annotation_ids"] == [10, 11]
    assert result.dropped == {"objects whose box is empty or outside the picture": 3}


def test_equal_boxes_are_ordered_by_annotation_id() -> None:
    objects = _objects((0, 0, 10, 10), (50, 0, 10, 10), (0, 0, 20, 20)) | {"annotation_ids": [9, 4, 7]}
    assert convert([_record(**objects)], "train", None, SIZE).rows[0]["annotation_ids"] == [7, 4, 9]


def test_attributes_follow_their_objects() -> None:
    # The second box is outside the picture, the third is the largest.
    objects = _objects((0, 0, 10, 10), (120, 0, 10, 10), (0, 0, 20, 20), (0, 0, 5, 5))
    record = _record(**objects, scene="sea") | {"colours": ["red", "blue", "green", None]}
    row = convert([record], "train", None, SIZE).rows[0]
    assert row["labels"] == [2, 0, 3] and row["colours"] == ["green", "red", None] and row["scene"] == "sea"


def test_unusable_masks_are_null_and_counted() -> None:
    objects = _objects((0, 0, 10, 10), segmentations=['{"size": [1, 1], "counts": [1]}'])
    result = convert([_record(**objects)], "train", None, SIZE)
    assert result.rows[0]["masks"] == [None]
    assert sum(result.dropped.values()) == 1


def test_without_pixels_the_size_must_be_known() -> None:
    result = convert([_record(width=None, height=None), _record(image_id=2)], "train", None, SIZE)
    assert [row["image_id"] for row in result.rows] == [2] and result.rows[0]["image"] is None
    assert [(r["image_id"], "no width and height" in r["reason"]) for r in result.rejected] == [(1, True)]


def test_the_size_is_taken_from_the_pixels(tmp_path) -> None:
    Image.new("RGB", (80, 40)).save(tmp_path / "a.png")
    record = _record(width=None, height=None, **_objects((40, 0, 40, 40)))
    row = convert([record], "train", tmp_path, SIZE).rows[0]
    assert (row["width"], row["height"], row["boxes"]) == (80, 40, [0.5, 0, 0.5, 1])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "not an image"),
        (lambda path: path.write_bytes(b"PK\x03\x04 a zip"), "not an image"),
        (lambda path: _truncated(path), "cannot decode"),
        (lambda path: Image.new("RGB", (50, 100)).save(path, "PNG"), "pixels are 50 x 100, the record says 100 x 50"),
    ],
)
def test_pictures_that_cannot_be_used_are_rejected_by_name(tmp_path, write, reason) -> None:
    write(tmp_path / "a.png")
    result = convert([_record()], "train", tmp_path, SIZE)
    assert not result.rows
    rejected = result.rejected[0]
    assert (rejected["image_id"], rejected["file_name"]) == (1, "a.png") and reason in rejected["reason"]


def _truncated(path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (50, 100, 3), np.uint8)
    Image.fromarray(noise).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode) -> None:
    grey = Image.fromarray(np.full((50, 100), 128, np.uint8))
    image = Image.fromarray(np.full((50, 100), 128 * 257, np.uint16)) if mode == "I;16" else grey.convert(mode)
    name = "a.jpg" if mode == "CMYK" else "a.png"
    image.save(tmp_path / name)
    pixels = decode(squash(read_image(tmp_path / name), SIZE))
    assert pixels.shape == (3, SIZE, SIZE)
    assert abs(float(pixels.mean()) - 128) < 3
    assert float(np.ptp(pixels.reshape(3, -1).mean(1))) < 3


def _rotated(path) -> None:
    """Stored 100 x 50, its left half red; EXIF says: turn it clockwise, so that red comes to the top of 50 x 100."""
    pixels = np.zeros((50, 100, 3), np.uint8)
    pixels[:, :50, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, "JPEG", exif=exif, quality=95)


def test_exif_turns_the_picture_upright(tmp_path) -> None:
    _rotated(tmp_path / "a.jpg")
    for annotated in (None, (50, 100), (123, 456)):
        pixels = np.asarray(read_image(tmp_path / "a.jpg", annotated))
        assert pixels.shape == (100, 50, 3)
        assert pixels[:45, :, 0].mean() > 200 and pixels[55:, :, 0].mean() < 50


def test_boxes_of_the_unturned_picture_keep_it_unturned(tmp_path) -> None:
    _rotated(tmp_path / "a.jpg")
    pixels = np.asarray(read_image(tmp_path / "a.jpg", (100, 50)))
    assert pixels.shape == (50, 100, 3) and pixels[:, :45, 0].mean() > 200


def test_squashing_never_crops(tmp_path) -> None:
    pixels = np.zeros((40, 200, 3), np.uint8)
    pixels[:, :20] = pixels[:, -20:] = 255
    square = decode(squash(Image.fromarray(pixels), 40))
    assert square[:, :, :4].mean() > 230 and square[:, :, -4:].mean() > 230 and square[:, :, 8:-8].mean() < 10


def test_the_reason_names_no_folder(tmp_path) -> None:
    _truncated(tmp_path / "a.png")
    with pytest.raises(Unreadable) as caught:
        read_image(tmp_path / "a.png")
    assert str(tmp_path) not in str(caught.value)
