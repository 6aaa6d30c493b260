"""Other tools open the shards as they are."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import Options, prepare
from pipelines.data.shards.format import load_manifest, read_shard, shards_of


@pytest.fixture(scope="module")
def parquet(tmp_path_factory, write_coco, scenes, data_config) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    source = write_coco(folder / "coco", *scenes(40))
    prepare(source, folder / "data", data_config, str, run_here, Options(format="parquet"))
    return folder / "data"


def _files(folder: Path) -> list[Path]:
    return [folder / shard.name for shard in shards_of(load_manifest(folder), "train")]


def _rows(folder: Path) -> list[dict]:
    return [row for path in _files(folder) for row in read_shard(path).to_pylist()]


def _is_a_picture(data: bytes) -> bool:
    return Image.open(io.BytesIO(data)).size == (64, 64)


def test_pyarrow_reads_both(prepared, parquet) -> None:
    with pa.ipc.open_file(_files(prepared)[0]) as opened:
        assert opened.read_all().to_pylist() == pq.read_table(_files(parquet)[0]).to_pylist()


def test_polars_reads_both(prepared, parquet) -> None:
    polars = pytest.importorskip("polars", reason="no polars: install the `dev` extra")
    for frame in (polars.read_ipc(_files(prepared)[0]), polars.read_parquet(_files(parquet)[0])):
        assert frame.to_dicts() == _rows(prepared)
        boxes = frame.select(polars.col("boxes").list.len().sum()).item()
        assert boxes == sum(len(row["boxes"]) for row in _rows(prepared))
        assert _is_a_picture(frame["image"][0])


def test_duckdb_queries_parquet(parquet) -> None:
    duckdb = pytest.importorskip("duckdb", reason="no duckdb: install the `dev` extra")
    rows = _rows(parquet)
    with duckdb.connect() as connection:
        files = [str(path) for path in _files(parquet)]
        asked = "select count(*), sum(len(labels)), min(width) from read_parquet($files) where split = 'train'"
        assert connection.execute(asked, {"files": files}).fetchone() == (
            len(rows),
            sum(len(row["labels"]) for row in rows),
            100,
        )
        captions = "select image_id, unnest(captions) as caption from read_parquet($files) order by all"
        found = connection.execute(captions, {"files": files}).fetchall()
        assert found == sorted((row["image_id"], caption) for row in rows for caption in row["captions"])


DATASETS = """
import io, json, sys
from datasets import load_dataset
from PIL import Image

kind, cache, *files = sys.argv[1:]
rows = load_dataset(kind, data_files={"train": files}, cache_dir=cache, split="train")
size = Image.open(io.BytesIO(rows[0]["image"])).size
print(json.dumps([rows["image_id"][:], rows["captions"][:], rows["boxes"][:], rows["masks"][:], size]))
"""


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_datasets_of_hugging_face_reads_both(request, tmp_path, kind) -> None:
    """In a separate process without network: the library reads its settings when it is imported."""
    pytest.importorskip("datasets", reason="no datasets: install the `dev` extra")
    folder = request.getfixturevalue({"arrow": "prepared", "parquet": "parquet"}[kind])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", DATASETS, kind, str(tmp_path / "cache"), *map(str, _files(folder))],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    ids, captions, boxes, masks, size = json.loads(done.stdout.splitlines()[-1])
    rows = _rows(folder)
    assert ids == [row["image_id"] for row in rows] and captions == [row["captions"] for row in rows]
    assert boxes == [row["boxes"] for row in rows] and masks == [row["masks"] for row in rows] and size == [64, 64]
