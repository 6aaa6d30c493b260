"""Image files -> squares of RGB pixels, and back from the shard."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import ExifTags, Image, TiffImagePlugin, TiffTags, UnidentifiedImageError
from PIL.Image import Transpose

from objgan.run_lengths import MOST_PIXELS, MOST_SIDE
from pipelines.data.shards.image_files import Unreadable

QUALITY = 95
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "TGA")
"""Formats that Pillow may try (it reads MPO as JPEG). Others start a program (EPS: Ghostscript), or are not images.

TGA comes last: it has no signature."""
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the picture upright."""
_BACK = _TURNS | {6: Transpose.ROTATE_90, 8: Transpose.ROTATE_270}
"""EXIF orientation -> what lays an upright picture down again."""
_SWAPPED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
_SAMPLE_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floating point"}
_WHITE_IS_ZERO = 0
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_NEEDED_SEGMENTS = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0\0", 6), 0xEE: (b"Adobe", 12)}
"""Application segments of a JPEG file that say how to show its pixels: marker -> beginning, least length."""
_NEEDED_TAGS = {
    *(*range(254, 260), 262, 266, 273, 274, *range(277, 280), 284, 292, 293, 317, 320, *range(322, 326), 332, 333),
    *(338, 339, 347, *range(512, 522), *range(529, 533)),
}
"""Tags of a TIFF file that its pixels need, and the orientation."""


@dataclass(frozen=True)
class Picture:
    """RGB pixels, and the width and height of the file's picture, which may have been decoded smaller."""

    image: Image.Image
    width: int
    height: int


def read_image(file: Path | bytes, annotated: tuple[int, int] | None = None, size: int | None = None) -> Picture:
    """The picture upright in RGB, as its EXIF data turn it. Broken metadata are ignored.

    If `annotated`, the width and height that the boxes refer to, are those of the unturned picture, it is not turned:
    boxes and pixels must agree.

    size: side of the square that it is for. A picture of at least eight times that is decoded, or made, smaller, and
    never less than four times as large.

    Raises:
        Unreadable: no such file, not an image, cut short, far too large, or pixels of a type without a known white.
    """
    try:
        data = file if isinstance(file, bytes) else file.read_bytes()
    except FileNotFoundError:
        raise Unreadable("no such file in the image folder") from None
    with warnings.catch_warnings():
        # Warnings about large images below our limit, and about metadata.
        warnings.simplefilter("ignore")
        try:
            return _open(data, annotated, size)
        except (Unreadable, MemoryError):
            raise
        except UnidentifiedImageError:
            raise _unknown(data) from None
        except Image.DecompressionBombError:
            raise Unreadable("far too large", f"over {MOST_PIXELS:,} pixels") from None
        except Exception as error:  # Pillow raises a dozen types on a broken file; none may stop the other images
            raise Unreadable("cannot decode", " ".join(str(error).split())) from None


def _open(data: bytes, annotated: tuple[int, int] | None, size: int | None) -> Picture:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            return _read(opened, annotated, size)
    except (Unreadable, MemoryError, Image.DecompressionBombError):
        raise
    except Exception:
        # Pillow refuses a whole file for a comment that is too long, or for a broken colour profile.
        bare = b"".join(_pixel_parts(data))
        if bare == data:
            raise
        with Image.open(io.BytesIO(bare), formats=FORMATS) as opened:
            return _read(opened, annotated, size)


def _pixel_parts(data: bytes) -> Iterator[bytes]:
    """A PNG, JPEG or TIFF file without the metadata that its pixels do not need; any other file as it is."""
    if data.startswith(_PNG):
        yield _PNG
        yield from _png_parts(data)
    elif data.startswith(_JPEG):
        yield _JPEG
        yield from _jpeg_parts(data)
    elif data.startswith((b"II*\0", b"MM\0*")):
        yield from _tiff_parts(data)
    else:
        yield data


