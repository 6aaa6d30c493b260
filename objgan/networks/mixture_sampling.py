"""Draws from label distributions and Gaussian mixtures: from explicit noise, or so that gradients pass through."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from objgan.losses.boxes import Mixture


def sample_labels(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Logits [B, L], noise [B] -> int64 [B]; temperature 0 takes the most likely. Classes at -inf are never drawn."""
    logits = logits.float()
    return logits.argmax(-1) if temperature == 0 else _choose((logits / temperature).softmax(-1), noise)


def sample_mixture(parameters: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Parameters [B, K, 6], noise [B, 3] -> points [B, 2].

    The temperature divides the log weights, and its root scales the sigmas (Hong et al. 2018, after Sketch-RNN).
    """
    mixture = Mixture.from_parameters(parameters)
    index = _choose((mixture.log_weights / temperature).softmax(-1), noise[:, 0])
    row = torch.arange(len(index), device=index.device)
    mean, rho = mixture.means[row, index], mixture.atanh_rho[row, index].tanh()
    sigma = mixture.log_sigmas[row, index].exp() * math.sqrt(temperature)
    first, second = noise[:, 1].float(), noise[:, 2].float()
    second = rho * first + (1 - rho.square()).sqrt() * second
    return mean + sigma * torch.stack([first, second], -1)


def turned(noise: Tensor, turns: int) -> Tensor:
    """Other standard-normal noise [B, 6] for two mixtures, from that of a first draw: its points are spread evenly.

    The components' numbers move by golden sections of their distribution, the points turn by golden angles.
    """
    section = turns * (math.sqrt(5) - 1) / 2
    uniform = torch.special.ndtr(noise[:, [0, 3]]) + section
    components = torch.special.ndtri((uniform - uniform.floor()).clamp(1e-6, 1 - 1e-6))
    cosine, sine = math.cos(2 * math.pi * section), math.sin(2 * math.pi * section)
    (x, y), (w, h) = noise[:, 1:3].unbind(1), noise[:, 4:6].unbind(1)
    points = [cosine * x - sine * y, sine * x + cosine * y, cosine * w - sine * h, sine * w + cosine * h]
    return torch.stack([components[:, 0], *points[:2], components[:, 1], *points[2:]], 1)


def draw_one_hot(logits: Tensor) -> Tensor:
    """Logits [..., L] -> one-hot float32 [..., L], drawn with torch's global generator; classes at -inf never are.

    Gradients are those of the Gumbel-softmax of temperature 1, straight through (Jang et al. 2017, arXiv 1611.01144).
    """
    drawn: Tensor = functional.gumbel_softmax(logits.float(), tau=1.0, hard=True)
    return drawn


def draw_mixture(parameters: Tensor) -> Tensor:
    """Parameters [B, K, 6] -> points [B, 2], with torch's global generator; gradients reach every parameter.

    Component weights straight through (`draw_one_hot`), Gaussians by reparameterisation.
    """
    mixture = Mixture.from_parameters(parameters)
    chosen = draw_one_hot(mixture.log_weights)[..., None]
    mean, sigma = (mixture.means * chosen).sum(-2), (mixture.log_sigmas * chosen).sum(-2).exp()
    rho = (mixture.atanh_rho[..., None] * chosen).sum(-2).tanh()
    noise = torch.randn_like(mean)
    first, second = noise[..., :1], noise[..., 1:]
    return mean + sigma * torch.cat([first, rho * first + (1 - rho.square()).sqrt() * second], -1)


def _choose(probabilities: Tensor, noise: Tensor) -> Tensor:
    """[B, L], standard-normal [B] -> int64 [B], by inverting the cumulative distribution."""
    # Above 0 strictly, so that leading classes of probability 0 are passed over; within the total against rounding.
    cumulative = probabilities.cumsum(-1)
    uniform: Tensor = torch.special.ndtr(noise.float()).clamp(1e-6, 1 - 1e-6) * cumulative[:, -1]
    below: Tensor = cumulative < uniform[:, None]
    return below.sum(-1).clamp_max(probabilities.shape[-1] - 1)
