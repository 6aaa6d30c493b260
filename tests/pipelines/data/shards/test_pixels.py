"""Pictures of every pixel type, with broken metadata, or of formats that are not read: right pixels, or the reason."""

import io
import os
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.data.shards.image_files import MOST_BYTES, Unreadable, read_bytes
from pipelines.data.shards.pixels import read_image
from pipelines.storage.storage import Storage

HEIGHT, WIDTH = 40, 64
RAMP = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
"""From black at the top left to white at the bottom right."""


def _ramp(white: float, kind: str) -> np.ndarray:
    return (RAMP * white).round().astype(kind) if white > 1 else (RAMP * white).astype(kind)


def _check_ramp(data: bytes, most: float = 1.2) -> None:
    """RGB, with all pixels equal to the ramp except for rounding."""
    picture = read_image(data)
    assert picture.image.mode == "RGB" and (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert np.abs(np.asarray(picture.image, float) - 255 * RAMP[..., None]).max() <= most


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _tiff(samples: np.ndarray | bytes, bits: int, *, kind: int = 1, photometric: int = 1, extra: Sequence[int] = ()):
    """An uncompressed TIFF. kind: 1 unsigned, 2 signed, 3 floating point. extra: of an alpha channel."""
    swapped = isinstance(samples, np.ndarray) and samples.dtype.byteorder == ">"
    order, data = (">" if swapped else "<"), bytes(samples if isinstance(samples, bytes) else samples.tobytes())
    channels = samples.shape[2] if isinstance(samples, np.ndarray) and samples.ndim == 3 else 1
    tags = {256: [WIDTH], 257: [HEIGHT], 258: [bits] * channels, 259: [1], 262: [photometric], 273: [8]}
    tags |= {277: [channels], 278: [HEIGHT], 279: [len(data)], 339: [kind] * channels}
    tags |= {338: list(extra)} if extra else {}
    table = 8 + len(data)
    more, entries, values = b"", b"", table + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        letter, number = ("I", 4) if tag in (273, 279) else ("H", 3)
        raw = struct.pack(f"{order}{len(tags[tag])}{letter}", *tags[tag])
        entries += struct.pack(f"{order}HHI", tag, number, len(tags[tag]))
        entries += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(f"{order}I", values + len(more))
        more += raw if len(raw) > 4 else b""
    head = (b"MM\0*" if swapped else b"II*\0") + struct.pack(f"{order}I", table)
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0" + more


def _chunk(name: bytes, content: bytes, sum_: int | None = None) -> bytes:
    total = zlib.crc32(name + content) if sum_ is None else sum_
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", total)


def _png(samples: np.ndarray, bits: int, colour: int) -> bytes:
    raw = b"".join(b"\0" + row.tobytes() for row in samples.astype(samples.dtype.newbyteorder(">")))
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(raw)) + _chunk(b"IEND", b"")


def _channels(*parts: np.ndarray) -> np.ndarray:
    joined = np.empty((HEIGHT, WIDTH, len(parts)), parts[0].dtype)
    for number, part in enumerate(parts):
        joined[..., number] = part
    return joined


