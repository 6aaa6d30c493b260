"""The box generator's discriminator in its stage: phases, gradients, late start, and that a weight of 0 is nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from objgan.batch import Batch
from objgan.checkpoint import load_inference, resume, save_checkpoint
from objgan.config import Config, build_config
from objgan.domain import Domain
from objgan.losses.adversarial import discriminator_fake, discriminator_real
from objgan.networks.layout_discriminator import SoftLayout
from objgan.stages.box_judges import NETWORK, DrawnOutputs
from objgan.stages.boxes import BoxesStage
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step

MakeBatch = Callable[..., Batch]
MakeStage = Callable[..., BoxesStage]


@pytest.fixture
def make_stage(tiny_config: Config, domain: Domain) -> MakeStage:
    """make_stage(adversarial_weight=..., ...) -> a stage with an encoder of its own, the same for the same settings."""

    def make(adversarial: str = "hinge", **training: float) -> BoxesStage:
        values = tiny_config.model_dump()
        values["boxes"] |= {"text_encoder": "own", "discriminator_width": 8, "adversarial": adversarial}
        values["boxes"]["training"] |= training
        torch.manual_seed(0)
        return BoxesStage(build_config(values), domain, {})

    return make


def test_a_weight_of_zero_has_no_discriminator(make_stage: MakeStage) -> None:
    stage = make_stage(adversarial_weight=0.0)
    assert list(stage.networks) == ["box_generator"] and [phase.name for phase in stage.phases] == ["likelihood"]
    with_one = make_stage(adversarial_weight=0.1).networks["box_generator"].state_dict()
    assert all(torch.equal(with_one[key], value) for key, value in stage.networks["box_generator"].state_dict().items())


def test_before_its_start_it_changes_nothing_and_a_checkpoint_knows_when(
    make_stage: MakeStage, make_batch: MakeBatch, tmp_path: Path
) -> None:
    plain, late = (TrainState(make_stage(adversarial_weight=w, adversarial_from=2)) for w in (0.0, 0.5))
    for step in range(2):
        batch = make_batch(4, seed=step, images=False, masks=False)
        metrics = train_step(late, batch, StepContext(0)).tensors()
        assert metrics.keys() == train_step(plain, batch, StepContext(0)).tensors().keys()
    ours, theirs = (state.stage.networks["box_generator"].state_dict() for state in (late, plain))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    save_checkpoint(tmp_path / "last", late)
    again = TrainState(make_stage(adversarial_weight=0.5, adversarial_from=2))
    resume(tmp_path / "last", again)
    batch = make_batch(4, seed=2, images=False, masks=False)
    goes_on, straight = (
        train_step(again, batch, StepContext(0)).tensors(),
        train_step(late, batch, StepContext(0)).tensors(),
    )
    assert {"discriminator/conditional", "likelihood/adversarial"} <= goes_on.keys()
    assert all(torch.equal(goes_on[key], straight[key]) for key in straight)
    save_checkpoint(tmp_path / "next", again)
    assert list(load_inference(tmp_path / "next")) == ["box_generator"]


@pytest.mark.parametrize("adversarial", ["bce", "hinge"])
def test_two_real_steps_move_both_networks(make_stage: MakeStage, make_batch: MakeBatch, adversarial: str) -> None:
    state = TrainState(make_stage(adversarial, adversarial_weight=0.5))
    before = {name: value.clone() for name, value in state.stage.networks.named_parameters()}
    for seed in range(2):
        metrics = train_step(
            state, make_batch(4, counts=[0, 1, 3, 4], seed=seed, masks=False), StepContext(0)
        ).tensors()
        assert all(value.isfinite() for value in metrics.values())
    still = [name for name, value in state.stage.networks.named_parameters() if torch.equal(value, before[name])]
    # Within the hinge's margins true and drawn layouts pull the last bias alike.
    assert set(still) <= {"box_discriminator.unconditional.bias"}


def test_its_phase_leaves_the_generator_alone(make_stage: MakeStage, make_batch: MakeBatch) -> None:
    stage, batch = make_stage(adversarial_weight=0.5).train(), make_batch(4, masks=False)
    assert isinstance(stage, BoxesStage) and stage.judge is not None
    losses = stage.judge.discriminator_losses(batch, stage(batch))
    (losses["unconditional"] + losses["conditional"]).backward()
    assert all(p.grad is None for p in stage.networks["box_generator"].parameters())
    assert all(p.grad is not None for p in stage.networks[NETWORK].parameters())


def test_its_term_reaches_labels_boxes_and_text(make_stage: MakeStage, make_batch: MakeBatch) -> None:
    stage, batch = make_stage(adversarial_weight=0.5).train(), make_batch(8, masks=False)
    assert isinstance(stage, BoxesStage)
    stage.likelihood_losses(batch, stage(batch))["adversarial"].backward()
    for name, parameter in stage.networks["box_generator"].named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_losses_by_hand(make_stage: MakeStage, make_batch: MakeBatch) -> None:
    """Sample 1 has sample 0's caption, so its mismatched pair does not count."""
    stage = make_stage("bce", adversarial_weight=0.5).train()
    assert isinstance(stage, BoxesStage) and stage.judge is not None
    batch = make_batch(3, masks=False)
    words, count = batch.words.clone(), batch.word_count.clone()
    words[1], count[1] = words[0], count[0]
    batch = replace(batch, words=words, word_count=count)
    outputs = stage(batch)
    assert isinstance(outputs, DrawnOutputs) and not outputs.sentence.requires_grad
    judge, sentence = stage.networks[NETWORK].eval(), outputs.sentence
    real, fake = judge(SoftLayout.from_layout(batch.layout, 5), sentence), judge(outputs.drawn, sentence)
    wrong = judge(SoftLayout.from_layout(batch.layout, 5), sentence.roll(1, 0)).conditional[0][[0, 2]]
    losses = stage.judge.discriminator_losses(batch, outputs)
    expected = discriminator_real(real.unconditional, "bce") + discriminator_fake(fake.unconditional, "bce")
    torch.testing.assert_close(losses["unconditional"], expected)
    false = (discriminator_fake(fake.conditional[0], "bce") + discriminator_fake(wrong, "bce")) / 2
    torch.testing.assert_close(losses["conditional"], discriminator_real(real.conditional[0], "bce") + false)
    wanted = sum(discriminator_real(part, "bce") for part in (fake.unconditional, fake.conditional[0]))
    torch.testing.assert_close(stage.judge.generator_losses(outputs)["adversarial"], wanted)


def test_measures_and_pictures_do_not_draw(make_stage: MakeStage, make_batch: MakeBatch) -> None:
    stage, batch = make_stage(adversarial_weight=0.5).eval(), make_batch(3, masks=False)
    before = torch.get_rng_state()
    first, second = stage.measure(batch), stage.measure(batch)
    assert torch.equal(before, torch.get_rng_state()) and int(stage.networks[NETWORK].steps) == 0
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], equal_nan=True)
