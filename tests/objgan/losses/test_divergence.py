import pytest
import torch

from objgan.losses.divergence import gradient_penalty, kl_to_standard_normal


def test_kl_by_hand() -> None:
    zero = torch.zeros(2, 3)
    assert kl_to_standard_normal(zero, zero).item() == 0
    assert kl_to_standard_normal(torch.full((2, 3), 2.0), zero).item() == pytest.approx(2.0)
    # variance e: (e - 1 - 1) / 2
    assert kl_to_standard_normal(zero, torch.ones(2, 3)).item() == pytest.approx(0.3591409, abs=1e-6)


def test_kl_matches_torch() -> None:
    mean, log_variance = torch.randn(4, 5), torch.randn(4, 5)
    ours = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected)


def test_penalty_of_a_linear_discriminator_by_hand() -> None:
    images = torch.randn(3, 2, 2, requires_grad=True)
    sentence = torch.randn(3, 1, requires_grad=True)
    # a sample's slope is 1 for each of 4 pixels and 2 for the sentence: norm^2 = 8, norm^6 = 512
    logits = images.sum((1, 2)) + 2 * sentence[:, 0]
    assert gradient_penalty(logits, [images, sentence]).item() == pytest.approx(512, rel=1e-5)
    assert gradient_penalty(logits, [images, sentence], power=2).item() == pytest.approx(8, rel=1e-5)


def test_penalty_reaches_the_weights_and_is_finite_where_flat() -> None:
    weight = torch.zeros(2, requires_grad=True)
    images = torch.randn(3, 2, requires_grad=True)
    penalty = gradient_penalty((images * weight).sum(1), [images], power=1)
    penalty.backward()
    assert weight.grad is not None and torch.isfinite(weight.grad).all()
