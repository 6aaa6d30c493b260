"""Stage and Phase: what the one training loop knows of a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from objgan.batch import Batch
from objgan.config import Config
from objgan.domain import Domain
from objgan.sections import TrainingConfig

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Adam:
    """Optimiser settings of a phase; `schedule` maps the epoch (a float, from 0) to a factor on `lr`."""

    lr: float
    betas: tuple[float, float] = (0.5, 0.999)
    schedule: Callable[[float], float] = lambda epoch: 1.0


@dataclass(frozen=True)
class Phase:
    """One update within a step: gradients are on for `networks` alone.

    losses:  (batch, outputs of Stage.forward) -> named, unweighted scalars; or several such, one after the other,
             without common parameters: each piece's graph is gone before the next piece is asked for
    weights: factor of each loss in the sum that is minimised; a name without one is only reported
    clip:    largest gradient norm by network; networks without one are not clipped
    every:   done at steps divisible by it (lazy regularisation); the weights should make up for it
    active:  whether it is done after this share of the run's steps
    """

    name: str
    networks: tuple[str, ...]
    optimiser: Adam
    losses: Callable[[Batch, Any], Losses | Iterator[Losses]]
    weights: Mapping[str, float]
    clip: Mapping[str, float] = field(default_factory=dict)
    every: int = 1
    active: Callable[[float], bool] = lambda share: True


class Stage(ABC, nn.Module):
    """Named networks, frozen helpers, one forward and ordered phases. A new stage is a new file.

    `forward` runs the generating networks once per step with gradients on; discriminator phases detach its
    outputs, the generator's phase uses them with their graph. `measure` and `pictures` see evaluation weights
    (the loop swaps the moving averages in) in eval mode, without gradients.
    """

    name: ClassVar[str]
    columns: ClassVar[frozenset[str]]
    """Shard columns beyond ids and captions: of "image", "boxes", "masks" (masks imply boxes)."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Helper networks from earlier stages, by name: "text_encoder", "image_encoder"."""
    inference: ClassVar[tuple[str, ...]]
    """Networks that a finished model keeps; the moving average is taken of these."""
    least_batch: ClassVar[int] = 1
    """Samples that a worker needs: 2 where other samples' captions are the negatives, or batch norm meets vectors."""
    objective: ClassVar[tuple[str, Literal["max", "min"]]]
    """The held-out measure that picks the best checkpoint."""
    measures: ClassVar[Mapping[str, Literal["max", "min"]]]
    """The held-out measures that training can better, and which way that is."""

    networks: nn.ModuleDict
    helpers: nn.ModuleDict
    phases: tuple[Phase, ...]

    def __init__(self, config: Config, domain: Domain, helpers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        needs = self.needed(config)
        missing = [name for name in needs if name not in helpers]
        if missing:
            raise ValueError(f"stage {self.name} needs {', '.join(missing)} from an earlier stage")
        self.config, self.domain = config, domain
        self.networks = nn.ModuleDict()
        self.helpers = nn.ModuleDict({name: helpers[name] for name in needs})
        self.helpers.requires_grad_(False)
        self.helpers.eval()

    @classmethod
    def needed(cls, config: Config) -> tuple[str, ...]:
        """The helpers that these settings call for: `needs`, or fewer."""
        return cls.needs

    @property
    def training_config(self) -> TrainingConfig:
        """This stage's training settings."""
        config: TrainingConfig = getattr(self.config, self.name).training
        return config

    def train(self, mode: bool = True) -> "Stage":
        """Helpers stay in eval mode whatever the rest does."""
        super().train(mode)
        self.helpers.eval()
        return self

    @abstractmethod
    def forward(self, batch: Batch) -> Any:
        """What the phases share: the generating networks' outputs, graph attached."""

    @abstractmethod
    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Held-out measures, one value a sample: float [B], NaN where a measure does not apply."""

    @abstractmethod
    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Image.Image]:
        """Pictures of how these samples fare, by name."""


def noise_of_images(batch: Batch, shape: Sequence[int]) -> Tensor:
    """Normal noise [B, *shape] that depends on an image's id alone, so that measures can be compared over time."""
    draws = [torch.randn(*shape, generator=torch.Generator().manual_seed(image)) for image in batch.image_ids.tolist()]
    return torch.stack(draws).to(batch.words.device)
