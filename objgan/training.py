"""One train step for every stage: phases in order over groups of a batch, gradients summed over workers, averages.

A batch is cut into groups that do not depend on the number of workers; whatever looks at several samples (contrast,
mismatched pairs, batch norm) looks within one group, and each group is computed whole on one worker. So a run is a
function of its data, settings and seed, on any number of workers.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from objgan.averaging import GradientSum
from objgan.batch import Batch, Part
from objgan.group_statistics import GroupStatistics
from objgan.stages.base import Losses, Phase
from objgan.train_state import TrainState

SKIPPED, ATTENTION = "skipped", "attention"
"""Entries of a record beside the phases' own: 1 where the step changed nothing; how many workers asked to be heard."""


@dataclass(frozen=True)
class StepContext:
    """What a step needs beside the batch: all noise of it is a function of (seed, step, group, phase).

    groups: of the whole batch, over all workers
    total_steps: length of the run, for a warm-up and the cooldown of the learning rates; 0: not known, neither
    """

    seed: int
    groups: int = 1
    steps_per_epoch: float = 1.0
    precision: torch.dtype = torch.float32
    total_steps: int = 0


@dataclass(frozen=True)
class StepRecord:
    """Results of a step, left on the device until they are read: means over all groups of all workers.

    step:   of the run, from 0
    names:  `phase/term`, `phase/gradient_norm`, then `SKIPPED` and `ATTENTION`
    values: float32 [len(names)]
    """

    step: int
    names: tuple[str, ...]
    values: Tensor

    def numbers(self) -> dict[str, float]:
        """By name; waits for the device."""
        return dict(zip(self.names, self.values.tolist(), strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """Scalars of the phases by `phase/term`, on the device."""
        return {name: value for name, value in zip(self.names, self.values, strict=True) if "/" in name}


def train_step(
    state: TrainState, batch: Batch | Sequence[Part], context: StepContext, attention: bool = False
) -> StepRecord:
    """One step over all phases: this worker's groups of the batch (a Batch is a single group).

    A phase whose loss or gradient is not finite changes nothing, nor does any phase after it: the step counts as
    skipped, and running statistics stay as they were. Nothing here waits for a GPU. `attention` is sent to all workers
    with the gradients.
    """
    stage = state.stage
    parts = [Part(0, batch)] if isinstance(batch, Batch) else list(batch)
    step = _Step(state, parts, context)
    stage.train()
    state.switch_gradients(None)
    step.forward()
    share = state.step / context.total_steps if context.total_steps else 1.0
    phases = [phase for phase in stage.phases if state.step % phase.every == 0 and phase.active(share)]
    for phase in phases:
        step.run(phase, last=phase is phases[-1], attention=attention)
    step.statistics.undo_if(step.bad)
    record = step.record()
    state.step += 1
    state.update_averages()
    return record


def not_finite(numbers: Mapping[str, float]) -> str | None:
    """The first name whose number is NaN or infinite."""
    return next((name for name, value in numbers.items() if not math.isfinite(value)), None)


def cooldown_factor(step: int, total: int, share: float) -> float:
    """1 until the last `share` of `total` steps, then straight down; the last step still moves."""
    if not total or not share:
        return 1.0
    return min(1.0, max(0.0, total - step) / (share * total))


def step_seed(seed: int, step: int, stream: int) -> int:
    """A 63-bit seed for one of the streams of noise of a step (a splitmix64 of the three numbers)."""
    value = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB) & (2**64 - 1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = ((value ^ (value >> shift)) * factor) & (2**64 - 1)
    return (value ^ (value >> 31)) & (2**63 - 1)


class _Step:
    """A step between its phases. Every sum over workers goes with a phase's gradients, in one message."""

    def __init__(self, state: TrainState, parts: Sequence[Part], context: StepContext) -> None:
        self.state, self.parts, self.context = state, parts, context
        self.statistics = GroupStatistics(state.stage.networks, [part.group for part in parts], context.groups)
        self.outputs: list[Any] = []
        self.bad = torch.zeros((), dtype=torch.bool, device=state.device)
        self._names: list[str] = []
        self._values: list[Tensor] = []
        self._attention = torch.zeros(1, device=state.device)

    def forward(self) -> None:
        """The pass that all phases share."""
        for place, part in enumerate(self.parts):
            self._begin(place, 0)
            with _autocast(self.state.device, self.context.precision):
                self.outputs.append(self.state.stage(part.batch))
            self.statistics.end(place)

    def run(self, phase: Phase, last: bool, attention: bool) -> None:
        """One phase over all groups: losses, gradients, their sums over workers, clipping, one optimiser step."""
        state = self.state
        state.switch_gradients(phase)
        parameters = state.learning_parameters(phase)
        optimiser = self._prepare(phase)
        sums = GradientSum(parameters)
        losses, learns = self._backward(phase, sums, last)
        asked = torch.full((1,), float(attention), device=state.device)
        pieces = [losses, asked, *([self.statistics.share()] if last else [])]
        # A phase that minimises nothing yet has no gradients; its results are still sent.
        total = (sums if learns else GradientSum([])).finish(torch.cat(pieces))
        losses, self._attention, *means = torch.split(total, [piece.numel() for piece in pieces])
        for mean in means:
            self.statistics.settle(mean)
        self._values.append(losses)
        if learns:
            self._learn(phase, parameters, optimiser)
        elif losses.numel():
            self.bad = self.bad | ~torch.isfinite(losses).all()

    def _learn(self, phase: Phase, parameters: list[nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).reshape(1)
        self.bad = self.bad | ~torch.isfinite(torch.cat([self._values[-1], norm])).all()
        self._values.append(norm.float())
        self._names.append(f"{phase.name}/gradient_norm")
        for name, limit in phase.clip.items():
            nn.utils.clip_grad_norm_(self.state.stage.networks[name].parameters(), limit)
        _update(optimiser, self.bad)
        # Nobody reads them any more, and the next phase has graphs of its own to keep.
        optimiser.zero_grad(set_to_none=True)

    def record(self) -> StepRecord:
        """What happened."""
        values = torch.cat([*self._values, self.bad.reshape(1).float(), self._attention])
        return StepRecord(self.state.step, (*self._names, SKIPPED, ATTENTION), values.float())

    def _prepare(self, phase: Phase) -> torch.optim.Optimizer:
        state, context = self.state, self.context
        factor = phase.optimiser.schedule(state.step / context.steps_per_epoch)
        factor *= cooldown_factor(state.step, context.total_steps, state.stage.training_config.cooldown)
        optimiser = state.optimisers[phase.name]
        for group in optimiser.param_groups:
            group["lr"] = phase.optimiser.lr * factor
        optimiser.zero_grad(set_to_none=True)
        return optimiser

    def _backward(self, phase: Phase, sums: GradientSum, last: bool) -> tuple[Tensor, bool]:
        """Gradients of this worker's groups; returns its part of the mean losses, float32 [terms], and whether any of
        them is minimised.
        """
        number = 1 + self.state.stage.phases.index(phase)
        total: Tensor | None = None
        for place in range(len(self.parts)):
            self._begin(place, number)
            with sums.overlapped() if place == len(self.parts) - 1 else contextlib.nullcontext():
                found, learns = self._descend(phase, place)
            self.statistics.end(place)
            if last:
                self.outputs[place] = None
            values = [loss.reshape(1) for loss in found.values()]
            mean = torch.cat(values) / self.context.groups if values else self._attention[:0]
            total = mean if total is None else total + mean
        self._names += [f"{phase.name}/{name}" for name in found]
        assert total is not None
        return total, learns

    def _descend(self, phase: Phase, place: int) -> tuple[Losses, bool]:
        """Gradients of one group: its losses, detached, and whether any was minimised."""
        found: Losses = {}
        learns = False
        device, precision = self.state.device, self.context.precision
        # However often a spectrally normalised weight is read, its power step and its quotient are done once.
        with _autocast(device, precision), parametrize.cached():
            losses = phase.losses(self.parts[place].batch, self.outputs[place])
        pieces = iter([losses]) if isinstance(losses, dict) else losses
        while True:
            # Each piece is computed when it is asked for, and its graph is gone before the next one.
            with _autocast(device, precision), parametrize.cached():
                piece = next(pieces, None)
            if piece is None:
                return found, learns
            learns = _backward(phase, piece, self.context.groups) or learns
            found |= {name: loss.detach().float() for name, loss in piece.items()}

    def _begin(self, place: int, number: int) -> None:
        """A pass's noise and buffers depend on the group and not on who computed what before."""
        group = self.parts[place].group
        torch.manual_seed(step_seed(self.context.seed, self.state.step, group * _MOST_PASSES + number))
        self.statistics.begin(place)


_MOST_PASSES = 16
"""More than a step has: the forward pass and its phases."""


def _backward(phase: Phase, losses: Losses, groups: int) -> bool:
    """Whether there was anything to minimise."""
    weighted = [phase.weights[name] * loss.float() for name, loss in losses.items() if phase.weights.get(name)]
    if weighted:
        torch.autograd.backward(torch.stack(weighted).sum() / groups)
    return bool(weighted)


def _update(optimiser: torch.optim.Optimizer, bad: Tensor) -> None:
    """An Adam step that `bad` turns into nothing, on the device: the fused kernel's own way to skip."""
    optimiser.grad_scale, optimiser.found_inf = None, bad.float()  # type: ignore[attr-defined]
    optimiser.step()


def _autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)
