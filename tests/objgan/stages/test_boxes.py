"""Stage `boxes`: losses by hand, frozen helpers, an encoder of its own, measures and pictures."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from objgan.batch import Batch
from objgan.config import Config, build_config
from objgan.domain import Domain
from objgan.layout import Layout
from objgan.losses.boxes import label_nll, mixture_nll
from objgan.networks.encoders import TextEncoder
from objgan.stages.boxes import BoxesStage, build_box_generator
from objgan.stages.encoders import build_text_encoder
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step

MakeBatch = Callable[..., Batch]


def configured(config: Config, training: dict[str, float] | None = None, **boxes: object) -> Config:
    values = config.model_dump()
    values["boxes"] |= boxes
    values["boxes"]["training"] |= training or {}
    return build_config(values)


@pytest.fixture
def text_encoder(tiny_config: Config, domain: Domain) -> TextEncoder:
    torch.manual_seed(0)
    return build_text_encoder(tiny_config, domain)


@pytest.fixture
def stage(tiny_config: Config, domain: Domain, text_encoder: TextEncoder) -> BoxesStage:
    return BoxesStage(tiny_config, domain, {"text_encoder": text_encoder})


def test_losses_are_means_over_steps_and_over_objects(stage: BoxesStage, make_batch: MakeBatch) -> None:
    batch = make_batch(3, counts=[0, 2, 4], masks=False)
    outputs = stage.eval()(batch)
    boxes = stage.networks["box_generator"].standardise(batch.layout.boxes)
    label, coordinate, weight = 0.0, 0.0, stage.label_weights
    for b, count in enumerate((0, 2, 4)):
        targets = [*batch.layout.labels[b, :count].tolist(), 5]
        for step, target in enumerate(targets):
            label += weight[target] * label_nll(outputs.labels[b, step], torch.tensor(target))
        for r in range(count):
            coordinate += mixture_nll(outputs.position[b, r], boxes[b, r, :2])
            coordinate += mixture_nll(outputs.size[b, r], boxes[b, r, 2:])
    losses = stage.likelihood_losses(batch, outputs)
    torch.testing.assert_close(losses["label"], label / (1 + 3 + 5))
    torch.testing.assert_close(losses["coordinate"], coordinate / (2 + 4))


def test_label_weights_have_a_mean_of_one_over_objects_and_ends(stage: BoxesStage, domain: Domain) -> None:
    counts = torch.tensor([*domain.statistics.class_counts, domain.statistics.images], dtype=torch.float32)
    assert (stage.label_weights * counts).sum() / counts.sum() == pytest.approx(1.0, abs=1e-5)
    assert stage.label_weights[0] / stage.label_weights[3] == pytest.approx((40 / 5) ** -0.8, abs=1e-5)


def test_the_frozen_text_encoder_does_not_move(
    stage: BoxesStage, text_encoder: TextEncoder, make_batch: MakeBatch
) -> None:
    before = {name: tensor.clone() for name, tensor in text_encoder.state_dict().items()}
    started = [p.detach().clone() for p in stage.networks.parameters()]
    state = TrainState(stage)
    for seed in range(3):
        train_step(state, make_batch(4, seed=seed, images=False, masks=False), StepContext(0))
    assert not text_encoder.training and all(not p.requires_grad for p in text_encoder.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in text_encoder.state_dict().items())
    assert all(not torch.equal(a, b) for a, b in zip(started, stage.networks.parameters(), strict=True))


def test_an_encoder_of_its_own_needs_no_helper_and_learns(
    tiny_config: Config, domain: Domain, make_batch: MakeBatch
) -> None:
    config = configured(tiny_config, {"count_weight": 0.5}, text_encoder="own")
    assert BoxesStage.needed(config) == () and BoxesStage.needed(tiny_config) == ("text_encoder",)
    stage = BoxesStage(config, domain, {})
    started = [p.detach().clone() for p in stage.networks.parameters()]
    metrics = train_step(TrainState(stage), make_batch(4, images=False, masks=False), StepContext(0)).tensors()
    assert set(metrics) >= {"likelihood/label", "likelihood/coordinate", "likelihood/counts"}
    assert all(not torch.equal(a, b) for a, b in zip(started, stage.networks.parameters(), strict=True))


def test_a_missing_helper_is_named(tiny_config: Config, domain: Domain) -> None:
    with pytest.raises(ValueError, match="text_encoder"):
        BoxesStage(tiny_config, domain, {})


def test_a_batch_without_any_object(stage: BoxesStage, make_batch: MakeBatch) -> None:
    batch = make_batch(3, counts=[0, 0, 0], masks=False)
    metrics = train_step(TrainState(stage), batch, StepContext(0)).tensors()
    assert metrics["likelihood/coordinate"] == 0 and all(value.isfinite() for value in metrics.values())
    measures = stage.eval().measure(batch)
    assert set(measures) == set(stage.measures)
    assert measures["mixture_nll"].isnan().all() and measures["label_nll"].isfinite().all()


def test_measures_do_not_depend_on_the_batch(stage: BoxesStage, make_batch: MakeBatch) -> None:
    batch = make_batch(4, counts=[2, 0, 4, 1], masks=False)
    stage.eval()
    many = stage.measure(batch)
    assert stage.objective[0] in many and all(value.shape == (4,) for value in many.values())
    for i in range(4):
        one = slice(i, i + 1)
        alone = stage.measure(
            Batch(batch.image_ids[one], batch.words[one], batch.word_count[one], batch.layout[one], images=None)
        )
        for name, value in alone.items():
            torch.testing.assert_close(value, many[name][one], equal_nan=True, atol=1e-4, rtol=1e-4)


def test_padded_objects_change_no_loss(stage: BoxesStage, make_batch: MakeBatch) -> None:
    batch = make_batch(3, counts=[1, 2, 3], masks=False)
    valid = batch.layout.valid
    dirty = Layout(
        torch.where(valid, batch.layout.labels, 4),
        torch.where(valid[..., None], batch.layout.boxes, 0.3),
        batch.layout.count,
    )
    stage.eval()
    clean_losses = stage.likelihood_losses(batch, stage(batch))
    other = replace(batch, layout=dirty)
    for name, loss in stage.likelihood_losses(other, stage(other)).items():
        torch.testing.assert_close(loss, clean_losses[name])


def test_pictures(stage: BoxesStage, make_batch: MakeBatch) -> None:
    pictures = stage.eval().pictures(make_batch(3, counts=[0, 2, 4], masks=False))
    assert all(min(picture.size) > 100 for picture in pictures.values())


def test_the_count_head_learns_under_its_penalty(tiny_config: Config, domain: Domain, make_batch: MakeBatch) -> None:
    config = configured(
        tiny_config, {"count_weight": 1.0, "word_decay": 0.5}, presence=0.3, text_encoder="own", word_dropout=0.2
    )
    torch.manual_seed(0)
    stage = BoxesStage(config, domain, {})
    batch = make_batch(4, masks=False)
    generator = stage.networks["box_generator"]
    head = generator.count_head
    assert generator.presence == 0.3 and build_box_generator(tiny_config, domain).count_head is None
    plain = stage.likelihood_losses(batch, stage.eval()(batch))["counts"]
    with torch.no_grad():
        head.weights.weight[0] = 0.5  # padding's row: it takes part in no sum
    assert head.penalty() > 0
    torch.testing.assert_close(
        stage.likelihood_losses(batch, stage(batch))["counts"] - plain, 0.5 * head.penalty(), rtol=1e-3, atol=1e-3
    )
    state = TrainState(stage)
    losses = [train_step(state, batch, StepContext(0)).tensors()["likelihood/counts"].item() for _ in range(2)]
    assert losses[1] < losses[0]
