"""The notebook in `docs/`: stored without outputs, and its cells run in order."""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from objgan.picture import Picture
from tests.tools.untrained import write_model


def test_the_notebook_runs(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Jupyter without magics; the last expression of a cell is what it shows."""
    cells = json.loads((repository / "docs" / "edit_layouts.ipynb").read_text())["cells"]
    write_model(tmp_path / "runs" / "demo" / "assemble-1f2e3d4c5b" / "model")
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    names: dict[str, Any] = {}
    shown = [run("".join(cell["source"]), names) for cell in cells if cell["cell_type"] == "code"]

    first, redrawn, blue = (one for one in shown if isinstance(one, Picture))
    assert all(one._repr_png_().startswith(b"\x89PNG") for one in (first, redrawn, blue))
    assert not np.array_equal(first.image, redrawn.image) and not np.array_equal(redrawn.image, blue.image)
    boxes = [(one.label, one.box) for one in blue.layout.objects]
    assert ("kite", (0.5, 0.1, 0.3, 0.25)) in boxes and ("boat", (0.1, 0.55, 0.7, 0.35)) in boxes
    saved = json.loads((tmp_path / "runs" / "edited" / "kites.json").read_text())
    assert (tmp_path / "runs" / "edited" / "kites.png").read_bytes() == blue._repr_png_()
    assert saved["caption"] == blue.caption and len(saved["objects"]) == 3


def test_the_notebook_is_stored_without_outputs(repository: Path) -> None:
    for cell in json.loads((repository / "docs" / "edit_layouts.ipynb").read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None, cell["id"]


def run(cell: str, names: dict[str, Any]) -> Any:
    """Run a cell; returns the value of its last expression, None if it ends with a statement."""
    *body, last = ast.parse(cell).body
    if not isinstance(last, ast.Expr):
        body, last = [*body, last], ast.Expr(ast.Constant(None))
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)