def _png_parts(data: bytes) -> Iterator[bytes]:
    """The critical chunks (a capital letter), and EXIF data that arrived whole."""
    at = len(_PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        chunk = data[at:end]
        name, sum_ = chunk[4:8], int.from_bytes(chunk[-4:], "big")
        if name[:1].isupper() or (name == b"eXIf" and zlib.crc32(chunk[4:-4]) == sum_):
            yield chunk
        at = end


def _jpeg_parts(data: bytes) -> Iterator[bytes]:
    """No comments, and of the application segments only those that change what the pixels look like."""
    at = len(_JPEG)
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"", b"\xda"):
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0xFF, 0x01, *range(0xD0, 0xD8)):  # filling, or a marker without content
            end = at + (1 if marker == 0xFF else 2)
        beginning, length = _NEEDED_SEGMENTS.get(marker, (b"", 0))
        needed = data.startswith(beginning, at + 4) and end - at - 4 >= length
        if needed if marker in _NEEDED_SEGMENTS else not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            yield data[at:end]
        at = end
    yield data[at:]


def _tiff_parts(data: bytes) -> Iterator[bytes]:
    """The first directory keeps the tags that the pixels need, at its place, and is the only one."""
    order = "<" if data.startswith(b"I") else ">"
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
    except struct.error:
        yield data
        return
    kept = []
    for start in range(at + 2, min(at + 2 + 12 * count, len(data) - 11), 12):
        tag, *form = struct.unpack_from(f"{order}HHI", data, start)
        if tag in _NEEDED_TAGS and (tag != ExifTags.Base.Orientation or form == [TiffTags.SHORT, 1]):
            kept.append(data[start : start + 12])
    yield data[:at] + struct.pack(f"{order}H", len(kept)) + b"".join(kept)
    # No further directory, and what is left of the table.
    yield bytes(4 + 12 * (count - len(kept))) + data[at + 2 + 12 * count + 4 :]


def _unknown(data: bytes) -> Unreadable:
    """Why Pillow does not open a file at all."""
    try:
        tags = _tiff_tags(data)
    except Exception:  # as above
        tags = None
    if tags is None:
        return Unreadable("not an image, or of an unknown format")
    return Unreadable(f"unsupported pixel type: {_tiff_type(tags)}")


def _tiff_tags(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    if not data.startswith(tuple(TiffImagePlugin.PREFIXES)):
        return None
    file = io.BytesIO(data)
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2] == 43 or data[3] == 43 else 8])
    file.seek(tags.next)
    tags.load(file)
    return tags


