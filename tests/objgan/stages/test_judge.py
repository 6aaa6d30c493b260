"""The judge's stage: what its losses count, that it learns what is inside an outline, and that its network loads."""

import math
from dataclasses import replace

import pytest
import torch

from objgan.batch import Batch
from objgan.checkpoint import load_inference, save_checkpoint
from objgan.config import STAGES, Config, build_config
from objgan.errors import InputError
from objgan.layout import Layout
from objgan.stages import NETWORKS, STAGE_CLASSES, build_network, build_stage, stage_class
from objgan.stages.judge import JudgeStage, blurred, coloured_noise, degrade
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step


def _config(config: Config, **judge) -> Config:
    return build_config(config.model_dump() | {"judge": {"width": 8, "training": {"lr": 5e-3, "cooldown": 0}} | judge})


@pytest.fixture
def stage(tiny_config, domain) -> JudgeStage:
    torch.manual_seed(0)
    return JudgeStage(_config(tiny_config), domain, {})


def _known(batch: Batch) -> Batch:
    colours = torch.where(batch.layout.valid, batch.layout.labels % 3, -1)
    return replace(batch, colours=colours, scenes=batch.image_ids % 4)


def _textured(size: int, seed: int) -> Batch:
    """Squares of one size with upright (class 0) or level (class 1) stripes, red or blue, on grey or on green."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (size, 2), generator=draw)
    colours = torch.randint(0, 2, (size, 2), generator=draw)
    scenes = torch.randint(0, 2, (size,), generator=draw)
    tints = torch.tensor([[230, 40, 40], [40, 40, 230]])
    grounds = torch.tensor([[130, 130, 130], [40, 160, 60]])
    images = grounds[scenes][:, :, None, None].expand(-1, -1, 64, 64).clone()
    boxes, masks = torch.zeros(size, 2, 4), torch.zeros(size, 2, 32, 32, dtype=torch.uint8)
    for sample in range(size):
        for index in range(2):
            y, x = (int(v) for v in torch.randint(0, 9, (2,), generator=draw))
            y, x = 4 * y, x // 4 * 4 + 32 * index
            stripes = (torch.arange(24) // 3 % 2).float()[None].expand(24, 24)
            stripes = stripes if labels[sample, index] else stripes.T
            tint = tints[colours[sample, index]][:, None, None]
            images[sample, :, y : y + 24, x : x + 24] = (tint * (0.4 + 0.6 * stripes)).long()
            boxes[sample, index] = torch.tensor([x, y, 24, 24]) / 64
            masks[sample, index, y // 2 : y // 2 + 12, x // 2 : x // 2 + 12] = 255
    count = torch.full((size,), 2)
    words = torch.full((size, 8), 2)
    layout = Layout(labels, boxes, count, masks)
    return Batch(torch.arange(size), words, count, layout, images.byte(), colours, scenes)


def test_it_is_built_by_name_but_is_no_part_of_a_model(tiny_config, domain) -> None:
    config = _config(tiny_config)
    assert stage_class("judge") is JudgeStage
    assert isinstance(build_stage("judge", config, domain, {}), JudgeStage)
    assert build_network("judge", config, domain).classes == len(domain.classes)
    assert "judge" not in STAGES and "judge" not in STAGE_CLASSES and "judge" not in NETWORKS
    with pytest.raises(InputError, match="judge"):
        stage_class("juge")


def test_a_judge_that_knows_nothing_loses_the_logarithms_of_the_choices(stage, make_batch) -> None:
    for head in (stage.networks["judge"].to_classes, stage.networks["judge"].to_colours):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    batch = _known(make_batch(4))
    losses = stage.judge_losses(batch, stage(batch))
    assert losses["objects"].item() == pytest.approx(math.log(6), rel=1e-5)
    assert losses["background"].item() == pytest.approx(math.log(6), rel=1e-5)
    assert losses["colours"].item() == pytest.approx(math.log(10), rel=1e-5)


def test_silhouettes_ask_for_nothing_and_for_no_colour(tiny_config, domain, make_batch) -> None:
    stage = JudgeStage(_config(tiny_config), domain, {})
    torch.nn.init.zeros_(stage.networks["judge"].to_classes.weight)
    with torch.no_grad():
        stage.networks["judge"].to_classes.bias.copy_(torch.tensor([0.0] * 5 + [20.0]))
    batch = _known(make_batch(3))
    outputs = stage(batch)
    every = stage.judge_losses(batch, replace(outputs, flat=batch.layout.valid))
    none = stage.judge_losses(batch, replace(outputs, flat=torch.zeros_like(batch.layout.valid)))
    assert every["objects"] < 1e-6 and none["objects"] > 19
    assert every["colours"] == 0 and none["colours"] > 0


def test_noise_is_nothing_and_no_scene(tiny_config, domain, make_batch) -> None:
    torch.manual_seed(0)
    config = _config(tiny_config)
    noisy = config.model_copy(update={"judge": config.judge.model_copy(update={"noise": 0.999, "silhouettes": 0.0})})
    stage, batch = JudgeStage(noisy, domain, {}), _known(make_batch(3))
    outputs = stage(batch)
    assert outputs.noise.all() and (outputs.flat == batch.layout.valid).all()
    losses = stage.judge_losses(batch, outputs)
    assert losses["scenes"] == 0 and losses["colours"] == 0 and losses["objects"] > 0
    plain = stage.judge_losses(batch, replace(outputs, noise=torch.zeros(3, dtype=torch.bool)))
    assert plain["scenes"] > 0


def test_noise_has_blots_of_many_sizes_and_no_picture_in_it() -> None:
    torch.manual_seed(0)
    noise = coloured_noise(8, 64, torch.device("cpu"))
    assert noise.shape == (8, 3, 64, 64) and noise.abs().max() <= 1
    assert noise.std((2, 3)).mean() > 0.1
    assert (noise[0] - noise[1]).abs().mean() > 0.1


@pytest.mark.parametrize("counts", [[0, 0], [2, 0]])
def test_unknown_attributes_and_empty_pictures_are_no_error(stage, make_batch, counts) -> None:
    batch = make_batch(2, counts=counts)
    unknown = replace(batch, colours=torch.full((2, 4), -1), scenes=torch.full((2,), -1))
    metrics = train_step(TrainState(stage), unknown, StepContext(seed=0)).tensors()
    assert metrics["judge/colours"] == 0 and metrics["judge/scenes"] == 0
    measures = stage.eval().measure(unknown)
    assert measures["colour_accuracy"].isnan().all() and measures["scene_accuracy"].isnan().all()
    assert measures["object_accuracy"].isnan().tolist() == [count == 0 for count in counts]


def test_pictures_have_a_row_a_sample(stage, make_batch) -> None:
    one, two = (stage.eval().pictures(make_batch(n))["judge"] for n in (1, 2))
    assert one.width == two.width >= 3 * 256
    assert two.height - one.height >= 256


def test_degrading_keeps_what_is_where_and_differs_by_image() -> None:
    torch.manual_seed(0)
    images = torch.zeros(64, 3, 16, 16)
    images[:, :, :, 8:] = 0.6
    changed = degrade(images)
    assert changed.shape == images.shape
    assert (changed[..., 8:].mean((1, 2, 3)) > changed[..., :8].mean((1, 2, 3)) + 0.3).all()
    assert changed.flatten(1).mean(1).std() > 0.02
    line = torch.zeros(1, 1, 9, 9)
    line[..., 4] = 16
    torch.testing.assert_close(blurred(line)[0, 0, 4], torch.tensor([0.0, 0, 1, 4, 6, 4, 1, 0, 0]))


def test_a_step_in_bfloat16_changes_images_in_float32(tiny_config, domain) -> None:
    """As on a GPU with the default precision."""
    torch.manual_seed(0)
    state = TrainState(build_stage("judge", _config(tiny_config), domain, {}))
    context = StepContext(seed=0, precision=torch.bfloat16)
    assert not train_step(state, _textured(4, seed=0), context).numbers()["skipped"]
    with torch.autocast("cpu", torch.bfloat16):
        assert blurred(torch.zeros(1, 3, 8, 8)).dtype == torch.float32


def test_it_learns_what_is_inside_and_its_network_loads(tiny_config, domain, tmp_path) -> None:
    torch.manual_seed(0)
    state = TrainState(build_stage("judge", _config(tiny_config), domain, {}))
    for step in range(40):
        train_step(state, _textured(12, seed=step), StepContext(seed=0))
    held_out = _textured(32, seed=1000)
    with state.evaluation() as stage:
        found = {name: value.nanmean().item() for name, value in stage.measure(held_out).items()}
    assert set(found) == set(state.stage.measures)
    assert found["object_accuracy"] > 0.9, found
    assert found["colour_accuracy"] > 0.9, found
    assert found["silhouette_accuracy"] < 0.2, found
    save_checkpoint(tmp_path / "judge", state)
    judge = load_inference(tmp_path / "judge")["judge"]
    images = held_out.pixels(64)
    with state.evaluation() as stage, torch.no_grad():
        torch.testing.assert_close(judge(images).classes, stage.networks["judge"](images).classes)