GREY16, OPAQUE16 = _ramp(65535, "<u2"), np.full((HEIGHT, WIDTH), 65535, "<u2")
GREY8, OPAQUE8 = _ramp(255, "u1"), np.full((HEIGHT, WIDTH), 255, "u1")
_TWO = _ramp(4095, "<u2").reshape(HEIGHT, WIDTH // 2, 2).astype(int)
PACKED12 = np.stack([_TWO[..., 0] >> 4, (_TWO[..., 0] & 15) << 4 | _TWO[..., 1] >> 8, _TWO[..., 1] & 255], -1)
READ_RIGHT = {
    "PNG, 8-bit grey": _png(GREY8, 8, 0),
    "PNG, 16-bit grey": _png(GREY16, 16, 0),
    "PNG, 16-bit RGB": _png(_channels(GREY16, GREY16, GREY16), 16, 2),
    "PNG, 16-bit grey with alpha": _png(_channels(GREY16, OPAQUE16), 16, 4),
    "PNG, 16-bit RGBA": _png(_channels(GREY16, GREY16, GREY16, OPAQUE16), 16, 6),
    "PNG, 8-bit grey, transparent": _png(_channels(GREY8, OPAQUE8 * 0), 8, 4),
    "TIFF, 8-bit grey": _tiff(GREY8, 8),
    "TIFF, 8-bit grey, white is zero": _tiff(255 - GREY8, 8, photometric=0),
    "TIFF, 8-bit grey with alpha": _tiff(_channels(GREY8, OPAQUE8), 8, extra=[2]),
    "TIFF, 8-bit grey with premultiplied alpha": _tiff(_channels(GREY8, OPAQUE8), 8, extra=[1]),
    "TIFF, 12-bit grey": _tiff(PACKED12.astype(np.uint8).tobytes(), 12),
    "TIFF, 16-bit grey": _tiff(GREY16, 16),
    "TIFF, 16-bit grey, white is zero": _tiff(65535 - GREY16, 16, photometric=0),
    "TIFF, 16-bit grey, big-endian": _tiff(GREY16.astype(">u2"), 16),
    "TIFF, 16-bit RGB": _tiff(_channels(GREY16, GREY16, GREY16), 16, photometric=2),
    "TIFF, 16-bit RGB, big-endian": _tiff(_channels(GREY16, GREY16, GREY16).astype(">u2"), 16, photometric=2),
    "TIFF, 16-bit RGBA": _tiff(_channels(GREY16, GREY16, GREY16, OPAQUE16), 16, photometric=2, extra=[2]),
    "TIFF, 16-bit CMYK": _tiff(_channels(*[65535 - GREY16] * 3, OPAQUE16 * 0), 16, photometric=5),
    "PGM, 8 bits": b"P5 %d %d 255\n" % (WIDTH, HEIGHT) + GREY8.tobytes(),
    "PGM, 10 bits": b"P5 %d %d 1023\n" % (WIDTH, HEIGHT) + _ramp(1023, ">u2").tobytes(),
    "PGM, 16 bits": b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + _ramp(65535, ">u2").tobytes(),
    "PPM, 12 bits": b"P6 %d %d 4095\n" % (WIDTH, HEIGHT) + _channels(*[_ramp(4095, ">u2")] * 3).tobytes(),
    "PPM, 16 bits": b"P6 %d %d 65535\n" % (WIDTH, HEIGHT) + _channels(*[_ramp(65535, ">u2")] * 3).tobytes(),
    "JPEG 2000, 16-bit grey": _saved(Image.fromarray(GREY16), "JPEG2000"),
    **{
        f"{form}, mode {mode}": _saved(Image.fromarray(GREY8).convert(mode), form)
        for form, modes in {
            "TIFF": ("L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"),
            "PNG": ("L", "LA", "P", "RGB", "RGBA"),
            "JPEG2000": ("L", "LA", "RGB", "RGBA", "CMYK"),
            "BMP": ("L", "P", "RGB", "RGBA"),
            "TGA": ("L", "LA", "P", "RGB", "RGBA"),
            "GIF": ("L", "P"),
        }.items()
        for mode in modes
    },
    "WEBP, lossless": _saved(Image.fromarray(GREY8).convert("RGB"), "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", READ_RIGHT)
def test_every_pixel_type_is_read_right(name: str) -> None:
    _check_ramp(READ_RIGHT[name])


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("AVIF", "RGB"), ("MPO", "RGB")],
)
def test_lossy_formats_are_read_nearly_right(form: str, mode: str) -> None:
    _check_ramp(_saved(Image.fromarray(GREY8).convert(mode), form, quality=95), most=6)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "GIF", "PPM"])
