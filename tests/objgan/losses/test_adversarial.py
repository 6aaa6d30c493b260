import math

import pytest
import torch

from objgan.losses.adversarial import accuracy, discriminator_fake, discriminator_real, generator_loss

LOGITS = torch.tensor([0.0, 2.0])


def test_bce_by_hand() -> None:
    # softplus(-0) = ln 2, softplus(-2) = 0.126928, softplus(2) = 2.126928
    down = (math.log(2) + 0.126928) / 2
    up = (math.log(2) + 2.126928) / 2
    assert generator_loss(LOGITS, "bce").item() == pytest.approx(down, abs=1e-5)
    assert discriminator_real(LOGITS, "bce").item() == pytest.approx(down, abs=1e-5)
    assert discriminator_fake(LOGITS, "bce").item() == pytest.approx(up, abs=1e-5)


def test_hinge_by_hand() -> None:
    assert generator_loss(LOGITS, "hinge").item() == -1.0
    assert discriminator_real(LOGITS, "hinge").item() == 0.5  # (1 + 0) / 2
    assert discriminator_fake(LOGITS, "hinge").item() == 2.0  # (1 + 3) / 2


def test_extreme_logits_stay_finite() -> None:
    for loss in (generator_loss, discriminator_real, discriminator_fake):
        assert torch.isfinite(loss(torch.tensor([1e4, -1e4]), "bce"))


def test_weights_leave_out_what_does_not_count() -> None:
    weights = torch.tensor([1.0, 0.0])
    assert generator_loss(LOGITS, "bce", weights).item() == pytest.approx(math.log(2))
    patches = torch.tensor([[[1.0, 3.0]], [[100.0, 100.0]]])
    assert generator_loss(patches, "hinge", torch.tensor([1, 0])[:, None, None]).item() == -2.0


@pytest.mark.parametrize("kind", ["bce", "hinge"])
def test_nothing_counts_is_zero_with_a_graph(kind) -> None:  # type: ignore[no-untyped-def]
    for logits, weights in [(torch.zeros(0), None), (torch.zeros(0), torch.zeros(0)), (LOGITS, torch.zeros(2))]:
        logits = logits.clone().requires_grad_()
        for loss in (generator_loss, discriminator_real, discriminator_fake):
            value = loss(logits, kind, weights)
            assert value.item() == 0
            value.backward()


def test_float32_from_bfloat16() -> None:
    assert generator_loss(LOGITS.bfloat16(), "bce").dtype == torch.float32


def test_accuracy() -> None:
    logits = torch.tensor([-1.0, 1.0, 2.0, 3.0], requires_grad=True)
    assert accuracy(logits, real=True).item() == 0.75
    assert accuracy(logits, real=False).item() == 0.25
    assert not accuracy(logits, real=True).requires_grad
