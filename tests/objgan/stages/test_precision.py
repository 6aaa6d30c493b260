"""Every stage under bf16 autocast on the CPU: finite, in float32 where it matters, and near the step in float32."""

import pytest
import torch
from torch import nn

from objgan.config import Config, build_config
from objgan.domain import Domain
from objgan.stages import STAGE_CLASSES, build_stage
from objgan.stages.base import Stage
from objgan.stages.encoders import build_image_encoder, build_text_encoder
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step
from tests.tools.batches import all_losses


def _stage(name: str, config: Config, domain: Domain) -> Stage:
    values = config.model_dump()
    values["boxes"]["training"] |= {"adversarial_weight": 0.1, "count_weight": 0.5}
    torch.manual_seed(0)
    helpers: dict[str, nn.Module] = {
        "text_encoder": build_text_encoder(config, domain),
        "image_encoder": build_image_encoder(config, domain),
    }
    needed = STAGE_CLASSES[name].needed(config)
    return build_stage(name, build_config(values), domain, {key: helpers[key] for key in needed})


@pytest.mark.parametrize("name", list(STAGE_CLASSES))
def test_a_step_in_bfloat16_is_finite_and_near_the_one_in_float32(name: str, tiny_config, domain, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch, terms = make_batch(4, [4, 4, 4, 4]), []
    for precision in (torch.float32, torch.bfloat16):
        state = TrainState(_stage(name, tiny_config, domain))
        terms.append(train_step(state, batch, StepContext(0, precision=precision)).tensors())
        assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in state.stage.parameters())
    exact, short = terms
    for term, value in short.items():
        assert value.dtype == torch.float32 and torch.isfinite(value), term
        # Shares of right judgements jump where a logit is near 0.
        if "accuracy" not in term and "gradient_norm" not in term:
            torch.testing.assert_close(value, exact[term], rtol=0.1, atol=0.05, msg=f"{term}: {value} {exact[term]}")


@pytest.mark.parametrize("name", list(STAGE_CLASSES))
def test_every_loss_is_float32_under_autocast(name: str, tiny_config, domain, make_batch) -> None:  # type: ignore[no-untyped-def]
    stage, batch = _stage(name, tiny_config, domain), make_batch(4, [4, 4, 4, 4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = stage(batch)
        losses = [all_losses(phase, batch, outputs) for phase in stage.phases]
    assert {loss.dtype for phase in losses for loss in phase.values()} == {torch.float32}
