"""Losses of the box generator: labels, mixtures of bivariate Gaussians (Hong et al. 2018, arXiv 1801.05091), counts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

# In units of the training set's standard deviation (about a quarter of the side): the floor is near three pixels at
# 256, what two annotators differ by. Boxes at the border repeat exact values: without a floor their density, and the
# gradient of it, grow for ever.
LOG_SIGMA_RANGE = (-3.0, 3.0)
ATANH_RHO_RANGE = (-3.0, 3.0)
LARGEST_DEVIATION = 1e6


@dataclass(frozen=True)
class Mixture:
    """K bivariate Gaussians, float32 or wider.

    log_weights: [..., K], normalised
    means, log_sigmas: [..., K, 2]
    atanh_rho: [..., K], the correlation is its tanh
    """

    log_weights: Tensor
    means: Tensor
    log_sigmas: Tensor
    atanh_rho: Tensor

    @classmethod
    def from_parameters(cls, parameters: Tensor) -> Self:
        """[..., K, 6] as the network gives them: weight logit, 2 means, 2 log sigmas, atanh rho; ranges are kept."""
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        return cls(
            log_weights=parameters[..., 0].log_softmax(-1),
            means=parameters[..., 1:3],
            log_sigmas=parameters[..., 3:5].clamp(*LOG_SIGMA_RANGE),
            atanh_rho=parameters[..., 5].clamp(*ATANH_RHO_RANGE),
        )

    def log_density(self, points: Tensor) -> Tensor:
        """[..., 2] -> [...], in log space throughout.

        With 1 / (1 - rho) = (1 + exp(2a)) / 2 and 1 / (1 + rho) = (1 + exp(-2a)) / 2 for rho = tanh(a), the quadratic
        form is a sum of two squares: nothing cancels when |rho| is near 1.
        """
        deviation = (points[..., None, :] - self.means) * (-self.log_sigmas).exp()
        u, v = deviation.clamp(-LARGEST_DEVIATION, LARGEST_DEVIATION).unbind(-1)
        a = self.atanh_rho
        form = ((u - v).square() * (1 + (2 * a).exp()) + (u + v).square() * (1 + (-2 * a).exp())) / 4
        # log sqrt(1 - rho^2) = -log cosh a
        log_cosh = a.abs() + functional.softplus(-2 * a.abs()) - math.log(2)
        log_normal = -math.log(2 * math.pi) - self.log_sigmas.sum(-1) + log_cosh - form / 2
        return (self.log_weights + log_normal).logsumexp(-1)


def mixture_nll(parameters: Tensor, points: Tensor) -> Tensor:
    """Negative log density of points [..., 2] under mixtures [..., K, 6]: [...], no reduction."""
    return -Mixture.from_parameters(parameters).log_density(points.float() if points.dtype.itemsize < 4 else points)


def label_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[target]: logits [..., C + 1], int64 [...] -> [...], float32 or wider, no reduction.

    The published code minimises -p instead, which is no likelihood and drifts off to -10 and NaN.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


def class_weights(class_counts: Sequence[int], ends: int, power: float) -> Tensor:
    """Weights of C classes and the end, proportional to count^-power, float32 [C + 1].

    class_counts: objects of each class; ends: images, each of which ends once. Normalised to a mean of 1 over all these
    objects and ends, so that whatever the power the label loss keeps its size beside the boxes'. A class that was
    never seen weighs as much as one seen once.
    """
    counts = torch.tensor([*class_counts, ends], dtype=torch.float64).clamp_min(1)
    weights = counts**-power
    return (weights * counts.sum() / (weights * counts).sum()).float()


def count_loss(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Negative log-likelihood of how many objects of each class there are, float32 [B], the sum over classes.

    logits: [B, C, R + 1] of presence and of 1, 2, ... R objects; labels: int64 [B, R]; valid: bool [B, R]
    """
    number = label_counts(labels, valid, logits.shape[1])
    present = number > 0
    presence = functional.binary_cross_entropy_with_logits(logits[..., 0].float(), present.float(), reduction="none")
    objects = label_nll(logits[..., 1:], (number - 1).clamp_min(0))
    return (presence + torch.where(present, objects, 0)).sum(-1)


def label_counts(labels: Tensor, valid: Tensor, classes: int) -> Tensor:
    """int64 [B, R], bool [B, R] -> int64 [B, classes]: objects of each class."""
    counts = torch.zeros(len(labels), classes, dtype=torch.int64, device=labels.device)
    return counts.scatter_add_(1, labels, valid.to(torch.int64))


def label_set(labels: Tensor, valid: Tensor, classes: int) -> Tensor:
    """int64 [B, R], bool [B, R] -> bool [B, classes]: which classes appear."""
    return label_counts(labels, valid, classes) > 0


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values that the mask keeps, same shapes; 0, with a graph, where it keeps none."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)
