"""Registering a sweep's best trial: which checkpoints are taken, and which do not fit together."""

from dataclasses import replace
from pathlib import Path

import mlflow.artifacts
import pytest
import torch

from objgan.checkpoint import load_inference, save_checkpoint
from objgan.config import STAGES, Config, build_config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.stages import build_stage
from objgan.train_state import TrainState
from pipelines.models.registry import MAKER, Registered, mlflow_at
from pipelines.tracking.mlflow_client import mlflow_client
from tests.tools.recorded import recorded_sweep
from tune.confirm.promote import find_candidate, promote, whole_model
from tune.sweep.results import Point, Trial
from tune.sweep.sweep import Sweep

SMALL = {
    "encoders": {"channels": 16, "embedding": 8, "backbone": "small", "small_width": 8},
    "boxes": {"hidden": 16, "label_embedding": 8, "coordinate_embedding": 8},
    "shapes": {"width": 8, "class_embedding": 4, "noise": 2, "discriminator_width": 8},
    "images": {"width": 4, "discriminator_width": 4, "noise": 8, "condition": 8, "word_channels": 6, "next_blocks": 1},
}


@pytest.fixture(scope="module")
def config(data_config: Config) -> Config:
    values = data_config.model_dump(mode="json")
    for stage, sizes in SMALL.items():
        values[stage] |= sizes
    values["boxes"]["text_encoder"] = "frozen"
    return build_config(values)


@pytest.fixture(scope="module")
def stages(config: Config, prepared: Path, tmp_path_factory) -> Path:
    """A run with all four stages as they are drawn."""
    root = tmp_path_factory.mktemp("runs") / "first"
    domain, helpers = Domain.load(prepared / "domain"), {}
    torch.manual_seed(0)
    for name in STAGES:
        stage = build_stage(name, config, domain, helpers)
        save_checkpoint(root / name / "step_00000002", TrainState(stage))
        (root / name / "finished.json").write_text('{"checkpoint": "step_00000002", "step": 2, "measures": {}}')
        helpers |= load_inference(root / name / "step_00000002") if name == "encoders" else {}
    return root


@pytest.fixture
def swept(config: Config, prepared: Path, stages: Path) -> tuple[Sweep, Trial]:
    """A sweep of stage `boxes` beside that run, with one trial."""
    sweep = replace(recorded_sweep(stages.parent, prepared), config=config)
    settings = {"boxes.dropout": 0.25}
    trial = Trial("a", 3, settings, "finished", (Point(2, 1.0, {"label_f1": 0.5}),), "step_00000002")
    place = stages.parent / "recorded" / "trials" / "a" / "boxes"
    if not place.exists():
        changed = build_config(config.model_dump() | {"boxes": {**config.boxes.model_dump(), "dropout": 0.25}})
        helpers = load_inference(stages / "encoders" / "step_00000002")
        stage = build_stage("boxes", changed, Domain.load(prepared / "domain"), helpers)
        save_checkpoint(place / "step_00000002", TrainState(stage))
    return sweep, trial


def test_a_whole_model_is_made_of_the_trial_and_another_run(swept, stages: Path, tmp_path: Path) -> None:
    sweep, trial = swept
    candidate = find_candidate(sweep, trial, "first")
    assert candidate.whole and candidate.checkpoints["boxes"].parent.parent.name == "a"
    model = ObjGAN.load(whole_model(candidate, tmp_path), device="cpu")
    assert model.config.boxes.dropout == 0.25 and model.config.images.width == 4


def test_parts_that_were_made_for_other_encoders_are_refused(swept, tmp_path: Path) -> None:
    sweep, trial = swept
    candidate = replace(find_candidate(sweep, trial, "first"), sweep=replace(sweep, stages=("encoders", "boxes")))
    with pytest.raises(InputError, match="shapes and images of --rest were trained with other"):
        whole_model(candidate, tmp_path)


def test_a_run_that_lacks_a_stage_is_refused(swept) -> None:
    with pytest.raises(InputError, match="no finished stage encoders"):
        find_candidate(*swept, "second")
    sweep, trial = swept
    with pytest.raises(InputError, match="no measured checkpoint"):
        find_candidate(sweep, replace(trial, checkpoint=None), None)


def test_a_stage_alone_is_a_version_that_holds_its_checkpoint(swept, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    candidate = find_candidate(*swept, None)
    assert not candidate.whole
    assert promote(candidate, "mine", uri, None) == Registered("models:/mine-boxes/1", new=True)
    assert promote(candidate, "mine", uri, None) == Registered("models:/mine-boxes/1", new=False)
    client = mlflow_client(uri)
    version = client.get_model_version_by_alias("mine-boxes", "challenger")
    assert version.version in (1, "1") and version.tags["objgan.trial_number"] == "3"
    with mlflow_at(uri):
        there = mlflow.artifacts.download_artifacts("models:/mine-boxes@challenger", dst_path=str(tmp_path / "there"))
    assert set(load_inference(Path(there) / "checkpoint")) == {"box_generator"}
    card = (Path(there) / "README.md").read_text()
    assert version.description == card.strip() and "# models:/mine-boxes/1" in card and "stage `boxes`" in card
    assert "boxes: step of the checkpoint" in card and "train boxes --init-from" in card and "pyfunc" not in card
    assert version.tags["licence"] == "Apache-2.0" and version.tags["validation_status"] == "pending"
    (logged,) = client.search_logged_models([client.get_experiment_by_name("objgan").experiment_id])
    assert logged.tags[MAKER] == "", "`runs gc` would remove it"
