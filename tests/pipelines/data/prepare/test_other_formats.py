"""The README's commands that convert YOLO and Pascal VOC; `prepare` reads what they write."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from objgan.config import Config
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource
from pipelines.data.shards.format import read_split

VOC = """<annotation><folder>images</folder><filename>{name}.jpg</filename>
<size><width>80</width><height>60</height><depth>3</depth></size>
<object><name>hard hat</name><bndbox><xmin>30</xmin><ymin>15</ymin><xmax>50</xmax><ymax>45</ymax></bndbox></object>
<object><name>person</name><bndbox><xmin>16</xmin><ymin>9</ymin><xmax>24</xmax><ymax>21</ymax></bndbox></object>
</annotation>"""
YOLO = "0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.1 0.2\n"


def _write(folder: Path, kind: str, number: int = 12) -> None:
    """Pictures, and annotations in `kind`'s own form: the same two boxes in each."""
    for name in ("images", "labels"):
        (folder / kind / name).mkdir(parents=True)
    (folder / kind / "names.txt").write_text("hard hat\nperson\n")
    for name in range(number):
        Image.new("RGB", (80, 60), (9 * name, 0, 0)).save(folder / kind / "images" / f"{name}.jpg")
        text, ending = (YOLO, "txt") if kind == "yolo" else (VOC.format(name=name), "xml")
        (folder / kind / "labels" / f"{name}.{ending}").write_text(text)


@pytest.mark.parametrize("kind", ["yolo", "voc"])
def test_the_commands_of_the_readme(kind: str, repository: Path, data_config: Config, tmp_path: Path) -> None:
    pytest.importorskip("globox", reason="no globox, which is no dependency: pip install --target it, set PYTHONPATH")
    readme = (repository / "pipelines" / "README.md").read_text()
    command = next(found for found in re.findall(r"^python (-m globox .*)$", readme, re.M) if f" {kind}/" in found)
    _write(tmp_path, kind)
    subprocess.run([sys.executable, *shlex.split(command)], cwd=tmp_path, check=True, capture_output=True)
    source = CocoSource(tmp_path / kind / "images", tmp_path / kind / "instances.json", None)
    manifest = prepare(source, tmp_path / "data", data_config, run_here)
    assert manifest["counts"]["images"] == 12 and manifest["counts"]["objects"] == 24
    (first, *_) = next(read_split(tmp_path / "data", manifest, "train")).to_pylist()
    assert [manifest["classes"][label] for label in first["labels"]] == ["hard hat", "person"]
    assert first["boxes"] == pytest.approx([0.375, 0.25, 0.25, 0.5, 0.2, 0.15, 0.1, 0.2])