def test_pixels_of_one_bit_are_black_and_white(form: str) -> None:
    pixels = np.asarray(read_image(_saved(Image.fromarray(GREY8 > 127), form)).image)
    assert pixels.tolist() == np.repeat((GREY8 > 127)[..., None] * 255, 3, -1).tolist()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (_tiff(_ramp(32767, "<i2"), 16, kind=2), "TIFF with 16-bit signed integers"),
        (_tiff(_ramp(32767, ">i2"), 16, kind=2), "TIFF with 16-bit signed integers"),
        (_tiff(_ramp(127, "i1"), 8, kind=2), "TIFF with 8-bit signed integers"),
        (_tiff(_ramp(2**31, "<u4"), 32), "TIFF with 32-bit unsigned integers"),
        (_tiff(_ramp(2**31, ">u4"), 32), "TIFF with 32-bit unsigned integers"),
        (_tiff(_ramp(2**30, "<i4"), 32, kind=2), "TIFF with 32-bit signed integers"),
        (_tiff(_ramp(1, "<f4"), 32, kind=3), "TIFF with 32-bit floating point"),
        (_tiff(_ramp(255, ">f4"), 32, kind=3), "TIFF with 32-bit floating point"),
        (_tiff(_ramp(1, "<f2"), 16, kind=3), "TIFF with 16-bit floating point"),
        (_tiff(_ramp(1, "<f8"), 64, kind=3), "TIFF with 64-bit floating point"),
        (
            _tiff(_channels(*[_ramp(1, "<f4")] * 3), 32, kind=3, photometric=2),
            "TIFF with 3 channels of 32-bit floating",
        ),
        (_tiff(_channels(GREY16, OPAQUE16), 16, extra=[2]), "TIFF with 2 channels of 16-bit unsigned integers"),
        (_tiff(GREY16.astype(">u2"), 16, photometric=0), "TIFF with 16-bit unsigned integers"),
        (b"Pf %d %d -1.0\n" % (WIDTH, HEIGHT) + _ramp(1, "<f4").tobytes(), "PPM with 32-bit floating point"),
    ],
)
def test_pixels_without_a_known_white_are_refused_by_their_type(data: bytes, kind: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_image(data)
    assert caught.value.reason.startswith(f"unsupported pixel type: {kind}")


def test_large_pictures_of_16_bits_are_read_right() -> None:
    """Images that are reduced first, if the filter supports the type."""
    wide = np.repeat(np.linspace(0, 65535, 800).astype(np.uint16)[None], 600, 0)
    for data in (_saved(Image.fromarray(wide), "PNG"), _saved(Image.fromarray(wide), "TIFF")):
        found = np.asarray(read_image(data, size=64).image, float)
        assert np.abs(found[300, :, 0] - np.linspace(0, 255, found.shape[1])).max() < 2


@pytest.mark.parametrize("sides", [(1_000_001, 1), (1, 20_000_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_pictures_that_would_fill_the_memory_are_refused(sides: tuple[int, int]) -> None:
    """A long line has few pixels, but the filter that makes it a square takes memory by its length."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", *sides, 8, 0, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress(b"\0" * min(sides[1] * (1 + sides[0]), 10**8)))
    with pytest.raises(Unreadable, match="far too large"):
        read_image(b"\x89PNG\r\n\x1a\n" + head + pixels + _chunk(b"IEND", b""))


BOMB = zlib.compress(b"\0" * (100 << 20), 9)
BROKEN_CHUNKS = {
    "eXIf": (b"", b"junk", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"),
    "iCCP": (b"", b"a", b"a\0\x01x", b"profile\0\0" + BOMB),
    "zTXt": (b"", b"a\0\x05x", b"comment\0\0" + BOMB),
    "iTXt": (b"", b"comment\0\1\0\0\0" + BOMB),
    "tEXt": (b"", b"comment\0" + b"x" * (3 << 20)),
    **dict.fromkeys(("tRNS", "gAMA", "cHRM", "pHYs", "sRGB", "sBIT", "bKGD", "hIST", "tIME", "acTL"), (b"", b"ab")),
    **dict.fromkeys(("fcTL", "fdAT", "xxXx"), (b"", b"\x00\x00\x00\x01")),
}


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_png_with_broken_metadata_is_read(name: str, where: str) -> None:
    whole = _saved(Image.fromarray(GREY8).convert("RGB"), "PNG")
    at = 33 if where == "before" else len(whole) - 12
    for content in BROKEN_CHUNKS[name]:
        _check_ramp(whole[:at] + _chunk(name.encode(), content) + whole[at:])
    _check_ramp(whole[:at] + _chunk(name.encode(), b"ab", sum_=0) + whole[at:])


def test_a_png_with_many_comments_is_read() -> None:
    whole = _saved(Image.fromarray(GREY8), "PNG")
    texts = b"".join(_chunk(b"zTXt", b"a%d\0\0" % n + zlib.compress(b"\0" * (1 << 20))) for n in range(70))
    _check_ramp(whole[:33] + texts + whole[33:])


def test_a_png_with_a_broken_comment_is_turned_by_its_exif_data() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = _saved(Image.fromarray(GREY8), "PNG", exif=exif)
    broken = whole[:33] + _chunk(b"iCCP", b"") + whole[33:]
    for data in (whole, broken):
        picture = read_image(data)
        assert (picture.width, picture.height) == (HEIGHT, WIDTH)
        assert np.abs(np.asarray(picture.image, int)[..., 0] - np.rot90(GREY8, -1)).max() <= 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_by_its_exif_data_once(form: str, orientation: int) -> None:
    """Pillow turns TIFF itself, but not the other formats."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = np.repeat(np.repeat(_ramp(255, "u1")[::5, ::8], 8, 0), 8, 1)  # 64 x 64, coarse enough for JPEG
    grey = grey[:, :48]
    options = {"compression": "tiff_lzw" if orientation % 2 else None} if form == "TIFF" else {"quality": 95}
    data = _saved(Image.fromarray(grey).convert("RGB"), form, exif=exif, **options)
    turned = {1: grey, 2: grey[:, ::-1], 3: grey[::-1, ::-1], 4: grey[::-1], 5: grey.T, 8: np.rot90(grey)}
    upright = (turned | {6: np.rot90(grey, -1), 7: grey[::-1, ::-1].T})[orientation]
    # The boxes of the second refer to the unturned picture.
    for annotated, expected in ((None, upright), ((48, 64), grey if orientation > 4 else upright)):
        picture = read_image(data, annotated)
        assert (picture.height, picture.width) == expected.shape
        assert np.abs(np.asarray(picture.image, int)[..., 0] - expected).mean() < 3


TAGS = (270, 271, 274, 282, 283, 296, 305, 306, 315, 700, 33432, 33723, 34377, 34665, 34675, 34853, 50341, 50706)
ENTRY = st.tuples(st.sampled_from(TAGS), st.integers(0, 16), st.sampled_from([0, 1, 2, 5, 1000, 2**31, 2**32 - 1]))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(ENTRY, st.binary(min_size=4, max_size=4)), min_size=1, max_size=3), st.booleans())
@example([((274, 4, 2), b"\xff\x01\x04\x13")], False)
@example([((274, 5, 2**32 - 1), b"\0\0\0\0")], True)
@example(
    [
        (
            (
                34665,
                9,
                1,
            ),
            b"\xff\xff\xff\xff",
        )
    ],
    True,
)
def test_a_tiff_with_broken_metadata_is_read(entries, swapped: bool) -> None:
    order = ">" if swapped else "<"
    extra = b"".join(struct.pack(f"{order}HHI", *entry) + value for entry, value in entries)
    data = _tiff(GREY16.astype(f"{order}u2"), 16)
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    table = struct.pack(f"{order}H", count + len(entries)) + data[at + 2 : at + 2 + 12 * count] + extra
    picture = read_image(data[:at] + table + bytes(4))
    assert sorted((picture.width, picture.height)) == [HEIGHT, WIDTH]


def test_a_png_that_is_cut_short_stays_unreadable() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    whole = _saved(Image.fromarray(noise), "PNG")
    for data in (whole[: len(whole) // 2], whole[:40], whole[:33] + _chunk(b"iCCP", b"") + whole[33 : len(whole) // 2]):
        with pytest.raises(Unreadable):
            read_image(data)


SEGMENTS = [
    *((0xE0, b"JFIF\0"), (0xE0, b"JFIF"), (0xE0, b"AVI1"), (0xE1, b"Exif\0\0"), (0xE1, b"Exif\0\0II*\0\x08\0\0\0")),
    *((0xE1, b"http://ns.adobe.com/xap/1.0/\0"), (0xE2, b"ICC_PROFILE\0"), (0xE2, b"MPF\0"), (0xE2, b"MPF\0MM\0*")),
    *((0xE2, b"MPF\0II*\0\x08\0\0\0"), (0xE2, b"FPXR\0"), (0xED, b"Photoshop 3.0\0"), (0xFE, b""), (0xE7, b"")),
    (0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(SEGMENTS), st.binary(max_size=40) | st.lists(st.sampled_from([0, 1, 2, 255])).map(bytes))
def test_a_jpeg_with_broken_metadata_is_read(segment: tuple[int, bytes], content: bytes) -> None:
    whole = _saved(Image.fromarray(GREY8).convert("RGB"), "JPEG", quality=95)
    body = segment[1] + content
    picture = read_image(whole[:2] + struct.pack(">BBH", 0xFF, segment[0], len(body) + 2) + body + whole[2:])
    # By chance it may be an orientation.
    assert sorted((picture.width, picture.height)) == [HEIGHT, WIDTH]


def test_the_colours_of_a_jpeg_with_a_broken_comment_are_right() -> None:
    """The segment that describes how CMYK is stored is kept."""
    for mode in ("CMYK", "RGB"):
        whole = _saved(Image.fromarray(GREY8).convert(mode), "JPEG", quality=95)
        _check_ramp(whole[:2] + b"\xff\xed\0\x14Photoshop 3.0\0\0\0\0\0" + whole[2:], most=6)
        _check_ramp(whole[:2] + b"\xff\xe2\0\x0fICC_PROFILE\0\0" + whole[2:], most=6)


@pytest.mark.parametrize("form", ["EPS", "PDF", "ICNS", "IM", "SPIDER", "ICO", "PCX", "DDS"])
def test_formats_that_are_not_listed_are_refused(form: str) -> None:
    with pytest.raises(Unreadable, match="not an image, or of an unknown format"):
        read_image(_saved(Image.fromarray(GREY8).convert("F" if form == "SPIDER" else "RGB"), form))


def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch) -> None:
    """A fake Ghostscript that would leave a trace is first on PATH."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(Unreadable):
        read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 40\n%%EndComments\nshowpage\n%%EOF\n")
    assert not (tmp_path / "started").exists()


def test_other_than_regular_files_are_refused_at_once(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    reasons = {"pipe": "not a regular file", "zero": "not a regular file", "folder": "cannot read the file"}
    for name, reason in (reasons | {"huge": "the file is too large"}).items():
        with pytest.raises(Unreadable, match=reason):
            read_bytes(Storage(tmp_path), f"{name}.jpg")
