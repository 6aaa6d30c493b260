"""Libraries that `prepare` could decode and resize with, on genuine COCO pictures; those not installed are left out."""

import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from tests.benchmarks.coco_copies import COCO
from tests.benchmarks.measure import Measurement, time_calls

PICTURES = 100
SIZE = 256
Step = Callable[[Any], Any]


def bench_libraries(scratch: Path) -> Iterator[Measurement]:
    """One thread each; the table's times are for 100 pictures."""
    if not COCO.is_dir():
        return
    torch.set_num_threads(1)
    files = [path.read_bytes() for path in sorted((COCO / "images").iterdir())[:PICTURES]]
    yield from _times("decode", _decoders(), files)
    pictures = [_pillow(data) for data in files]
    yield from _times("resize", _resizers(), [(picture, np.array(picture)) for picture in pictures])
    squares = [np.array(picture.resize((SIZE, SIZE))) for picture in pictures]
    yield from _times("encode", _encoders(), squares)


def _times(what: str, steps: dict[str, Step], inputs: list[Any]) -> Iterator[Measurement]:
    for name, step in steps.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torchvision's decoder
            yield time_calls(f"{what}: {name}", lambda step=step: [step(one) for one in inputs], len(inputs), "images")


def _pillow(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as file:
        file.load()
        return file if file.mode == "RGB" else file.convert("RGB")


def _decoders() -> dict[str, Step]:
    steps: dict[str, Step] = {
        "Pillow, as it keeps them (used)": lambda data: pa.array(_pillow(data)),
        "Pillow, packed for numpy": lambda data: np.array(_pillow(data)),
    }
    if io_ := _module("torchvision.io"):
        rgb = io_.ImageReadMode.RGB
        steps["torchvision (deprecated)"] = lambda data: io_.decode_jpeg(
            torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=rgb
        )
    if cv2 := _module("cv2"):
        cv2.setNumThreads(1)
        steps["OpenCV"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if simplejpeg := _module("simplejpeg"):
        steps["simplejpeg"] = lambda data: simplejpeg.decode_jpeg(data, "RGB")
    return steps


def _resizers() -> dict[str, Step]:
    def with_torch(mode: str) -> Step:
        return lambda pair: torch.nn.functional.interpolate(
            torch.from_numpy(pair[1]).permute(2, 0, 1)[None], (SIZE, SIZE), mode=mode, antialias=True
        )

    def four(pair: tuple[Image.Image, np.ndarray]) -> torch.Tensor:
        pixels = torch.from_dlpack(pa.array(pair[0]).values).view(1, pair[0].height, pair[0].width, 4)
        return torch.nn.functional.interpolate(pixels.permute(0, 3, 1, 2), (SIZE, SIZE), mode="lanczos", antialias=True)

    steps: dict[str, Step] = {
        "torch, Lanczos, Pillow's own pixels (used)": four,
        "torch, Lanczos": with_torch("lanczos"),
        "torch, bicubic": with_torch("bicubic"),
        "Pillow, Lanczos": lambda pair: pair[0].resize((SIZE, SIZE), Image.Resampling.LANCZOS),
    }
    if cv2 := _module("cv2"):
        steps["OpenCV, area"] = lambda pair: cv2.resize(pair[1], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return steps


def _encoders() -> dict[str, Step]:
    def pillow(square: np.ndarray) -> None:
        Image.fromarray(square).save(io.BytesIO(), "JPEG", quality=95, subsampling=0)

    steps: dict[str, Step] = {"Pillow (used)": pillow}
    if simplejpeg := _module("simplejpeg"):
        steps["simplejpeg"] = lambda square: simplejpeg.encode_jpeg(square, 95, "RGB", "444")
    return steps


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
