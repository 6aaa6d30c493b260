"""One train step for every stage: phases in order, gradients averaged over workers, moving averages."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from objgan.batch import Batch
from objgan.stages.base import Phase, Stage


@dataclass(frozen=True)
class StepContext:
    """What a step needs beside the batch: all noise of it is a function of (seed, step, rank).

    total_steps: length of the run, for the cooldown of the learning rates; 0: not known, no cooldown
    """

    seed: int
    rank: int = 0
    steps_per_epoch: float = 1.0
    precision: torch.dtype = torch.float32
    total_steps: int = 0


class TrainState:
    """Everything that a step changes: a stage's networks, their moving averages, the optimisers and the step."""

    def __init__(self, stage: Stage, device: torch.device | str = "cpu") -> None:
        self.stage = stage.to(device)
        self.device = torch.device(device)
        self.step = 0
        # What a network froze when it was built (a backbone with weights) stays frozen through every phase.
        self._learns = {id(p) for p in stage.networks.parameters() if p.requires_grad}
        self.optimisers = {phase.name: self._optimiser(phase) for phase in stage.phases}
        training = stage.training_config
        self.ema_decay, self.ema_warmup = training.ema_decay, training.ema_warmup
        self.ema = nn.ModuleDict()
        if self.ema_decay:
            self.ema = nn.ModuleDict({name: copy.deepcopy(stage.networks[name]) for name in stage.inference})
            self.ema.requires_grad_(False).eval()

    def learning_parameters(self, phase: Phase) -> list[nn.Parameter]:
        """The parameters that `phase` updates, in a fixed order."""
        networks = (self.stage.networks[name] for name in phase.networks)
        return [p for network in networks for p in network.parameters() if id(p) in self._learns]

    def switch_gradients(self, phase: Phase | None) -> None:
        """Gradients on for the networks of `phase` alone (None: for all that learn)."""
        on = self._learns if phase is None else {id(p) for p in self.learning_parameters(phase)}
        for parameter in self.stage.networks.parameters():
            parameter.requires_grad_(id(parameter) in on)

    @torch.no_grad()
    def update_averages(self) -> None:
        """EMA of parameters and of normalisation statistics: an average's statistics are its own."""
        decay = self.ema_decay
        if self.ema_warmup:
            decay = min(decay, (1 + self.step) / (10 + self.step))
        for name, average in self.ema.items():
            source = self.stage.networks[name].state_dict()
            for key, value in average.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(source[key], 1 - decay)
                else:
                    value.copy_(source[key])

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[Stage]:
        """The stage with its moving averages in place of the trained weights, in eval mode."""
        trained = {name: self.stage.networks[name] for name in self.ema}
        try:
            for name, average in self.ema.items():
                self.stage.networks[name] = average
            self.stage.eval()
            yield self.stage
        finally:
            for name, network in trained.items():
                self.stage.networks[name] = network
            self.stage.train()

    def inference_networks(self) -> dict[str, nn.Module]:
        """The networks that a finished model keeps, averaged where an average is kept."""
        return {
            name: self.ema[name] if name in self.ema else self.stage.networks[name] for name in self.stage.inference
        }

    def _optimiser(self, phase: Phase) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.learning_parameters(phase),
            lr=phase.optimiser.lr,
            betas=phase.optimiser.betas,
            fused=self.device.type in ("cpu", "cuda"),
        )


def train_step(state: TrainState, batch: Batch, context: StepContext) -> dict[str, Tensor]:
    """One step over all phases; scalars by `phase/name`, detached and still on the device.

    Raises:
        FloatingPointError: on the CPU, a loss or gradient is not finite (on a GPU call `check_finite` where a
            synchronisation does not matter).
    """
    stage = state.stage
    torch.manual_seed(step_seed(context.seed, state.step, context.rank))
    stage.train()
    state.switch_gradients(None)
    with _autocast(state.device, context.precision):
        outputs = stage(batch)
    metrics: dict[str, Tensor] = {}
    for phase in stage.phases:
        if state.step % phase.every == 0:
            metrics |= _run_phase(state, phase, batch, outputs, context)
    _average_statistics(stage)
    state.step += 1
    state.update_averages()
    return metrics


def check_finite(state: TrainState, metrics: dict[str, Tensor]) -> None:
    """Stop on a loss or gradient norm that is not finite.

    Raises:
        FloatingPointError: names stage, phase, step and term.
    """
    for name, value in metrics.items():
        if not torch.isfinite(value):
            phase, term = name.split("/", 1)
            raise FloatingPointError(
                f"stage {state.stage.name}, phase {phase}, step {state.step}: {term} is {value.item()}; "
                f"lower the learning rate or look at the data"
            )


def cooldown_factor(step: int, total: int, share: float) -> float:
    """1 until the last `share` of `total` steps, then straight down; the last step still moves."""
    if not total or not share:
        return 1.0
    return min(1.0, max(0.0, total - step) / (share * total))


def step_seed(seed: int, step: int, rank: int) -> int:
    """A 63-bit seed for one step of one worker (a splitmix64 of the three numbers)."""
    value = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) & (2**64 - 1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = ((value ^ (value >> shift)) * factor) & (2**64 - 1)
    return (value ^ (value >> 31)) & (2**63 - 1)


def _run_phase(state: TrainState, phase: Phase, batch: Batch, outputs: Any, context: StepContext) -> dict[str, Tensor]:
    state.switch_gradients(phase)
    optimiser = state.optimisers[phase.name]
    factor = phase.optimiser.schedule(state.step / context.steps_per_epoch)
    factor *= cooldown_factor(state.step, context.total_steps, state.stage.training_config.cooldown)
    for group in optimiser.param_groups:
        group["lr"] = phase.optimiser.lr * factor
    optimiser.zero_grad(set_to_none=True)
    with _autocast(state.device, context.precision):
        losses = phase.losses(batch, outputs)
    weighted = [phase.weights[name] * loss for name, loss in losses.items() if phase.weights.get(name)]
    metrics = {f"{phase.name}/{name}": loss.detach().float() for name, loss in losses.items()}
    if not weighted:
        return metrics
    torch.autograd.backward(torch.stack([loss.float() for loss in weighted]).sum())
    parameters = state.learning_parameters(phase)
    _average_gradients(parameters)
    metrics[f"{phase.name}/gradient_norm"] = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if state.device.type == "cpu":
        check_finite(state, metrics)
    for name, limit in phase.clip.items():
        nn.utils.clip_grad_norm_(state.stage.networks[name].parameters(), limit)
    optimiser.step()
    return metrics


def _autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    """Mean over the workers by one flat all-reduce; a parameter without a gradient counts as zero."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _average_in_place([p.grad for p in parameters if p.grad is not None])


@torch.no_grad()
def _average_statistics(stage: Stage) -> None:
    """Normalisation statistics are the workers' mean, so that every worker holds the same networks."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    _average_in_place([b for b in stage.networks.buffers() if b.is_floating_point()])


def _average_in_place(tensors: list[Tensor]) -> None:
    if not tensors:
        return
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, mean in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
