"""The shapes stage: who learns in which phase, what counts, and that it learns."""

import math

import pytest
import torch

from objgan.config import Config, build_config
from objgan.stages.shapes import ShapesStage
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step
from tests.tools.batches import all_losses


def _with(config: Config, shapes: dict | None = None, **training) -> Config:
    values = config.model_dump()
    values["shapes"] |= shapes or {}
    values["shapes"]["training"] |= training
    return build_config(values)


@pytest.fixture
def stage(tiny_config, domain) -> ShapesStage:
    torch.manual_seed(0)
    return ShapesStage(_with(tiny_config, pixel_weight=1.0), domain, {})


@pytest.mark.parametrize("kind", ["bce", "hinge"])
@pytest.mark.parametrize("phase", [0, 1])
def test_gradients_reach_the_phases_networks_and_no_other(tiny_config, domain, make_batch, kind, phase) -> None:
    torch.manual_seed(0)
    stage = ShapesStage(_with(tiny_config, {"adversarial": kind}, pixel_weight=1.0), domain, {})
    for name in stage.phases[0].networks:
        # Where the hinge cuts nothing, real and fake logits pull at the last bias exactly alike.
        torch.nn.init.constant_(stage.networks[name].trunk.head.bias, 1.0)
    state, batch = TrainState(stage), make_batch(8, images=False)
    outputs = stage(batch)
    state.switch_gradients(stage.phases[phase])
    losses = all_losses(stage.phases[phase], batch, outputs)
    sum(losses[name] * weight for name, weight in stage.phases[phase].weights.items()).backward()
    for name, network in stage.networks.items():
        for key, parameter in network.named_parameters():
            if name in stage.phases[phase].networks:
                assert parameter.grad is not None, f"{name}.{key}"
                assert parameter.grad.any(), f"{name}.{key}"
            else:
                assert parameter.grad is None, f"{name}.{key}"


def test_every_weight_names_a_loss(stage, make_batch) -> None:
    batch = make_batch(2, images=False)
    outputs = stage(batch)
    for phase in stage.phases:
        assert phase.weights.keys() <= all_losses(phase, batch, outputs).keys()


