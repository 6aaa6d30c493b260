"""Preparing the drawn sample with Ray Data, and reading training batches from its shards."""

import os
from collections.abc import Iterator
from pathlib import Path

from objgan.config import Config
from pipelines.data.loading.batch_plan import BatchPlan
from pipelines.data.loading.reader import ShardReader, read_parts
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.data.sample import make_sample
from pipelines.recipes import resolve
from pipelines.runtime.ray_session import ray_session
from tests.benchmarks.measure import Measurement, time_calls

IMAGES = 200


def bench_prepare_and_read(scratch: Path) -> Iterator[Measurement]:
    """COCO files to shards, once Ray is up; then batches of 16 with the columns that each stage asks for."""
    config = resolve("tiny", None, [])
    make_sample(scratch / "coco", IMAGES, 0)
    annotations = scratch / "coco" / "annotations"
    source = CocoSource(scratch / "coco" / "images", annotations / "instances.json", annotations / "captions.json")
    with ray_session():
        # Ray's workers start with the first call; that is the warm-up. A new folder each time: nothing is overwritten.
        folders = (scratch / f"prepared-{number}" for number in range(100))
        yield time_calls(
            f"prepare {IMAGES} drawn images on {os.cpu_count()} cores",
            lambda: prepare(source, next(folders), config),
            IMAGES,
            "images",
            repeats=3,
            warm_up=1,
        )
    for columns in ((), ("boxes",), ("boxes", "masks"), ("boxes", "masks", "image")):
        yield _read(scratch / "prepared-0", config, frozenset(columns))


def _read(folder: Path, config: Config, columns: frozenset[str]) -> Measurement:
    reader = ShardReader(folder, "train", columns, config, max_words=12)
    order = BatchPlan(batch_size=16, seed=0, start=0, stop=1000)
    steps = iter(range(order.stop))
    what = " + ".join(["captions", *sorted(columns)])
    return time_calls(f"read 16 x {what}", lambda: read_parts(reader, order, next(steps)), 16, "samples", repeats=20)
