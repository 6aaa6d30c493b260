"""Losses of the box generator, against torch.distributions and numbers worked out by hand."""

import math

import pytest
import torch
from torch import distributions

from objgan.losses.boxes import (
    ATANH_RHO_RANGE,
    LOG_SIGMA_RANGE,
    class_weights,
    count_loss,
    label_counts,
    label_nll,
    label_set,
    masked_mean,
    mixture_nll,
)


def test_mixture_nll_matches_torch_distributions() -> None:
    draw = torch.Generator().manual_seed(0)
    parameters = torch.randn(4, 3, 5, 6, generator=draw, dtype=torch.float64)
    points = torch.randn(4, 3, 2, generator=draw, dtype=torch.float64)
    sigmas, rho = parameters[..., 3:5].exp(), parameters[..., 5].tanh()
    covariance = sigmas[..., :, None] * sigmas[..., None, :]
    covariance = covariance * torch.stack([torch.ones_like(rho), rho, rho, torch.ones_like(rho)], -1).view(
        4, 3, 5, 2, 2
    )
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(logits=parameters[..., 0]),
        distributions.MultivariateNormal(parameters[..., 1:3], covariance_matrix=covariance),
    )
    torch.testing.assert_close(mixture_nll(parameters, points), -mixture.log_prob(points))


def test_mixture_nll_by_hand() -> None:
    # Two equal components at (0, 0) and (2, 0), unit sigmas, no correlation; at (0, 0) the second has exp(-2).
    parameters = torch.zeros(2, 6)
    parameters[1, 1] = 2.0
    expected = math.log(2 * math.pi) - math.log((1 + math.exp(-2)) / 2)
    assert mixture_nll(parameters, torch.zeros(2)).item() == pytest.approx(expected, abs=1e-6)


def test_mixture_nll_far_from_every_component_is_a_number_and_pulls() -> None:
    # In linear space the density underflows to 0 here: the published code clamps it and learns nothing.
    parameters = torch.zeros(1, 3, 6, requires_grad=True)
    loss = mixture_nll(parameters, torch.tensor([[100.0, -100.0]])).sum()
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2 * math.pi) + 10000, rel=1e-5)
    assert (parameters.grad[0, :, 1] < 0).all() and (parameters.grad[0, :, 2] > 0).all()


@pytest.mark.parametrize("size", [1e2, 1e4, 1e8, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_values_stay_finite(size: float, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    parameters = (size * torch.randn(50, 4, 6, generator=draw)).to(dtype).requires_grad_()
    points = torch.randn(50, 2, generator=draw) * 10
    loss = mixture_nll(parameters, points)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all() and parameters.grad.isfinite().all()


def test_the_density_of_repeated_values_is_bounded() -> None:
    parameters = torch.tensor([[0.0, 0.0, 0.0, -90.0, -90.0, 90.0]])
    lowest = math.log(2 * math.pi) + 2 * LOG_SIGMA_RANGE[0] - math.log(math.cosh(ATANH_RHO_RANGE[1]))
    assert mixture_nll(parameters, torch.zeros(2)).item() == pytest.approx(lowest, abs=1e-4)


def test_label_nll_is_a_log_likelihood() -> None:
    # Probabilities 0.1, 0.2, 0.7; the published -p would give -0.7 for the last.
    logits = torch.tensor([0.1, 0.2, 0.7]).log() + 3
    for target, probability in enumerate((0.1, 0.2, 0.7)):
        assert label_nll(logits, torch.tensor(target)).item() == pytest.approx(-math.log(probability), abs=1e-6)
    hopeless = label_nll(torch.tensor([-1e4, 0.0]), torch.tensor(0))
    assert hopeless.item() == pytest.approx(1e4)


def test_class_weights_by_hand() -> None:
    # Counts 1, 4 and 4 ends, power 1/2: weights 1, 1/2, 1/2 before the mean over 9 occurrences, (1 + 2 + 2) / 9.
    torch.testing.assert_close(class_weights([1, 4], 4, 0.5), torch.tensor([1.8, 0.9, 0.9]))
    torch.testing.assert_close(class_weights([1, 4], 4, 0.0), torch.ones(3))
    assert class_weights([0, 7], 3, 0.8).isfinite().all()


def test_count_loss_by_hand_and_without_objects() -> None:
    labels, valid = torch.tensor([[1, 1, 0], [0, 0, 0]]), torch.tensor([[True, True, False], [False, False, False]])
    assert label_counts(labels, valid, 3).tolist() == [[0, 2, 0], [0, 0, 0]]
    assert label_set(labels, valid, 3).tolist() == [[False, True, False], [False, False, False]]
    # Class 1 appears with probability 3 / 4, and then two of it with 1 / 2.
    logits = torch.zeros(2, 3, 4)
    logits[0, 1] = torch.tensor([math.log(3), 0.0, math.log(2), 0.0])
    expected = torch.tensor([2 * math.log(2) + math.log(4 / 3) + math.log(2), 3 * math.log(2)])
    torch.testing.assert_close(count_loss(logits, labels, valid), expected)


def test_masked_mean_ignores_what_is_masked_even_when_it_is_not_finite() -> None:
    values = torch.tensor([1.0, 3.0, math.inf], requires_grad=True)
    assert masked_mean(values, torch.tensor([True, True, False])).item() == 2
    nothing = masked_mean(values, torch.zeros(3, dtype=torch.bool))
    nothing.backward()
    assert nothing.item() == 0 and values.grad.isfinite().all()
