"""The learning benchmark's frame: rows are kept, time is kept, and a killed fit goes on bit-identically."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.sample import make_sample
from pipelines.recipes import resolve
from pipelines.workflow.run import sample_source
from tests.benchmarks.learn import __main__ as learn
from tests.benchmarks.learn.rows import Cell, Options, load_rows


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A section of three cells in the place of the real ones; the keys in the order in which they ran."""
    ran: list[str] = []

    def cell(key: str) -> Cell:
        def run(folder: Path, log: Callable[[str], None]) -> dict[str, Any]:
            ran.append(key)
            return {"figure": len(ran)}

        return Cell(key, run)

    made = SimpleNamespace(
        NAME="real_boxes",
        TITLE="Made up",
        cells=lambda options: [cell(key) for key in ("a", "b", "c")],
        table=lambda rows: ", ".join(f"{key} {row['figure']}" for key, row in rows.items()),
    )
    monkeypatch.setattr(learn, "section", lambda name: made)
    return ran


def test_finished_cells_are_skipped(done: list[str], tmp_path: Path) -> None:
    options, silent = Options(tmp_path), lambda text: None
    assert learn.work(["real_boxes"], options, time.monotonic() + 60, silent)
    assert learn.work(["real_boxes"], options, time.monotonic() + 60, silent)
    assert done == ["a", "b", "c"]
    assert load_rows(tmp_path, "real_boxes") == {"a": {"figure": 1}, "b": {"figure": 2}, "c": {"figure": 3}}


def test_time_that_is_up_begins_no_cell_and_the_table_has_what_there_is(done: list[str], tmp_path: Path) -> None:
    assert not learn.work(["real_boxes"], Options(tmp_path), time.monotonic() - 1, lambda text: None)
    assert done == []
    (tmp_path / "real_boxes").mkdir()
    (tmp_path / "real_boxes" / "b.json").write_text('{"figure": 7}')
    assert "b 7" in learn.render(tmp_path)


def test_a_section_without_rows_here_stays_as_it_was(done: list[str], tmp_path: Path) -> None:
    before = learn.render(tmp_path, "# Page\n\nGone.\n\n## Another\n\nStays.\n\n## Made up\n\nb 8\n")
    assert "## Made up\n\nb 8\n" in before and "Not measured" not in before and "Gone" not in before
    assert before.endswith("## Another\n\nStays.\n")
    assert learn.render(tmp_path, before) == before


def test_notes_begin_no_section_of_the_page() -> None:
    """`render` would take one for a section of others, and write it again at the end."""
    notes = [path.read_text() for path in learn.HERE.glob("tried_*.md")]
    assert notes and not any(line.startswith("## ") for text in notes for line in text.splitlines())


def test_a_wrong_section_is_refused_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        learn.main(["--only", "nonsense"])
    assert "nonsense" in capsys.readouterr().err


_FIT = """
import sys
from pathlib import Path
import tests.benchmarks.learn.fit as fit
from pipelines.training.job import OpenRun, TrainJob
from pipelines.recipes import resolve
fit._SAVE_EVERY_S = 0.0
settings = ["boxes.training.steps=40", "boxes.training.batch_size=8", "boxes.training.cooldown=0.5",
            "boxes.training.checkpoint_every=20", "boxes.training.log_every=1"]
job = TrainJob("boxes", resolve("tiny", None, settings), Path(sys.argv[1]), Path(sys.argv[2]))
print(fit.fit(OpenRun(job), lambda line: print(line, flush=True)).step, flush=True)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty drawn pictures, prepared."""
    folder = tmp_path_factory.mktemp("learn")
    make_sample(folder / "coco", 40, 0)
    prepare(sample_source(folder / "coco"), folder / "data", resolve("tiny", None, []), run_here)
    return folder / "data"


def test_a_killed_fit_goes_on_to_the_same_weights(data: Path, tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "-c", _FIT, str(data)]
    process = subprocess.Popen([*command, str(tmp_path / "killed")], cwd=repository, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any("step 12 " in line for line in process.stdout)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    outputs = [
        subprocess.run([*command, str(tmp_path / name)], cwd=repository, capture_output=True, text=True, check=True)
        for name in ("killed", "whole")
    ]
    assert "goes on at step" in outputs[0].stdout
    assert "goes on" not in outputs[1].stdout
    ours, theirs = (
        load_file(tmp_path / name / "last/networks/box_generator.safetensors") for name in ("killed", "whole")
    )
    assert all((ours[key] == theirs[key]).all() for key in theirs)
    assert (tmp_path / "killed/fitted.json").read_text().split('"seconds"')[0] == (
        tmp_path / "whole/fitted.json"
    ).read_text().split('"seconds"')[0]
