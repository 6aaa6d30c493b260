import math

import pytest
import torch
from torch import Tensor

from objgan.losses.images import feature_matching, layout_loss, object_loss, text_loss
from objgan.networks.discriminators import TextLogits
from objgan.networks.object_discriminator import ObjectLogits


def _patches(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None].expand(-1, 3, 3)


def test_text_loss_by_hand() -> None:
    real = TextLogits(_patches(0.5, 0.5), [_patches(0.0, 0.0), _patches(-0.5, 9.0)])
    fake = TextLogits(_patches(-0.5, 0.5), [_patches(1.0, 1.0)])
    losses = text_loss(real, fake, torch.tensor([True, False]), "hinge", 0.1)
    # (0.5 + 0.1 x 1) / 2 + ((0.5 + 1.5) / 2 + 0.1 (2 + 0.5)) / 3; the second caption is no mismatch and does not count
    assert losses["loss"].item() == pytest.approx(0.3 + 1.25 / 3)
    assert losses["accuracy_real"] == 1 and losses["accuracy_fake"] == 0.5
    assert losses["accuracy_matched"] == 0 and losses["accuracy_mismatched"] == 1


def test_text_loss_is_balanced_at_zero() -> None:
    zero = _patches(0.0, 0.0)
    losses = text_loss(TextLogits(zero, [zero, zero]), TextLogits(zero, [zero]), torch.tensor([True] * 2), "bce", 1.0)
    assert losses["loss"].item() == pytest.approx(2 * math.log(2))


def test_layout_loss_by_hand() -> None:
    real, fake, permuted = _patches(0.5), _patches(-0.5), _patches(1.0)
    assert layout_loss(real, fake, permuted, "hinge")["loss"].item() == pytest.approx(0.5 + (0.5 + 2) / 2)
    assert layout_loss(real, fake, None, "hinge")["loss"].item() == pytest.approx(1.0)


def test_object_loss_by_hand() -> None:
    one = torch.ones(2)
    real = ObjectLogits(0.5 * one, [0 * one, one])
    fake = ObjectLogits(-0.5 * one, [0 * one])
    permuted = ObjectLogits(9 * one, [2 * one])
    # (0.5 + 1) / 2 + (0.5 + 1 + 2 + 3) / 4; the permuted layout's unconditional logit is of a real object
    assert object_loss(real, fake, permuted, "hinge")["loss"].item() == pytest.approx(0.75 + 6.5 / 4)
    assert object_loss(real, fake, None, "hinge")["loss"].item() == pytest.approx(0.75 + 1.5 / 2)


@pytest.mark.parametrize("kind", ["bce", "hinge"])
def test_no_objects_no_loss(kind) -> None:  # type: ignore[no-untyped-def]
    none = torch.zeros(0)
    losses = object_loss(ObjectLogits(none, [none, none]), ObjectLogits(none, [none]), ObjectLogits(none, [none]), kind)
    assert all(value == 0 for value in losses.values())


def test_feature_matching_by_hand_and_no_gradient_to_the_real_side() -> None:
    fake = [torch.tensor([[1.0, 3.0]], requires_grad=True), torch.tensor([[0.0]], requires_grad=True)]
    real = [torch.tensor([[0.0, 0.0]], requires_grad=True), torch.tensor([[4.0]], requires_grad=True)]
    loss = feature_matching(fake, real)
    assert loss.item() == pytest.approx((2 + 4) / 2)
    loss.backward()
    assert all(one.grad is not None and one.grad.any() for one in fake)
    assert all(one.grad is None for one in real)
    assert feature_matching(real, real).item() == 0
