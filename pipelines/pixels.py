"""Image files -> squares of RGB pixels, and back from the shard."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

QUALITY = 95


class Unreadable(ValueError):
    """This one image cannot be used; the text says why."""


def read_image(path: Path, annotated: tuple[int, int] | None = None) -> Image.Image:
    """The picture upright in RGB, as its EXIF data turn it.

    Where `annotated`, the width and height that the boxes refer to, are those of the file as it lies and not of the
    turned picture, it stays as it lies: boxes and pixels must agree.

    Raises:
        Unreadable: no such file, not an image, cut short, or far too large.
    """
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file)
            turned = upright.size != file.size
            return _to_rgb(file if turned and annotated == file.size else upright)
    except FileNotFoundError:
        raise Unreadable("no such file in the image folder") from None
    except UnidentifiedImageError:
        raise Unreadable("not an image, or of an unknown format") from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds on a broken file; none may stop all the others
        raise Unreadable(f"cannot decode: {' '.join(str(error).split())}".replace(str(path), path.name)) from None


def squash(image: Image.Image, size: int) -> bytes:
    """The whole picture pressed into a size x size square (never cropped), as JPEG with full colour resolution."""
    square = image.resize((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    square.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


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
    return image.convert("RGB")
