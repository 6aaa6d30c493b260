"""Stage `encoders`: it learns pairs, its gradients go where they should, its measures state their pool."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from objgan.batch import Batch
from objgan.config import Config, build_config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.networks.backbones import Inception
from objgan.networks.encoders import ImageEncoder
from objgan.stages.encoders import EncodersStage, build_image_encoder, build_text_encoder
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step

MakeBatch = Callable[..., Batch]


@pytest.fixture
def stage(tiny_config: Config, domain: Domain) -> EncodersStage:
    torch.manual_seed(0)
    return EncodersStage(tiny_config, domain, {})


def with_weights(config: Config, path: Path) -> Config:
    values = config.model_dump()
    values["encoders"] |= {"backbone": "inception_v3", "backbone_weights": path}
    return build_config(values)


def test_it_learns_to_match_a_batch(stage: EncodersStage, make_batch: MakeBatch) -> None:
    batch, state = make_batch(6), TrainState(stage)
    first = train_step(state, batch, StepContext(0)).tensors()
    for _ in range(60):
        last = train_step(state, batch, StepContext(0)).tensors()
    assert last["matching/words"] < 0.6 * first["matching/words"]
    assert last["matching/sentences"] < 0.6 * first["matching/sentences"]
    assert stage.eval().measure(batch)["r1_of_pool"].mean() > 0.7


def test_gradients_reach_every_parameter(stage: EncodersStage, make_batch: MakeBatch) -> None:
    batch = make_batch(4)
    sum(stage.matching_losses(batch, stage(batch)).values()).backward()
    for name, parameter in stage.networks.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_learning_rate_falls_to_its_floor(stage: EncodersStage) -> None:
    optimiser = stage.phases[0].optimiser
    assert optimiser.betas == (0.5, 0.999)
    factors = [optimiser.schedule(epoch) for epoch in (0.0, 0.9, 1.0, 2.5, 1000.0)]
    assert factors == pytest.approx([1, 1, 0.98, 0.98**2, 0.1])


def test_measures_are_per_sample_and_held_out(stage: EncodersStage, make_batch: MakeBatch) -> None:
    measures = stage.eval().measure(make_batch(5))
    assert set(measures) == set(stage.measures) and stage.objective[0] in measures
    assert all(value.shape == (5,) and value.isfinite().all() for value in measures.values())
    assert all(value.shape == (1,) for value in stage.measure(make_batch(1)).values())


def test_pictures(stage: EncodersStage, make_batch: MakeBatch) -> None:
    pictures = stage.eval().pictures(make_batch(3))
    assert all(min(picture.size) > 100 for picture in pictures.values())


def test_a_frozen_backbone_survives_a_step(
    tiny_config: Config, domain: Domain, make_batch: MakeBatch, tmp_path: Path
) -> None:
    path = tmp_path / "inception.pth"
    torch.manual_seed(1)
    source = {name.removeprefix("layers."): tensor for name, tensor in Inception(frozen=True).state_dict().items()}
    torch.save(source, path)
    config = with_weights(tiny_config, path)
    state = TrainState(EncodersStage(config, domain, {}))
    train_step(state, make_batch(2), StepContext(0))
    encoder = state.stage.networks["image_encoder"]
    assert isinstance(encoder, ImageEncoder)
    for name, tensor in encoder.backbone.state_dict().items():
        assert torch.equal(tensor, source[name.removeprefix("layers.")]), name


def test_weights_are_read_for_training_and_not_for_a_finished_model(
    tiny_config: Config, domain: Domain, tmp_path: Path
) -> None:
    config = with_weights(tiny_config, tmp_path / "gone.pth")
    with pytest.raises(InputError, match="no file"):
        EncodersStage(config, domain, {})
    finished = build_image_encoder(config, domain)
    assert isinstance(finished.backbone, Inception) and finished.backbone.frozen
    stage = EncodersStage(
        config, domain, {"image_encoder": finished, "text_encoder": build_text_encoder(config, domain)}
    )
    assert stage.networks["image_encoder"] is finished