def test_losses_do_not_count_padding_or_empty_pictures(stage, make_batch) -> None:
    """Pictures without objects, added to a batch, change no loss. The seed gives both passes the same noise."""
    stage.eval()
    full, some = make_batch(4, counts=[2, 3, 0, 0], images=False), slice(0, 2)
    part = type(full)(full.image_ids[some], full.words[some], full.word_count[some], full.layout[some])
    found = []
    for batch in (full, part):
        torch.manual_seed(3)
        outputs = stage(batch)
        losses = stage.discriminator_losses(batch, outputs) | {
            f"generator_{k}": v for k, v in stage.generator_losses(batch, outputs).items()
        }
        found.append(losses)
    for name, value in found[1].items():
        torch.testing.assert_close(found[0][name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_discriminators_that_know_nothing_lose_log_2_a_side(stage, make_batch) -> None:
    for name in ("instance_discriminator", "global_discriminator"):
        torch.nn.init.zeros_(stage.networks[name].trunk.head.weight)
        torch.nn.init.zeros_(stage.networks[name].trunk.head.bias)
    batch = make_batch(3, images=False)
    losses = stage.discriminator_losses(batch, stage(batch))
    assert losses["instance"].item() == pytest.approx(2 * math.log(2), rel=1e-5)
    assert losses["global"].item() == pytest.approx(2 * math.log(2), rel=1e-5)
    assert stage.generator_losses(batch, stage(batch))["instance"].item() == pytest.approx(math.log(2), rel=1e-5)


def test_true_masks_have_no_feature_distance(stage, make_batch) -> None:
    batch = make_batch(3, images=False)
    truth = batch.layout.soft_masks
    outputs = stage(batch)
    assert stage.generator_losses(batch, outputs)["perceptual"].item() > 0
    perfect = type(outputs)(outputs.logits, truth)
    assert stage.generator_losses(batch, perfect)["perceptual"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ["bce", "hinge"])
def test_a_step_on_pictures_without_objects(tiny_config, domain, make_batch, kind) -> None:
    stage = ShapesStage(_with(tiny_config, {"adversarial": kind}), domain, {})
    state = TrainState(stage)
    before = {key: value.clone() for key, value in stage.networks.state_dict().items() if "_u" not in key}
    metrics = train_step(state, make_batch(2, counts=[0, 0], images=False), StepContext(seed=0)).tensors()
    assert all(value == 0 for value in metrics.values())
    assert all(stage.measure(make_batch(2, counts=[0, 0]))["mask_iou"].isnan())
    assert set(stage.pictures(make_batch(1, counts=[0]))) == {"shapes"}
    parameters = dict(stage.networks.named_parameters())
    assert all(torch.equal(parameters[key], before[key]) for key in before if key in parameters)


def test_a_step_in_bfloat16_is_close_to_one_in_float32(tiny_config, domain, make_batch) -> None:
    found = []
    for precision in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        state = TrainState(ShapesStage(_with(tiny_config, pixel_weight=1.0), domain, {}))
        found.append(train_step(state, make_batch(4, images=False), StepContext(seed=0, precision=precision)).tensors())
    for name in ("discriminators/instance", "discriminators/global", "generator/pixel", "generator/perceptual"):
        assert found[1][name].dtype == torch.float32
        assert found[1][name].item() == pytest.approx(found[0][name].item(), rel=0.03)


def test_learning_rate_decays_per_epoch_from_the_given_one(tiny_config, domain) -> None:
    stage = ShapesStage(_with(tiny_config, lr_decay=0.98, lr_decay_from=50), domain, {})
    for phase in stage.phases:
        rates = [phase.optimiser.schedule(epoch) for epoch in (0.0, 50.9, 51.0, 53.5)]
        assert rates == pytest.approx([1, 1, 0.98, 0.98**3])
    assert stage.phases[1].clip == {"shape_generator": 0.25}


def test_measures_depend_on_the_sample_alone(stage, make_batch) -> None:
    stage.eval()
    batch = make_batch(3, counts=[2, 4, 1], images=False)
    last = slice(2, 3)
    alone = type(batch)(batch.image_ids[last], batch.words[last], batch.word_count[last], batch.layout[last])
    together, single = stage.measure(batch), stage.measure(alone)
    assert set(together) == {*stage.measures, "mask_iou_ellipse"}
    for name, value in single.items():
        torch.testing.assert_close(together[name][last], value)
    assert (together["mask_iou_ellipse"] == 1).all()  # the fixture draws ellipses


@pytest.mark.parametrize("steps", [1, 2])
def test_with_templates_all_moves_from_the_second_step_on(tiny_config, domain, make_batch, steps) -> None:
    """The last convolution and the templates' offsets begin at 0, so what lies before them waits for one step."""
    torch.manual_seed(0)
    state = TrainState(ShapesStage(_with(tiny_config, {"template": 8}, overlap_weight=1.0, clip=5.0), domain, {}))
    before = {key: value.clone() for key, value in state.stage.networks["shape_generator"].named_parameters()}
    for _ in range(steps):
        train_step(state, make_batch(4, images=False), StepContext(seed=0))
    moved = {
        key
        for key, value in state.stage.networks["shape_generator"].named_parameters()
        if not torch.equal(value, before[key])
    }
    if steps == 1:
        assert {"templates.shared", "templates.offset.weight", "decode.3.weight", "decode.3.bias"} <= moved
    else:
        assert moved == set(before)


def test_pictures_have_a_row_a_sample(stage, make_batch) -> None:
    one, two = (stage.pictures(make_batch(n, images=False))["shapes"] for n in (1, 2))
    assert one.width == two.width >= 3 * 256
    assert two.height - one.height >= 256


def test_it_learns_a_shape_within_a_few_steps(tiny_config, domain, make_batch) -> None:
    """Upper-left triangles, which neither the box nor the ellipse gives: a full box has IoU 0.5."""
    config = _with(tiny_config, pixel_weight=10.0, generator_lr=4e-3, clip=5.0, ema_decay=0.9)
    torch.manual_seed(0)
    state, batch = TrainState(ShapesStage(config, domain, {})), make_batch(4, seed=1, images=False)
    layout, size = batch.layout, config.data.mask_size
    centres = (torch.arange(size) + 0.5) / size
    across = (centres - layout.boxes[..., :1]) / layout.boxes[..., 2:3]
    down = (centres - layout.boxes[..., 1:2]) / layout.boxes[..., 3:]
    inside = (across >= 0)[..., None, :] & (down >= 0)[..., :, None]
    triangles = inside & (across[..., None, :] + down[..., :, None] <= 1)
    batch = type(batch)(batch.image_ids, batch.words, batch.word_count, layout.with_masks(triangles.byte() * 255))
    for _ in range(24):
        train_step(state, batch, StepContext(seed=0))
    with state.evaluation() as stage:
        found = stage.measure(batch)
    assert found["mask_iou"].nanmean() > found["mask_iou_ellipse"].nanmean() + 0.2
    assert found["mask_iou"].nanmean() > 0.75
