"""Image files -> squares of RGB pixels, and back from the shard."""

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pipelines.faults import brief
from pipelines.storage import Storage

QUALITY = 95
MOST_PIXELS = 178_956_970
"""Pillow's own limit: what is larger was most likely made to fill the memory."""


class Unreadable(ValueError):
    """This one image cannot be used: the reason, in the same words for all of a sort, and what is particular to it."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Picture:
    """RGB pixels, and the width and height of the file's picture, which may have been decoded smaller."""

    image: Image.Image
    width: int
    height: int


def read_bytes(place: Storage, name: str) -> bytes:
    """An image file's bytes.

    Raises:
        Unreadable: there is no such file, or it cannot be read.
        StorageAway: storage did not answer; that is not the image's fault.
        InputError: as a remote storage raises it.
    """
    if not name:
        raise Unreadable("the record has no file name")
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise Unreadable("a file name that leads out of the image folder", name)
    try:
        if place.local is not None:
            return _local_bytes(str(place.local / name))
        return place.read(name)
    except (FileNotFoundError, NotADirectoryError):
        raise Unreadable("no such file in the image folder", name) from None
    except (IsADirectoryError, PermissionError) as error:
        raise Unreadable("cannot read the file", f"{name}: {brief(error)}") from None


def _local_bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@lru_cache(4)
def open_place(location: str) -> Storage:
    """The storage of the images, once a process."""
    return Storage(location)


def read_image(file: Path | bytes, annotated: tuple[int, int] | None = None, size: int | None = None) -> Picture:
    """The picture upright in RGB, as its EXIF data turn it.

    Where `annotated`, the width and height that the boxes refer to, are those of the file as it lies and not of the
    turned picture, it stays as it lies: boxes and pixels must agree.

    size: side of the square that it is for. A picture of at least eight times that is decoded, or made, smaller, and
    never less than four times as large.

    Raises:
        Unreadable: no such file, not an image, cut short, or far too large.
    """
    try:
        with warnings.catch_warnings():
            # Of pictures that are large, but not too large for us.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            source = io.BytesIO(file) if isinstance(file, bytes) else file
            with Image.open(source) as opened:
                return _read(opened, annotated, size)
    except Unreadable:
        raise
    except FileNotFoundError:
        raise Unreadable("no such file in the image folder") from None
    except UnidentifiedImageError:
        raise Unreadable("not an image, or of an unknown format") from None
    except Image.DecompressionBombError:
        raise Unreadable("far too large", f"over {MOST_PIXELS:,} pixels") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds on a broken file; none may stop all the others
        text = " ".join(str(error).split())
        raise Unreadable("cannot decode", text if isinstance(file, bytes) else text.replace(str(file), "")) from None


def _read(opened: Image.Image, annotated: tuple[int, int] | None, size: int | None) -> Picture:
    width, height = opened.size
    if width * height > MOST_PIXELS:
        raise Unreadable("far too large", f"{width} x {height}, over {MOST_PIXELS:,} pixels")
    if size is not None and opened.format == "JPEG" and min(width, height) >= 8 * size:
        opened.draft("RGB", (4 * size, 4 * size))
    orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
    turned = orientation in (5, 6, 7, 8)
    if orientation in (2, 3, 4) or (turned and annotated != (width, height)):
        upright = _to_rgb(ImageOps.exif_transpose(_reduced(opened, size)))
        return Picture(upright, height, width) if turned else Picture(upright, width, height)
    return Picture(_to_rgb(_reduced(opened, size)), width, height)


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
    """JPEG bytes of a shard -> uint8 [3, S, S], a view of rows of pixels: whoever collects it copies it anyway.

    torchvision's decoder gives the same pixels and is not worth a second one: nine tenths of the time is libjpeg's own.

    Raises:
        OSError: not an image, or cut short.
    """
    with Image.open(io.BytesIO(data)) as file:
        pixels = np.asarray(file if file.mode == "RGB" else file.convert("RGB"))
    return pixels.transpose(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB of any mode. 16-bit greyscale is scaled, where Pillow's own conversion would clip it to white."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535) // 257
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode == "RGB":
        image.load()  # from the file, which is closed soon
        return image
    return image.convert("RGB")
