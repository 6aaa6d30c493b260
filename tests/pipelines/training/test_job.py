"""A job's run: its storage, checkpoints and data are opened once."""

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from objgan.config import Config
from objgan.errors import InputError
from pipelines.data.loading.data_folder import DataFolder
from pipelines.data.loading.reader import ShardReader
from pipelines.storage.checkpoints import FINISHED, CheckpointStore
from pipelines.training.driver import train
from pipelines.training.job import TrainJob, claim_folder, open_run
from tests.tools.training import small_config


def test_checks_stage_and_readers_share_one_opening_of_the_data(
    prepared: Path, data_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openings: Counter[type] = Counter()

    def count(cls: type) -> None:
        original = cls.__init__  # type: ignore[misc]

        def init(self: Any, *arguments: Any, **named: Any) -> None:
            openings[cls] += 1
            original(self, *arguments, **named)

        monkeypatch.setattr(cls, "__init__", init)

    for cls in (DataFolder, ShardReader, CheckpointStore):
        count(cls)
    run = open_run(TrainJob("shapes", small_config(data_config), prepared, tmp_path / "run"))
    claim_folder(run)
    run.new_stage()
    assert run.steps == small_config(data_config).shapes.training.steps
    assert run.checkpoints.newest() is None
    assert openings == {DataFolder: 1, ShardReader: 2, CheckpointStore: 1}, "a reader each for training and validation"


def test_a_reader_of_an_open_run_can_be_sent_to_a_loader_process(
    prepared: Path, data_config: Config, tmp_path: Path
) -> None:
    reader = open_run(TrainJob("shapes", small_config(data_config), prepared, tmp_path / "run")).reader("train")
    assert copy.copy(reader).image_id(0) == reader.image_id(0), "copied as it is pickled: opened anew"


def test_a_run_that_another_command_finished_meanwhile_is_not_taken_for_our_own(
    prepared: Path, data_config: Config, tmp_path: Path
) -> None:
    """Two commands with the same --run and other settings; the second one waits for the lease of the first."""
    ours, theirs = (
        open_run(TrainJob("shapes", small_config(data_config, steps=steps), prepared, tmp_path)) for steps in (2, 3)
    )
    claim_folder(theirs)
    theirs.store.write(FINISHED, '{"checkpoint": "step_00000003", "step": 3, "measures": {}}')
    with pytest.raises(InputError, match=r"begun differently \(shapes.training.steps: 3 -> 2\)"):
        train(ours)
