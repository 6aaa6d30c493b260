import dataclasses
import json
from pathlib import Path

import pytest

from objgan.errors import InputError
from pipelines.runs.status import FILE, CheckpointNote, RunStatus
from pipelines.storage.storage import Storage
from pipelines.training.reporting import system_metrics

STATUS = RunStatus(
    state="running",
    stage="boxes",
    step=40,
    steps=200,
    samples_per_s=12.5,
    seconds_per_step=0.8,
    eta_s=128.0,
    checkpoint=CheckpointNote("step_00000040", 40, 1000.5),
    error="worker died",
    skipped=2,
    restarts=1,
    workers=2,
    mlflow_run="0" * 32,
    updated=1001.5,
)


def test_a_status_comes_back_as_it_was(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    assert RunStatus.load(storage) is None
    for status in (STATUS, RunStatus("failed", "images", error="no space left")):
        status.save(storage)
        assert RunStatus.load(storage) == status


def test_a_number_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    dataclasses.replace(STATUS, eta_s=float("nan"), samples_per_s=float("inf")).save(Storage(tmp_path))
    facts = json.loads((tmp_path / FILE).read_text(), parse_constant=lambda text: pytest.fail(text))
    assert facts["eta_s"] is None and facts["samples_per_s"] is None


def test_what_a_newer_version_added_is_passed_over(tmp_path: Path) -> None:
    STATUS.save(Storage(tmp_path))
    facts = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**facts, "version": 9, "weather": {"sun": True}}))
    assert RunStatus.load(Storage(tmp_path)) == dataclasses.replace(STATUS, version=9)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "{}", b"\xff\xfe", '{"state": "running"}', '{"state": "asleep", "stage": "boxes"}'),
        '{"state": "running", "stage": "boxes", "checkpoint": {}}',
        '{"state": "running", "stage": "boxes", "step": "x"}',
    ],
)
def test_a_broken_status_is_one_line(tmp_path: Path, text: str | bytes) -> None:
    (tmp_path / FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"status of the run: .*status.json cannot be read") as raised:
        RunStatus.load(Storage(tmp_path))
    assert "\n" not in str(raised.value)


def test_system_metrics_are_named_finite_and_cheap(tmp_path: Path) -> None:
    system_metrics(tmp_path)
    values = system_metrics(tmp_path)
    assert all(name.startswith("system/") for name in values)
    assert values["system/disk_free_gb"] > 0 and 0.01 < values["system/memory_rss_gb"] < 100
    assert values["system/network_received_mb"] >= 0
    assert "system/disk_free_gb" not in system_metrics(None)