def _tiff_type(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """For people: "16-bit signed integers"."""
    bits, formats = (tags.get(tag, (1,)) for tag in (TiffImagePlugin.BITSPERSAMPLE, TiffImagePlugin.SAMPLEFORMAT))
    kinds = ", ".join(_SAMPLE_FORMATS.get(code, f"format {code}") for code in dict.fromkeys(formats))
    channels = "" if len(bits) == 1 else f"{len(bits)} channels of "
    return f"TIFF with {channels}{'/'.join(str(bit) for bit in dict.fromkeys(bits))}-bit {kinds}"


def _read(opened: Image.Image, annotated: tuple[int, int] | None, size: int | None) -> Picture:
    width, height = opened.size
    if width * height > MOST_PIXELS or max(width, height) > MOST_SIDE:
        raise Unreadable("far too large", f"{width} x {height}, over {MOST_PIXELS:,} pixels or {MOST_SIDE:,} on a side")
    white = _white(opened)
    if size is not None and opened.format == "JPEG" and min(width, height) >= 8 * size:
        opened.draft("RGB", (4 * size, 4 * size))
    orientation = _orientation(opened)
    swapped = orientation in _SWAPPED
    # Pillow turns TIFF by itself, and says beforehand how large it will be.
    turned_by_pillow = isinstance(opened, TiffImagePlugin.TiffImageFile)
    lying, upright = ((width, height), (height, width)) if swapped else ((width, height), (width, height))
    if turned_by_pillow:
        lying, upright = upright, lying
    image = _to_rgb(_reduced(opened, size), white)
    if swapped and annotated == lying:
        return Picture(image.transpose(_BACK[orientation]) if turned_by_pillow else image, *lying)
    if orientation in _TURNS and not turned_by_pillow:
        image = image.transpose(_TURNS[orientation])
    return Picture(image, *upright)


def _orientation(opened: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 (not turned) if the metadata are broken."""
    if opened.format == "PNG":
        opened.load()  # as `getexif` would, but here its errors are the pixels'
    try:
        orientation = opened.getexif().get(ExifTags.Base.Orientation)
        return orientation if orientation in _TURNS else 1
    except MemoryError:
        raise
    except Exception:  # Pillow raises half a dozen types
        return 1


def _white(opened: Image.Image) -> tuple[int, int]:
    """The values of black and white where a sample has more than eight bits, which Pillow would clip.

    Raises:
        Unreadable: the type of the pixels does not say which value is white.
    """
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        tags = opened.tag_v2
        if opened.mode in ("I", "F") or set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) != {1}:
            raise Unreadable(f"unsupported pixel type: {_tiff_type(tags)}")
        white = (1 << tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]) - 1
        return (white, 0) if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO else (0, white)
    if opened.mode == "F":
        raise Unreadable(f"unsupported pixel type: {opened.format} with 32-bit floating point")
    return 0, 65535


def _reduced(image: Image.Image, size: int | None) -> Image.Image:
    """What is still far larger than needed, pressed into a square four times as large: copies of all would not fit."""
    # Palettes and 16 bits cannot be filtered.
    if size is None or min(image.size) < 8 * size or image.mode not in ("L", "RGB", "RGBA", "CMYK"):
        return image
    return image.resize((4 * size, 4 * size), Image.Resampling.HAMMING)


def squash(image: Image.Image, size: int) -> bytes:
    """The whole picture, which is RGB, pressed into a size x size square (never cropped), as JPEG with full colour
    resolution.

    torch resizes bytes with Pillow's antialiased Lanczos filter in a fifth of Pillow's time; the two differ by rounding
    (71 dB on COCO, at worst 54).
    """
    pixels = _pixels(image).permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(pixels, (size, size), mode="lanczos", antialias=True)
    buffer = io.BytesIO()
    square = Image.fromarray(scaled[0, :3].permute(1, 2, 0).contiguous().numpy())
    square.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def _pixels(image: Image.Image) -> torch.Tensor:
    """uint8 [height, width, 4] as Pillow keeps them, the last channel without meaning; [height, width, 3] of a copy."""
    try:
        flat = pa.array(image).values
    except ValueError:  # it keeps pictures of over four million pixels in pieces
        return torch.from_numpy(np.array(image))
    return torch.utils.dlpack.from_dlpack(flat).view(image.height, image.width, 4)


def decode(data: bytes) -> np.ndarray:
    """JPEG bytes of a shard -> uint8 [3, S, S], a view of rows of pixels, which `collate` copies anyway.

    torchvision's decoder gives the same pixels and is not faster: nine tenths of the time are spent in libjpeg.

    Raises:
        OSError: not an image, or cut short.
    """
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as file:
        pixels = np.asarray(file if file.mode == "RGB" else file.convert("RGB"))
    return pixels.transpose(2, 0, 1)


def _to_rgb(image: Image.Image, white: tuple[int, int] = (0, 65535)) -> Image.Image:
    """RGB of any mode. Greyscale of more than eight bits is scaled, where Pillow would clip it to white.

    white: values of black and white of such greyscale
    """
    if image.mode.startswith("I"):
        black, full = white
        values = np.asarray(image)
        values = (np.uint16(black) - values if black else values).astype(np.uint32)
        values *= np.uint32(255)
        values //= np.uint32(max(black, full))
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode == "La":  # which Pillow converts to nothing else
        image = image.convert("LA")
    if image.mode == "RGB":
        image.load()  # from the file, which is closed soon
        return image
    return image.convert("RGB")
