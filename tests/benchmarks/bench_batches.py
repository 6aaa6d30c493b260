"""From samples as the reader gives them to what a network sees."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from objgan.batch import Sample, collate
from objgan.geometry import raster_boxes
from tests.benchmarks.measure import Measurement, time_calls

SIZE, OBJECTS, WORDS, IMAGE_SIDE, MASK_SIDE = 16, 10, 20, 256, 64


def samples() -> list[Sample]:
    """16 samples with images of 256 pixels and 10 objects, the published sizes."""
    draw = np.random.default_rng(0)
    return [
        Sample(
            image_id=number,
            words=draw.integers(2, 1000, WORDS),
            labels=draw.integers(0, 80, OBJECTS),
            boxes=draw.uniform(0.1, 0.5, (OBJECTS, 4)).astype(np.float32),
            masks=draw.integers(0, 256, (OBJECTS, MASK_SIDE, MASK_SIDE)).astype(np.uint8),
            image=draw.integers(0, 256, (3, IMAGE_SIDE, IMAGE_SIDE)).astype(np.uint8),
        )
        for number in range(SIZE)
    ]


def bench_collate(scratch: Path) -> Iterator[Measurement]:
    """Padding and stacking."""
    drawn = samples()
    yield time_calls(
        "collate 16 samples of 256 px", lambda: collate(drawn, max_words=WORDS, max_objects=OBJECTS), SIZE, "samples"
    )


def bench_inputs(scratch: Path) -> Iterator[Measurement]:
    """Pixels at two scales, and rasters of the boxes."""
    batch = collate(samples(), max_words=WORDS, max_objects=OBJECTS)
    for side in (64, 256):
        yield time_calls(f"pixels 256 -> {side}", lambda side=side: batch.pixels(side), SIZE, "images")
    boxes = batch.layout.boxes
    yield time_calls("raster 160 boxes at 64 px", lambda: raster_boxes(boxes, 64), SIZE * OBJECTS, "boxes")
