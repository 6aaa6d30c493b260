"""Losses and gradients of one step, by term, and how far two such steps are apart."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from objgan.batch import Batch, Part
from objgan.stages.base import Losses, Phase
from objgan.train_state import TrainState
from objgan.training import SKIPPED, StepContext, train_step
from tests.gpu_check.forms import Tolerance

_MOST_ENTRIES = 1 << 16
"""Of each parameter's gradient, evenly spaced; more of them are thinned to this."""
_LEAST_LOSS = 0.1


@dataclass(frozen=True)
class Measured:
    """losses: `phase/term`, and the norms of gradients; gradients: `phase/term of network`, [n] in main memory.

    Shares of right answers are no losses: they jump where a logit is about 0.
    """

    losses: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Distance:
    """The largest errors, see `Tolerance`, with the terms that they belong to; whether all bits are equal."""

    loss: float
    loss_of: str
    gradient: float
    gradient_of: str
    equal: bool

    def within(self, tolerance: Tolerance | None) -> bool:
        """NaN is not."""
        if tolerance is None:
            return self.equal
        return self.loss <= tolerance.loss and self.gradient <= tolerance.gradient


def measured_step(state: TrainState, parts: Sequence[Part], context: StepContext) -> Measured:
    """One step of a fresh state as training takes it, but no weight moves between its phases.

    Adam's first step goes by the signs of the gradients, and a sign is lost in rounding.
    """
    found, stage = Measured(), state.stage
    plain = stage.phases
    stage.phases = tuple(replace(phase, losses=_watched(phase, state, found)) for phase in plain)
    hooks = [optimiser.register_step_pre_hook(_stand_still) for optimiser in state.optimisers.values()]
    try:
        with _graphs_kept():
            numbers = train_step(state, parts, context).numbers()
    finally:
        stage.phases = plain
        for hook in hooks:
            hook.remove()
    found.losses.update({name: value for name, value in numbers.items() if "accuracy" not in name and "/" in name})
    found.losses[SKIPPED] = numbers[SKIPPED]
    return found


def distance(ours: Measured, theirs: Measured) -> Distance:
    """How far `ours` is from `theirs`, to which errors are relative.

    Raises:
        ValueError: the steps have different terms.
    """
    if ours.losses.keys() != theirs.losses.keys() or ours.gradients.keys() != theirs.gradients.keys():
        raise ValueError("the steps have different terms")
    losses = {
        name: abs(value - theirs.losses[name]) / max(abs(theirs.losses[name]), _LEAST_LOSS)
        for name, value in ours.losses.items()
    }
    gradients = {name: _error(value, theirs.gradients[name]) for name, value in ours.gradients.items()}
    loss_of, gradient_of = _worst(losses), _worst(gradients)
    equal = ours.losses == theirs.losses and all(
        torch.equal(value, theirs.gradients[name]) for name, value in ours.gradients.items()
    )
    return Distance(losses[loss_of], loss_of, gradients[gradient_of], gradient_of, equal)


def _worst(errors: dict[str, float]) -> str:
    """The name of the largest error; of one that is NaN before all others."""
    return max(errors, key=lambda name: float("inf") if errors[name] != errors[name] else errors[name])


def _error(ours: Tensor, theirs: Tensor) -> float:
    size = float(theirs.norm())
    return float((ours - theirs).norm()) / size if size else float(ours.norm())


def _watched(phase: Phase, state: TrainState, found: Measured) -> Any:
    """The phase's losses; each one's gradients are computed on the way."""

    def losses(batch: Batch, outputs: Any) -> Losses | Iterator[Losses]:
        pieces = phase.losses(batch, outputs)
        if isinstance(pieces, dict):
            _differentiate(phase, pieces, state, found)
            return pieces
        return watched(pieces)

    def watched(pieces: Iterator[Losses]) -> Iterator[Losses]:
        for piece in pieces:
            _differentiate(phase, piece, state, found)
            yield piece

    return losses


def _differentiate(phase: Phase, piece: Losses, state: TrainState, found: Measured) -> None:
    networks = {name: _learning(state.stage.networks[name]) for name in phase.networks}
    parameters = [parameter for own in networks.values() for parameter in own]
    for term, loss in piece.items():
        if not phase.weights.get(term) or not loss.requires_grad:
            continue
        with torch.autocast(loss.device.type, enabled=False):
            slopes = iter(torch.autograd.grad(loss.float(), parameters, retain_graph=True, allow_unused=True))
        for name, own in networks.items():
            thinned = [_thinned(slope) for slope in (next(slopes) for _ in own) if slope is not None]
            if thinned:
                found.gradients[f"{phase.name}/{term} of {name}"] = torch.cat(thinned)


def _learning(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _thinned(slope: Tensor) -> Tensor:
    flat = slope.detach().float().reshape(-1)
    return flat[:: -(-flat.numel() // _MOST_ENTRIES)].cpu()


def _stand_still(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimiser.param_groups:
        group["lr"] = 0.0


@contextlib.contextmanager
def _graphs_kept() -> Iterator[None]:
    """Compiled blocks are differentiated once for each term: they may not reuse what they remember."""
    import torch._functorch.config as config

    with config.patch(donated_buffer=False):
        yield
