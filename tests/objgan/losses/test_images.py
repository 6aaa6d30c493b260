import math

import pytest
import torch
from torch import Tensor

from objgan.losses.images import (
    AddedGradient,
    ObjectJudgements,
    feature_matching,
    layout_loss,
    object_loss,
    perceptual_loss,
    pixel_loss,
    text_loss,
)
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
    one = torch.ones(2, 1)
    real = ObjectLogits(0.5 * one, [0 * one, one])
    fake = ObjectLogits(-0.5 * one, [0 * one])
    permuted = ObjectLogits(9 * one, [2 * one])
    # (0.5 + 1) / 2 + (0.5 + 1 + 2 + 3) / 4; the permuted layout's unconditional logit is of a real object
    assert object_loss(ObjectJudgements(real, fake, permuted), "hinge")["loss"].item() == pytest.approx(0.75 + 6.5 / 4)
    assert object_loss(ObjectJudgements(real, fake), "hinge")["loss"].item() == pytest.approx(0.75 + 1.5 / 2)


def test_balanced_heads_weigh_right_and_wrong_alike_by_hand() -> None:
    real = TextLogits(_patches(0.5), [_patches(0.0), _patches(1.0)])
    fake = TextLogits(_patches(-0.5), [_patches(0.0)])
    # real 0.5 + 0.1 x 1, fake 0.5, conditional fakes 1 and 2
    assert text_loss(real, fake, torch.tensor([True]), "hinge", 0.1, True)["loss"].item() == pytest.approx(1.25)
    one = torch.ones(2, 1)
    judged = ObjectJudgements(
        ObjectLogits(0.5 * one, [0 * one, one, torch.tensor([[3.0], [9.0]])]),
        ObjectLogits(-0.5 * one, [0 * one]),
        ObjectLogits(9 * one, [2 * one]),
        torch.tensor([True, False]),
    )
    # real 0.5 + 1, fake 0.5, then the mean of fake 1, label 2, layout 3 and the first object's words 4
    assert object_loss(judged, "hinge", True)["loss"].item() == pytest.approx(1.5 + 0.5 + 10 / 4)
    assert object_loss(judged, "hinge")["loss"].item() == pytest.approx(1.5 / 2 + 10.5 / 5)


def test_reconstruction_by_hand() -> None:
    one, real = torch.full((1, 3, 2, 2), 2.0, requires_grad=True), torch.full((1, 3, 2, 2), 4.0, requires_grad=True)
    assert pixel_loss([one, one], [real, real]).item() == pytest.approx(4)
    loss = perceptual_loss([one, real], [real, real])
    assert loss.item() == pytest.approx(0.25)
    loss.backward()
    assert one.grad is not None and one.grad.any()


@pytest.mark.parametrize("size", [0.01, 100.0])
def test_an_added_gradient_has_its_share_whatever_its_own_size(size: float) -> None:
    image, added = torch.randn(1, 3, 4, 4, requires_grad=True), size * torch.randn(1, 3, 4, 4)
    slope = torch.randn(1, 3, 4, 4)
    carried = AddedGradient.apply(image, added, 0.1)
    assert torch.equal(carried, image)
    carried.backward(slope)
    assert image.grad is not None
    joined = image.grad - slope
    assert joined.norm().item() == pytest.approx(0.1 * slope.norm().item(), rel=1e-4)
    torch.testing.assert_close(torch.cosine_similarity(joined.flatten(), added.flatten(), 0), torch.tensor(1.0))


@pytest.mark.parametrize("kind", ["bce", "hinge"])
@pytest.mark.parametrize("balanced", [False, True])
def test_no_objects_no_loss(kind, balanced) -> None:  # type: ignore[no-untyped-def]
    none = torch.zeros(0, 1)
    real, fake = ObjectLogits(none, [none, none, none]), ObjectLogits(none, [none])
    losses = object_loss(ObjectJudgements(real, fake, fake, torch.zeros(0, dtype=torch.bool)), kind, balanced)
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
