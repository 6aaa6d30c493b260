"""TrainState: what a training step changes."""

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from objgan.stages.base import Phase, Stage


class TrainState:
    """Everything that a step changes: a stage's networks, their moving averages, the optimisers and the step."""

    def __init__(self, stage: Stage, device: torch.device | str = "cpu") -> None:
        self.stage = stage.to(device)
        self.device = torch.device(device)
        self.step = 0
        self.skipped = 0
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
        averages, sources = self._averaged()
        if averages:
            torch._foreach_lerp_(averages, sources, 1 - decay)

    def _averaged(self) -> tuple[list[Tensor], list[Tensor]]:
        """The floating tensors of the averages and of their networks; counters are copied on the way."""
        averages, sources = [], []
        for name, average in self.ema.items():
            source = self.stage.networks[name].state_dict()
            for key, value in average.state_dict().items():
                if value.is_floating_point():
                    averages.append(value)
                    sources.append(source[key])
                else:
                    value.copy_(source[key])
        return averages, sources

    def learning_rates(self) -> dict[str, float]:
        """The rate of the last step, by phase."""
        return {name: float(optimiser.param_groups[0]["lr"]) for name, optimiser in self.optimisers.items()}

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

    def _optimiser(self, phase: Phase) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.learning_parameters(phase),
            lr=phase.optimiser.lr,
            betas=phase.optimiser.betas,
            fused=self.device.type in ("cpu", "cuda"),
        )
