"""Other tools open the shards as they are."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
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
    prepare(source, folder / "data", data_config, run_here, Options(format="parquet"))
    return folder / "data"


@pytest.fixture(scope="module")
def typed(repository: Path) -> Callable[[str, Path], str]:
    """typed(function, folder) -> the command of README that calls it, for that folder."""
    readme = (repository / "pipelines" / "README.md").read_text()

    def command(function: str, folder: Path) -> str:
        (found,) = re.findall(rf"`({re.escape(function)}\(.*?)`", readme)
        assert "data/prepared" in found
        return str(found).replace("data/prepared", str(folder))

    return command


def _files(folder: Path) -> list[Path]:
    return [folder / shard.name for shard in shards_of(load_manifest(folder), "train")]


def _rows(folder: Path) -> list[dict]:
    return [row for path in _files(folder) for row in read_shard(path).to_pylist()]


def _is_a_picture(data: bytes) -> bool:
    return Image.open(io.BytesIO(data)).size == (64, 64)


def test_pyarrow_reads_both(prepared, parquet) -> None:
    with pa.ipc.open_file(_files(prepared)[0]) as opened:
        assert opened.read_all().to_pylist() == pq.read_table(_files(parquet)[0]).to_pylist()


def test_polars_reads_both(prepared, parquet, typed) -> None:
    polars = pytest.importorskip("polars", reason="no polars: install the `dev` extra")
    for command in (typed("polars.read_ipc", prepared), typed("polars.read_parquet", parquet)):
        frame = eval(command, {"polars": polars})
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
import json
import datasets

splits = COMMAND
rows = splits["train"]
names = rows.features["labels"].feature.names
print(json.dumps([rows["image_id"][:], rows["captions"][:], rows["boxes"][:], rows["masks"][:], rows[0]["image"].size,
                  {name: len(split) for name, split in splits.items()}, names]))
"""


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_datasets_of_hugging_face_reads_both(request, tmp_path, typed, kind) -> None:
    """In a separate process without network: the library reads its settings when it is imported."""
    pytest.importorskip("datasets", reason="no datasets: install the `dev` extra")
    folder = request.getfixturevalue({"arrow": "prepared", "parquet": "parquet"}[kind])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", DATASETS.replace("COMMAND", typed("datasets.load_dataset", folder))],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    ids, captions, boxes, masks, size, splits, names = json.loads(done.stdout.splitlines()[-1])
    rows, manifest = _rows(folder), load_manifest(folder)
    assert ids == [row["image_id"] for row in rows] and captions == [row["captions"] for row in rows]
    assert boxes == [row["boxes"] for row in rows] and masks == [row["masks"] for row in rows] and size == [64, 64]
    assert splits == manifest["rows"] and names == manifest["classes"]


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_the_reader_of_the_readme_needs_nothing_of_ours(request, repository, tmp_path, kind) -> None:
    folder = request.getfixturevalue({"arrow": "prepared", "parquet": "parquet"}[kind])
    section = (repository / "pipelines" / "README.md").read_text().split("\n### In other tools\n")[1].split("\n## ")[0]
    (program,) = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    program = program.replace('"ipc"', '"parquet"') if kind == "parquet" else program
    assert len([line for line in program.splitlines() if line]) == 12 and "objgan" not in program
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(folder)],
        env=bare,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("['person', 'kite', 'person'] (64, 64)") == len(_rows(folder))


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_the_schema_describes_every_column(request, typed, kind) -> None:
    folder = request.getfixturevalue({"arrow": "prepared", "parquet": "parquet"}[kind])
    command = typed("pyarrow.dataset.dataset", folder)
    rows = eval(command if kind == "arrow" else command.replace('"ipc"', '"parquet"'), {"pyarrow": pa})
    assert rows.count_rows() == sum(load_manifest(folder)["rows"].values()), "the indices are no shards"
    described = {field.name: field.metadata for field in rows.schema}
    assert all(len(metadata[b"description"]) > 10 for metadata in described.values())
    assert described["boxes"][b"format"] == b"xywh" and described["width"][b"unit"] == b"pixel"
    assert json.loads(described["labels"][b"classes"]) == ["person", "kite", "bottle"]
    assert described["masks"][b"size"] == b"64 64" and b"from annotations" in described["captions"][b"description"]
    assert not list(folder.glob("train-*i*")), "no index among the files of a split"
