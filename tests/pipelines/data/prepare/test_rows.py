"""One record to one row: pictures of all kinds, boxes at the border, order, rejects."""

import numpy as np
import pytest
from PIL import Image

from pipelines.data.prepare.convert import block_of, records_of
from pipelines.data.prepare.ingest import ingest
from pipelines.data.prepare.rows import Conversion, Record, convert
from pipelines.data.shards.image_files import Unreadable, read_bytes
from pipelines.data.shards.pixels import decode, read_image, squash
from pipelines.storage.storage import Storage

SIZE = 64


LABELS = {1: 0, 38: 1, 44: 2}


def _convert(*records, folder=None, split="train"):
    place = None if folder is None else Storage(folder)
    fetch = None if place is None else lambda image: read_bytes(place, image["file_name"])
    return convert(records, Conversion(split, fetch, SIZE, {**LABELS, **{n: n for n in range(100, 120)}}))


def _rows(source, folder):
    data = ingest(source, folder / "work")
    block = block_of(data.images.ids, "train", "train-00000.arrow")
    return _convert(*records_of(block, folder / "work"), folder=source.images)


def _record(objects=(), **changes):
    image = {"image_id": 1, "file_name": "a.png", "width": 100, "height": 50, "scene": None, "origin": None}
    return Record(image | changes, list(objects), [{"image_id": 1, "id": 5, "place": 0, "text": "A kite, flying!"}])


def _objects(*boxes, **columns):
    """One object per box, ids from 10, categories from 100, and so the labels."""
    base = {"image_id": 1, "area": None, "crowd": False, "polygons": None, "other": None, "colour": None}
    rows = [
        base | {"id": 10 + n, "place": n, "category": 100 + n, "box": [float(side) for side in box]}
        for n, box in enumerate(boxes)
    ]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def test_a_row_has_pixels_tokens_and_squashed_objects(tmp_path, write_coco, scenes) -> None:
    row = _rows(write_coco(tmp_path, *scenes(1)), tmp_path).rows[0]
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
    boxes = (*boxes, (0, 10, 1e-44, 5))  # not 0 in the record, 0 in a shard
    result = _convert(_record(_objects(*boxes)))
    row = result.rows[0]
    assert np.allclose(row["boxes"], [0, 0, 0.1, 0.2, 0.9, 0.8, 0.1, 0.2])
    assert row["annotation_ids"] == [10, 11]
    assert [(reject.kind, reject.id) for reject in result.rejected] == [
        ("annotation", 12),
        ("annotation", 13),
        ("annotation", 14),
        ("annotation", 15),
    ]
    assert {reject.reason for reject in result.rejected} == {"its box is empty or outside the image"}


def test_equal_boxes_are_ordered_by_annotation_id() -> None:
    objects = _objects((0, 0, 10, 10), (50, 0, 10, 10), (0, 0, 20, 20), id=[9, 4, 7])
    assert _convert(_record(objects)).rows[0]["annotation_ids"] == [7, 4, 9]


def test_attributes_follow_their_objects() -> None:
    # The second box is outside the picture, the third is the largest.
    boxes = ((0, 0, 10, 10), (120, 0, 10, 10), (0, 0, 20, 20), (0, 0, 5, 5))
    row = _convert(_record(_objects(*boxes, colour=["red", "blue", "green", None]), scene="sea")).rows[0]
    assert row["labels"] == [102, 100, 103] and row["colours"] == ["green", "red", None] and row["scene"] == "sea"


def test_unusable_masks_are_null_and_counted() -> None:
    others = ['{"size": [1, 1], "counts": [1]}', '[["a", 1, 2, 3, 4, 5]]', '"text"', '{"counts": "x"}', "[[null, 1]]"]
    objects = _objects(*[(0, 0, 10, 10)] * 7, other=[*others, None, None], polygons=[None] * 5 + [[[1, 2, 3, 4]], [[]]])
    result = _convert(_record(objects))
    assert result.rows[0]["masks"] == [None] * 7
    assert [(reject.kind, reject.id) for reject in result.rejected] == [("mask", 10 + n) for n in range(7)]
    assert result.rejected[0].detail == "of [1, 1] instead of [50, 100]"
    assert all(reject.reason.endswith("; the object is kept without a mask") for reject in result.rejected)


