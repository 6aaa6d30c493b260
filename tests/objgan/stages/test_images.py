"""Stage `images`: which networks learn from what, wrong pairs, padding, empty layouts, precision."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from objgan.batch import Batch, resize_images
from objgan.checkpoint import resume, save_checkpoint
from objgan.config import Config, build_config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.losses.damsm import damsm_losses
from objgan.networks.backbones import SmallBackbone
from objgan.networks.encoders import ImageEncoder, TextEncoder
from objgan.networks.painting import owner_shares
from objgan.stages.base import Phase
from objgan.stages.image_pairs import Pass, mismatched, other_objects, wrong_labels
from objgan.stages.images import ImagesStage
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step
from tests.tools.batches import all_losses

OPTIONS: dict[str, Any] = {"adversarial": "hinge", "discriminator_norm": "spectral", "augment": True}
FAST: dict[str, Any] = {"shared_trunk": True, "half_resolution_blocks": 1}
SMALL: dict[str, Any] = {
    **OPTIONS,
    "shared_trunk": True,
    "object_layers": (1, 2),
    "roi_size": 8,
    "object_condition": "words",
    "wrong_words": True,
    "balanced": True,
    "discriminator_layers": 3,
    "patch_padding": 1,
    "condition_noise": 0.1,
    "class_channels": 8,
    "whiten": True,
    "layout_norm": False,
    "start_norm": False,
    "modulation": True,
    "modifiers": 2,
    "textures": 3,
}
REBUILD: dict[str, Any] = {"damsm_ratio": 0.1, "kl_weight": 0.0, "pixel_weight": 8.0, "perceptual_weight": 2.0}
PENALTY: dict[str, Any] = {"gradient_penalty": 2.0, "gradient_penalty_every": 2}


def _stage(config: Config, domain: Domain, training: dict[str, Any] | None = None, **images: Any) -> ImagesStage:
    values = config.model_dump()
    values["images"].update(images)
    values["images"]["training"].update(training or {})
    torch.manual_seed(0)
    encoders = config.encoders
    helpers: dict[str, nn.Module] = {
        "text_encoder": TextEncoder(len(domain.vocabulary), encoders.embedding, encoders.channels, 0.5),
        "image_encoder": ImageEncoder(encoders.channels, SmallBackbone(encoders.small_width)),
    }
    return ImagesStage(build_config(values), domain, helpers)


def _phase(stage: ImagesStage, name: str) -> Phase:
    return next(phase for phase in stage.phases if phase.name == name)


def _backward(stage: ImagesStage, name: str, batch: Batch) -> None:
    """One phase's gradients with every parameter's gradients on: only what the losses themselves hold back is held."""
    phase = _phase(stage, name)
    torch.manual_seed(1)
    losses = all_losses(phase, batch, stage(batch))
    torch.stack([phase.weights[k] * loss for k, loss in losses.items() if phase.weights.get(k)]).sum().backward()


def _with_gradient(stage: nn.Module) -> set[str]:
    return {name for name, p in stage.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("options", [{}, OPTIONS, FAST, SMALL])
def test_discriminators_phase_reaches_all_discriminators_and_nothing_else(tiny_config, domain, make_batch, options):  # type: ignore[no-untyped-def]
    stage = _stage(tiny_config, domain, **options)
    _backward(stage, "discriminators", make_batch(4, [4, 4, 4, 4]))
    judges = _phase(stage, "discriminators").networks
    expected = {n for n, _ in stage.named_parameters() if n.split(".")[1] in judges}
    # inside hinge's margins real and fake terms pull at a layout discriminator's last bias alike: exactly zero
    idle = {f"networks.layout_{size}.logits.bias" for size in (32, 64)}
    if options is SMALL:  # balanced: likewise in every head
        idle = {name for name in expected if name.endswith(("logits.bias", "conditional.bias"))}
    assert _with_gradient(stage) | idle == expected
    assert all(p.grad is None for p in stage.networks["image_generator"].parameters())


@pytest.mark.parametrize("options", [{}, OPTIONS, FAST, SMALL])
def test_generator_phase_reaches_all_of_the_generator(tiny_config, domain, make_batch, options):  # type: ignore[no-untyped-def]
    stage = _stage(tiny_config, domain, **options)
    stage.networks.requires_grad_(True)
    batch, generator = make_batch(4, [4, 4, 4, 4]), stage.networks["image_generator"]
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if ".textures." in name:  # at 0, where they start, what reads them has slopes of 0
                parameter.normal_()
    _backward(stage, "generator", batch)
    assert _with_gradient(generator) == {n for n, _ in generator.named_parameters()}
    assert all(p.grad is None for p in stage.helpers.parameters())


def test_generator_phase_leaves_discriminators_alone_and_the_other_way_round(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    stage = _stage(tiny_config, domain)
    state = TrainState(stage)
    for phase in stage.phases:
        state.switch_gradients(phase)
        on = {n.split(".")[0] for n, p in stage.networks.named_parameters() if p.requires_grad}
        assert on == set(phase.networks)
    judges, generator = _phase(stage, "discriminators").networks, _phase(stage, "generator").networks
    assert set(judges) | set(generator) == set(stage.networks) and not set(judges) & set(generator)
    outputs = stage(make_batch(4))
    state.switch_gradients(_phase(stage, "generator"))
    losses = stage.generator_losses(make_batch(4), outputs)
    assert not [
        n for n, p in stage.networks.named_parameters() if p.requires_grad and not n.startswith("image_generator")
    ]
    assert all(loss.dtype == torch.float32 for loss in losses.values())


PUBLISHED = {
    "discriminators/text_32": 0.585,
    "discriminators/text_64": 0.521,
    "discriminators/layout_32": 1.516,
    "discriminators/layout_64": 1.2463,
    "discriminators/object_small": 1.5436,
    "discriminators/object_large": 1.3763,
    "generator/unconditional": 1.8891,
    "generator/text": 2.2112,
    "generator/layout": 1.8049,
    "generator/object": 3.1438,
    "generator/damsm_words": 11.2966,
    "generator/damsm_sentences": 3.2252,
    "generator/kl": 0.0048,
}
PARAMETERS = {
    "image_generator": 156208,
    "text_32": 30250,
    "layout_32": 13317,
    "text_64": 101098,
    "layout_64": 46725,
    "object_small": 46470,
    "object_large": 95750,
}


def test_the_published_form_keeps_its_parameters_and_its_losses(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    """The second step's losses as they were before small sizes got a form of their own."""
    state, batch = TrainState(_stage(tiny_config, domain)), make_batch(4, [4, 4, 4, 4])
    networks = state.stage.networks.items()
    assert {name: sum(p.numel() for p in network.parameters()) for name, network in networks} == PARAMETERS
    for _ in range(2):
        losses = train_step(state, batch, StepContext(0)).numbers()
    # Another machine's sums are rounded in another order, and one Adam step makes that larger.
    assert {name: losses[name] for name in PUBLISHED} == pytest.approx(PUBLISHED, rel=0.02, abs=1e-3)