def test_without_pixels_the_size_must_be_known() -> None:
    result = _convert(_record(_objects((0, 0, 9, 9)), width=None, height=None), _record(image_id=2))
    assert [row["image_id"] for row in result.rows] == [2] and result.rows[0]["image"] is None
    assert [(reject.kind, reject.id) for reject in result.rejected] == [
        ("image", 1),
        ("annotation", 10),
        ("caption", 5),
    ]
    assert "no width and height" in result.rejected[0].reason


def test_the_size_is_taken_from_the_pixels(tmp_path) -> None:
    Image.new("RGB", (80, 40)).save(tmp_path / "a.png")
    row = _convert(_record(_objects((40, 0, 40, 40)), width=None, height=None), folder=tmp_path).rows[0]
    assert (row["width"], row["height"], row["boxes"]) == (80, 40, [0.5, 0, 0.5, 1])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "not an image"),
        (lambda path: path.write_bytes(b"PK\x03\x04 a zip"), "not an image"),
        (lambda path: _truncated(path), "cannot decode"),
        (lambda path: Image.new("RGB", (50, 100)).save(path, "PNG"), "the aspect ratio differs from the record's"),
    ],
)
def test_pictures_that_cannot_be_used_are_rejected_by_name(tmp_path, write, reason) -> None:
    write(tmp_path / "a.png")
    result = _convert(_record(), folder=tmp_path)
    assert not result.rows
    rejected = result.rejected[0]
    assert (rejected.kind, rejected.id) == ("image", 1) and rejected.detail.startswith("a.png")
    assert reason in rejected.reason


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
    pixels = decode(squash(read_image(tmp_path / name).image, SIZE))
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
        pixels = np.asarray(read_image(tmp_path / "a.jpg", annotated).image)
        assert pixels.shape == (100, 50, 3)
        assert pixels[:45, :, 0].mean() > 200 and pixels[55:, :, 0].mean() < 50


def test_boxes_of_the_unturned_picture_keep_it_unturned(tmp_path) -> None:
    _rotated(tmp_path / "a.jpg")
    pixels = np.asarray(read_image(tmp_path / "a.jpg", (100, 50)).image)
    assert pixels.shape == (50, 100, 3) and pixels[:, :45, 0].mean() > 200


def test_squashing_never_crops(tmp_path) -> None:
    pixels = np.zeros((40, 200, 3), np.uint8)
    pixels[:, :20] = pixels[:, -20:] = 255
    square = decode(squash(Image.fromarray(pixels), 40))
    assert square[:, :, :4].mean() > 230 and square[:, :, -4:].mean() > 230 and square[:, :, 8:-8].mean() < 10


@pytest.mark.parametrize("sides", [(300, 200), (2500, 1700)])
def test_squashing_is_the_lanczos_filter_however_pillow_keeps_the_picture(sides) -> None:
    """Pillow stores images of over four million pixels in several pieces."""
    across, down = np.meshgrid(np.linspace(0, 255, sides[0]), np.linspace(0, 255, sides[1]))
    picture = Image.fromarray(np.stack([across, down, 255 - across], -1).astype(np.uint8))
    expected = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS), int)
    assert np.abs(decode(squash(picture, SIZE)).transpose(1, 2, 0) - expected).max() < 6


def test_the_reason_names_no_folder(tmp_path) -> None:
    _truncated(tmp_path / "a.png")
    with pytest.raises(Unreadable) as caught:
        read_image(tmp_path / "a.png")
    assert str(tmp_path) not in str(caught.value)