def test_a_warm_up_teaches_the_generator_alone_by_reconstruction(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    stage = _stage(tiny_config, domain, {"warmup": 0.5, "warmup_lr": 3e-3, **REBUILD}, **SMALL)
    state, batch = TrainState(stage), make_batch(4, [4, 4, 4, 4])
    judges = {name: network.state_dict() for name, network in stage.networks.items() if name != "image_generator"}
    before = {f"{name}.{key}": value.clone() for name, values in judges.items() for key, value in values.items()}
    records = [train_step(state, batch, StepContext(0, total_steps=12)).numbers() for _ in range(6)]
    assert {name.split("/")[0] for name in records[0] if "/" in name} == {"warmup"}
    assert records[-1]["warmup/pixels"] < 0.95 * records[0]["warmup/pixels"]
    assert all(torch.equal(judges[n.split(".")[0]][n.split(".", 1)[1]], value) for n, value in before.items())
    after = train_step(state, batch, StepContext(0, total_steps=12)).numbers()
    assert {name.split("/")[0] for name in after if "/" in name} == {"discriminators", "generator"}
    assert {"generator/pixels", "generator/perceptual", "generator/damsm_words"} <= after.keys()


def test_a_run_resumed_inside_its_warm_up_ends_with_the_same_weights(tmp_path, tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    training, batch, context = {"warmup": 0.5, **REBUILD}, make_batch(3), StepContext(0, total_steps=4)
    whole, first = (TrainState(_stage(tiny_config, domain, training, **SMALL)) for _ in range(2))
    for _ in range(4):
        train_step(whole, batch, context)
    train_step(first, batch, context)
    save_checkpoint(tmp_path / "step", first)
    resumed = TrainState(_stage(tiny_config, domain, training, **SMALL))
    resume(tmp_path / "step", resumed)
    for _ in range(3):
        train_step(resumed, batch, context)
    ours, theirs = resumed.stage.networks.state_dict(), whole.stage.networks.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_damsm_has_its_ratio_of_the_discriminators_gradient(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    batch, slopes = make_batch(4, [4, 4, 4, 4]), []
    for ratio in (1e-6, 0.1):
        stage = _stage(tiny_config, domain, {"damsm_ratio": ratio}, **SMALL)
        phase = _phase(stage, "generator")
        torch.manual_seed(1)
        made = stage(batch)
        losses = all_losses(phase, batch, made)
        assert not phase.weights["damsm_words"] and losses["damsm_words"] > 0
        named = ("unconditional", "text", "layout", "object")
        total = torch.stack([phase.weights[name] * losses[name] for name in named]).sum()
        slopes.append(torch.autograd.grad(total, made.generated.images[-1])[0])
    alone, joined = slopes
    assert ((joined - alone).norm() / alone.norm()).item() == pytest.approx(0.1, rel=1e-3)


def test_an_objects_pixels_weigh_more_where_it_can_be_seen(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    batch, slopes = make_batch(4, [4, 4, 4, 4]), []
    for more in (0.0, 5.0):
        stage = _stage(tiny_config, domain, {"object_pixels": more, **REBUILD}, **SMALL)
        torch.manual_seed(1)
        made = stage(batch)
        pixels = stage.reconstruction_losses(batch, made)["pixels"]
        slopes.append(torch.autograd.grad(pixels, made.generated.images[-1])[0])
    ratio = slopes[1].abs().sum(1) / slopes[0].abs().sum(1)
    covered = 1 - owner_shares(resize_images(made.layout.soft_masks, ratio.shape[-1]))[:, 0]
    assert covered.max() > 0.9 and covered.min() < 0.1
    torch.testing.assert_close(ratio, 1 + 5 * covered)


def test_one_pass_of_the_encoder_serves_damsm_and_the_reconstruction(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    batch, stage = make_batch(4, [4, 4, 4, 4]), _stage(tiny_config, domain, REBUILD, **SMALL)
    made, passes = stage(batch), []
    backbone = stage.helpers["image_encoder"].backbone
    backbone.to_regions[0].register_forward_hook(lambda *seen: passes.append(seen))
    shared = stage.generator_losses(batch, made)
    assert len(passes) == 2  # of the generated images, and of the real ones
    alone, image = stage.reconstruction_losses(batch, made), made.generated.images[-1]
    regions, vector = stage.helpers["image_encoder"](image)
    damsm = damsm_losses(regions, vector, made.text, batch.image_ids, stage.gammas)
    torch.testing.assert_close(shared["perceptual"], alone["perceptual"])
    torch.testing.assert_close(shared["damsm_words"], damsm["words"].detach())
    slopes = [torch.autograd.grad(losses["perceptual"], image, retain_graph=True) for losses in (shared, alone)]
    torch.testing.assert_close(*slopes)
    assert slopes[0][0].any()


@pytest.mark.parametrize("options", [{}, SMALL])
def test_scaled_text_is_what_generator_and_discriminators_see_and_damsm_does_not(  # type: ignore[no-untyped-def]
    tiny_config, domain, make_batch, options
):
    batch, stages = make_batch(4, [4, 4, 4, 4]), []
    for scale in (1.0, 8.0):
        stages.append(_stage(tiny_config, domain, text_scale=scale, **options))
    noise = torch.randn(4, *stages[0]._generator().noise_shape)
    plain, scaled = (stage._make(batch, noise) for stage in stages)
    torch.testing.assert_close(plain.text.words, scaled.text.words)
    assert not torch.allclose(plain.generated.images[-1], scaled.generated.images[-1])
    ours, theirs = (stage.pairs(batch, plain, [], detach=True) for stage in stages)
    torch.testing.assert_close(8 * ours.sentence, theirs.sentence)
    torch.testing.assert_close(8 * ours.other_sentence, theirs.other_sentence)
    assert torch.allclose(ours.conditions, theirs.conditions) != (stages[0].pairs.images.object_condition == "words")


def test_textures_change_their_objects_pixels_and_learn(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    batch, stage = make_batch(4, [4, 4, 4, 4]), _stage(tiny_config, domain, REBUILD, **SMALL)
    generator, noise = stage._generator(), torch.randn(4, *stage._generator().noise_shape)
    before = stage._make(batch, noise).generated.images[-1]
    before.square().mean().backward()
    table = generator.scenes[-1].textures.classes
    assert table.grad is not None and table.grad.any()
    with torch.no_grad():
        table += torch.randn_like(table)
    changed = (stage._make(batch, noise).generated.images[-1] - before).abs().mean(1)
    covered = 1 - owner_shares(resize_images(batch.layout.soft_masks, changed.shape[-1]))[:, 0]
    assert changed[covered > 0.9].mean() > 2 * changed[covered < 0.1].mean()


@pytest.mark.parametrize("modifiers", [0, 2])
def test_modifiers_reach_generator_and_object_discriminators(tiny_config, domain, make_batch, modifiers):  # type: ignore[no-untyped-def]
    """Features and attention are the same; only the order of the words' vectors differs."""
    batch, stage = (
        make_batch(4, [4, 4, 4, 4]),
        _stage(tiny_config, domain, **SMALL | {"modifiers": modifiers, "textures": 0}),
    )
    generator = stage._generator()
    generator.label_vectors.zero_()  # each object attends to all words alike
    noise = torch.randn(4, *generator.noise_shape)
    text, layout = stage._make(batch, noise).text, batch.layout
    made = [generator(text, words, layout, noise) for words in (batch.words, batch.words.flip(1))]
    pairs = [stage.pairs(batch, Pass(text, layout, generated), [], detach=True) for generated in made]
    assert torch.equal(made[0].images[-1], made[1].images[-1]) != bool(modifiers)
    assert torch.equal(pairs[0].conditions, pairs[1].conditions) != bool(modifiers)
    losses = stage.judges.generator_losses(stage.pairs(batch, stage(batch), [], detach=False))
    assert all(value.isfinite().all() for value in losses.values())


def test_wrong_words_are_of_an_object_of_the_class_in_another_picture() -> None:
    labels = torch.tensor([[1, 1, 2], [1, 3, 0], [2, 2, 0]])
    valid = torch.tensor([[True, True, True], [True, True, False], [True, True, False]])
    for seed in range(20):
        torch.manual_seed(seed)
        other, exists = other_objects(labels, valid)
        assert exists.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
        assert (labels.flatten()[other] == labels)[exists].all() and valid.flatten()[other][exists].all()
        assert (other // 3 != torch.arange(3)[:, None])[exists].all()


def test_features_are_matched_where_they_have_a_weight_alone(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    batch = make_batch(3)
    plain, matching = _stage(tiny_config, domain), _stage(tiny_config, domain, {"feature_weight": 10.0}, **OPTIONS)
    assert "features" not in plain.generator_losses(batch, plain(batch))
    losses = matching.generator_losses(batch, matching(batch))
    assert losses["features"] > 0
    assert _phase(matching, "generator").weights["features"] == 10
    assert matching.pairs(batch, matching(batch), [], detach=False).reals == []


def test_object_context_is_detached_in_both_phases(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    stage, batch = _stage(tiny_config, domain), make_batch(3)
    made = stage(batch)
    assert made.generated.object_context.requires_grad
    for detach in (True, False):
        pairs = stage.pairs(batch, made, [], detach=detach)
        assert not pairs.conditions.requires_grad
        assert pairs.wrong_conditions is not None and not pairs.wrong_conditions.requires_grad
        assert all(fake.requires_grad is not detach for fake in pairs.fakes)


def test_wrong_labels_are_never_the_true_ones() -> None:
    labels = torch.randint(0, 3, (64, 6))
    valid = torch.rand(64, 6) < 0.8
    wrong = wrong_labels(labels, valid, torch.tensor([1e6, 1.0, 1.0]))
    assert not (wrong == labels)[valid].any() and not wrong[~valid].any()
    assert wrong.min() >= 0 and wrong.max() <= 2
    # frequent classes are drawn more often: rarity does not give a wrong label away
    assert (wrong[valid & (labels != 0)] == 0).float().mean() > 0.9


def test_objects_of_one_class_get_one_wrong_class() -> None:
    labels = torch.tensor([[3, 1, 3, 3]]).expand(50, 4)
    wrong = wrong_labels(labels, torch.ones(50, 4, dtype=torch.bool), torch.ones(9))
    assert (wrong[:, 0] == wrong[:, 2]).all() and (wrong[:, 0] == wrong[:, 3]).all()
    assert (wrong[:, 0] != wrong[:, 1]).any()


def test_wrong_pairs_keep_the_samples_own_objects(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    stage, batch = _stage(tiny_config, domain), make_batch(4)
    made = stage(batch)
    pairs = stage.pairs(batch, made, [], detach=True)
    assert pairs.permuted is not None and pairs.wrong_conditions is not None
    torch.testing.assert_close(pairs.permuted.boxes, made.layout.boxes)
    torch.testing.assert_close(pairs.permuted.soft_masks, made.layout.soft_masks)
    assert torch.equal(pairs.permuted.count, made.layout.count)
    vectors = stage.pairs.label_vectors
    own, wrong, size = pairs.conditions, pairs.wrong_conditions, vectors.shape[1]
    torch.testing.assert_close(own[..., size:], made.generated.object_context)
    torch.testing.assert_close(wrong[..., size:], made.generated.object_context)
    torch.testing.assert_close(own[..., :size], vectors[made.layout.labels])
    torch.testing.assert_close(wrong[..., :size], vectors[pairs.permuted.labels])


def test_label_vectors_are_the_generators(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    stage, batch = _stage(tiny_config, domain), make_batch(4)
    made = stage(batch)
    valid = made.layout.valid
    torch.testing.assert_close(
        stage.pairs.label_vectors[made.layout.labels][valid], made.generated.label_vectors[valid]
    )


def test_mismatched_pairs_are_of_another_image_and_other_words(make_batch):  # type: ignore[no-untyped-def]
    batch = make_batch(4, seed=5)
    assert mismatched(batch).all()
    same_image = replace(batch, image_ids=torch.tensor([1, 1, 2, 3]))
    assert mismatched(same_image).tolist() == [True, False, True, True]
    words = batch.words.clone()
    words[2] = words[1]
    assert mismatched(replace(batch, words=words)).tolist() == [True, True, False, True]


def test_augmented_pairs_move_everything_and_judge_what_is_seen(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    stage, batch = _stage(tiny_config, domain, augment=True), make_batch(16)
    before = batch.layout.boxes.clone()
    made = stage(batch)
    pairs = stage.pairs(batch, made, [batch.pixels(32), batch.pixels(64)], detach=True)
    assert torch.equal(batch.layout.boxes, before) and not torch.equal(pairs.layout.boxes, made.layout.boxes)
    judged = pairs.objects["small"] | pairs.objects["large"]
    assert torch.equal(judged, made.layout.valid & (pairs.layout.boxes[..., 2:] > 0).all(-1))
    assert pairs.permuted is not None and torch.equal(pairs.permuted.boxes, pairs.layout.boxes)
    # what the draw blanked is blank in both images at both scales
    blank = (pairs.reals[1] == 0).all(1) & (pairs.fakes[1] == 0).all(1)
    assert blank.flatten(1).any(1).all()
    assert not (pairs.layout.soft_masks.amax(1)[blank[:, ::2, ::2]] > 0).any()


def test_blurred_text_discriminators_see_no_checkerboard_and_their_slopes_hold_little(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    batch, shares = make_batch(3), []
    for blurred in (False, True):
        stage = _stage(tiny_config, domain, text_blur=blurred, **OPTIONS | {"augment": False})
        made = stage(batch)
        image = made.generated.images[-1]
        losses = stage.judges.generator_losses(stage.pairs(batch, made, [], detach=False))
        (slope,) = torch.autograd.grad(losses["unconditional"], image)
        power = torch.fft.fft2(slope).abs().square().sum((0, 1))
        shares.append(power[24:41].sum() / power.sum())
    assert shares[1] < 0.5 * shares[0]
    side = torch.arange(64)
    checks = ((side[:, None] + side) % 2 * 2.0 - 1).expand(1, 3, -1, -1)
    assert stage.judges.seen_by_text(checks)[..., 1:-1, 1:-1].abs().max() == 0


def test_the_pair_maker_saves_nothing(tiny_config, domain):  # type: ignore[no-untyped-def]
    stage = _stage(tiny_config, domain)
    assert not [name for name in stage.state_dict() if name.startswith("pairs")]


def test_a_single_class_has_no_wrong_labels(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    statistics = replace(domain.statistics, class_counts=(9,), class_caps=(2,))
    stage = _stage(tiny_config, Domain(domain.vocabulary, ("kite",), statistics))
    batch = make_batch(3)
    batch = replace(batch, layout=replace(batch.layout, labels=torch.zeros_like(batch.layout.labels)))
    losses = stage.discriminator_losses(batch, stage(batch))
    assert "layout_32" in losses and "layout_32_accuracy_permuted" not in losses
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("options", [{}, OPTIONS, FAST, SMALL])
def test_batches_without_objects_pass(tiny_config, domain, make_batch, options):  # type: ignore[no-untyped-def]
    stage, batch = _stage(tiny_config, domain, **options), make_batch(3, [0, 0, 0])
    made = stage(batch)
    judged = stage.discriminator_losses(batch, made)
    assert judged["object_small"] == 0 and judged["object_large"] == 0
    losses = stage.generator_losses(batch, made)
    assert losses["object"] == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(loss) for loss in (judged | losses).values())
    assert stage.eval().measure(batch)["object_colour_distance"].isnan().all()


@pytest.mark.parametrize("group", ["small", "large"])
def test_a_batch_of_only_small_or_only_large_objects_passes(tiny_config, domain, make_batch, group):  # type: ignore[no-untyped-def]
    stage, batch = _stage(tiny_config, domain), make_batch(3)
    side = 0.2 if group == "small" else 0.3
    boxes = torch.cat([batch.layout.boxes[..., :2] / 2, torch.full_like(batch.layout.boxes[..., :2], side)], -1)
    batch = replace(batch, layout=replace(batch.layout, boxes=boxes * batch.layout.valid[..., None]))
    losses = stage.discriminator_losses(batch, stage(batch))
    other = "large" if group == "small" else "small"
    assert losses[f"object_{group}"] > 0 and losses[f"object_{other}"] == 0


def test_padding_changes_nothing(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    stage, batch = _stage(tiny_config, domain), make_batch(3, [1, 2, 3])
    layout, valid = batch.layout, batch.layout.valid
    labels, boxes, masks = layout.labels.clone(), layout.boxes.clone(), layout.soft_masks.clone()
    labels[~valid], boxes[~valid], masks[~valid] = 4, 0.5, 1.0
    messy = replace(batch, layout=replace(layout, labels=labels, boxes=boxes, masks=masks))
    values = []
    for some in (batch, messy):
        torch.manual_seed(3)
        made = stage(some)
        values.append(stage.discriminator_losses(some, made) | stage.generator_losses(some, made))
    for name, value in values[0].items():
        torch.testing.assert_close(value, values[1][name], msg=name, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, OPTIONS, FAST, SMALL])
def test_two_steps_change_every_network_and_stay_finite(tiny_config, domain, make_batch, options, precision):  # type: ignore[no-untyped-def]
    state = TrainState(_stage(tiny_config, domain, PENALTY if options else {}, **options))
    before = {name: p.detach().clone() for name, p in state.stage.named_parameters()}
    metrics: dict[str, Tensor] = {}
    for seed in (0, 1):
        batch = make_batch(4, [4, 4, 4, 4], seed=seed)
        metrics |= train_step(state, batch, StepContext(0, precision=precision)).tensors()
    assert all(torch.isfinite(value) and value.dtype == torch.float32 for value in metrics.values())
    assert ("penalty/penalty" in metrics) == bool(options)
    for name, parameter in state.stage.named_parameters():
        assert torch.isfinite(parameter).all(), name
        if parameter.ndim > 1:
            assert torch.equal(parameter, before[name]) == name.startswith("helpers."), name


def test_a_spectral_norm_takes_one_power_step_a_phase(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    stage = _stage(tiny_config, domain, REBUILD, **SMALL)
    read: list[str] = []
    for name, module in stage.networks.named_modules():
        if type(module).__name__ == "_SpectralNorm":
            module.register_forward_hook(lambda *seen, name=name: read.append(name))
    train_step(TrainState(stage), make_batch(4, [4, 4, 4, 4]), StepContext(0))
    assert any(name.startswith("layout_") for name in read) and any(name.startswith("object_") for name in read)
    assert {read.count(name) for name in read} == {2}  # the discriminators' phase and the generator's


def test_heads_on_a_shared_trunk_judge_as_discriminators_with_that_trunk_do(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    alone, shared = _stage(tiny_config, domain), _stage(tiny_config, domain, shared_trunk=True)
    count = sum(p.numel() for p in shared.networks.parameters())
    assert count < sum(p.numel() for p in alone.networks.parameters())
    trunk = shared.networks["layout_64"].state_dict()
    for name, network in alone.networks.items():
        theirs = shared.networks[name].state_dict()
        if name.startswith("object_"):
            theirs |= {key: value for key, value in trunk.items() if key in network.state_dict()}
        network.load_state_dict(theirs)
    batch, values = make_batch(4, [4, 4, 4, 4]), []
    for stage in (alone, shared):
        torch.manual_seed(3)
        made = stage(batch)
        values.append(stage.discriminator_losses(batch, made) | stage.generator_losses(batch, made))
    assert values[0].keys() == values[1].keys()
    for name, value in values[0].items():
        torch.testing.assert_close(value, values[1][name], msg=name, rtol=1e-5, atol=1e-5)


def test_penalty_phase_is_lazy_and_makes_up_for_it(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    assert [phase.name for phase in _stage(tiny_config, domain).phases] == ["discriminators", "generator"]
    stage = _stage(tiny_config, domain, PENALTY)
    phase = _phase(stage, "penalty")
    assert phase.every == 2 and phase.weights["penalty"] == 4.0
    assert set(phase.networks) == {"text_32", "text_64"}
    batch = make_batch(3)
    losses = all_losses(phase, batch, stage(batch))
    losses["penalty"].backward()
    touched = {name.split(".")[1] for name in _with_gradient(stage)}
    assert touched == {"text_32", "text_64"}


def test_losses_are_float32_under_autocast(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    stage, batch = _stage(tiny_config, domain, **OPTIONS), make_batch(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = stage(batch)
        losses = stage.discriminator_losses(batch, made) | stage.generator_losses(batch, made)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_measures_are_per_sample_and_repeatable(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    stage, batch = _stage(tiny_config, domain).eval(), make_batch(4)
    first, again = stage.measure(batch), stage.measure(batch)
    assert set(first) == set(stage.measures) and stage.objective[0] in first
    for name, values in first.items():
        assert values.shape == (4,) and torch.equal(values, again[name])
    alone = replace(batch, words=batch.words[:1].expand(4, -1), word_count=batch.word_count[:1].expand(4))
    assert stage.measure(alone)["r1_teacher_of_pool"].isnan().all()


def test_pictures_have_a_row_a_sample(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    stage = _stage(tiny_config, domain).eval()
    two, three = (stage.pictures(make_batch(n, [0, 1, 2][:n]))["images"] for n in (2, 3))
    assert three.height > two.height > 512 and three.width > 5 * 256
    looks = stage.pictures(make_batch(2, [0, 1]))["attention"]
    assert looks.height > 2 * 160


WITHOUT: dict[str, dict[str, Any]] = {
    "attention": {"object_attention": False},
    "object judges": {"object_discriminators": False},
    "layout": {
        "object_attention": False,
        "object_discriminators": False,
        "modulation": False,
        "layout": False,
        "modifiers": 0,
        "textures": 0,
    },
}


@pytest.mark.parametrize("form", [OPTIONS, SMALL])
@pytest.mark.parametrize("what", list(WITHOUT))
def test_variants_have_the_networks_and_terms_that_are_left(tiny_config, domain, make_batch, what, form):  # type: ignore[no-untyped-def]
    state = TrainState(_stage(tiny_config, domain, {"feature_weight": 5.0, **PENALTY}, **form | WITHOUT[what]))
    batch, networks = make_batch(4, [4, 4, 4, 4]), set(state.stage.networks)
    metrics = train_step(state, batch, StepContext(0)).tensors()
    objects, layouts = {"object_small", "object_large"}, {"layout_32", "layout_64"}
    gone = {"attention": set(), "object judges": objects, "layout": objects | layouts}[what]
    assert networks == {"image_generator", "text_32", "text_64"} | ((objects | layouts) - gone)
    assert {name.split("/")[1] for name in metrics} >= networks - {"image_generator"}
    assert not [name for name in metrics if name.split("/")[1].startswith(tuple(gone) or ("none",))]
    terms = {name for name in ("object", "layout", "features") if f"generator/{name}" in metrics}
    expected = {"attention": {"object", "layout", "features"}, "object judges": {"layout", "features"}, "layout": set()}
    assert terms == expected[what]
    measured = state.stage.eval().measure(batch)
    assert all(values.shape == (4,) for values in measured.values())


def test_without_object_attention_objects_are_judged_by_their_labels_alone(tiny_config, domain, make_batch):  # type: ignore[no-untyped-def]
    stage, batch = _stage(tiny_config, domain, object_attention=False), make_batch(3)
    pairs = stage.pairs(batch, stage(batch), [], detach=True)
    width = stage.pairs.label_vectors.shape[1]
    assert not pairs.conditions[..., width:].any() and pairs.conditions[..., :width].any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modulation": True}, "class_channels"),
        ({"shared_trunk": True, "discriminator_layers": 2}, "object_layers"),
        ({"object_layers": (0, 1)}, "object_layers .*: each is 1 to 8$"),
        ({"training": {"steps": 9, "epochs": None, "warmup": 0.5, "warmup_pixel_weight": 0}}, "warmup_pixel_weight"),
        ({"training": {"steps": 9, "epochs": None, "object_pixels": 5.0}}, "object_pixels weighs nothing"),
    ],
)
def test_forms_that_cannot_be_built_are_refused(tiny_config, domain, options, words):  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words):
        _stage(tiny_config, domain, **options)


@pytest.mark.parametrize("on", ["object_attention", "object_discriminators", "modulation"])
def test_objects_without_a_layout_are_refused(tiny_config, domain, on):  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="images: layout false"):
        _stage(tiny_config, domain, **WITHOUT["layout"] | {on: True, "class_channels": 8})


def test_wrong_labels_are_what_multinomial_draws() -> None:
    """Which checks the chances, and so makes a GPU wait."""
    labels, frequencies = torch.arange(12).view(3, 4) % 5, torch.tensor([5.0, 1, 2, 3, 4])
    torch.manual_seed(3)
    ours = wrong_labels(labels, torch.ones(3, 4, dtype=torch.bool), frequencies)
    torch.manual_seed(3)
    chances = frequencies.expand(3, 4, -1).scatter(-1, labels[..., None], 0.0)
    drawn = torch.multinomial(chances.flatten(0, 1), 1).view_as(labels)
    first = (labels[:, :, None] == labels[:, None, :]).int().argmax(-1)
    assert torch.equal(ours, drawn.gather(1, first))
