"""What an image encoder looks through: Inception-v3 (Szegedy et al. 2015), or a small network trained from scratch."""

import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from objgan.batch import resize_images
from objgan.errors import InputError


class Backbone(ABC, nn.Module):
    """Images [B, 3, S, S] in [-1, 1] -> (regions [B, region_channels, n, n], pooled [B, vector_channels])."""

    region_channels: int
    vector_channels: int
    frozen: bool = False

    @abstractmethod
    def activations(self, images: Tensor) -> list[Tensor]:
        """Of every layer in turn, what perceptual terms compare: [B, K, h, w] each."""

    @abstractmethod
    def outputs(self, activations: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What `forward` gives, from the activations of its images."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        return self.outputs(self.activations(images))


class Inception(Backbone):
    """Inception-v3 at 299 x 299: 768 x 17 x 17 regions after Mixed_6e, 2048 pooled channels after Mixed_7c.

    With `frozen`, no weight asks for gradients and the network stays in eval mode whatever `train()` and
    `requires_grad_()` are called with (the published code lets the batch statistics drift). Gradients still reach the
    images. Images go in as they are: torchvision's weights want ImageNet's normalisation followed by
    `transform_input`, and the two together are [-1, 1].
    """

    region_channels = 768
    vector_channels = 2048
    side = 299

    def __init__(self, frozen: bool) -> None:
        import torchvision.models  # a second of import, for those who have this backbone

        super().__init__()
        full = torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False)
        layers = {name: layer for name, layer in full.named_children() if name not in ("avgpool", "dropout", "fc")}
        self.layers = nn.ModuleDict(layers)
        self.frozen = frozen
        self.requires_grad_().train()

    def train(self, mode: bool = True) -> "Inception":
        """As everywhere, but a frozen backbone stays in eval mode."""
        super().train(mode and not self.frozen)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> "Inception":
        """As everywhere, but a frozen backbone stays frozen."""
        super().requires_grad_(requires_grad and not self.frozen)
        return self

    def outputs(self, activations: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See `Backbone`."""
        named = dict(zip(self.layers, activations, strict=True))
        return named["Mixed_6e"], named["Mixed_7c"].mean((2, 3))

    def activations(self, images: Tensor) -> list[Tensor]:
        """See `Backbone`."""
        hidden = functional.interpolate(images, size=(self.side, self.side), mode="bilinear", align_corners=False)
        return _in_turn(self.layers.values(), hidden)

    def load_weights(self, path: Path) -> None:
        """Read torchvision's Inception-v3 weights (`.pth` or `.safetensors`); the classifier's are left out.

        Raises:
            InputError: no such file, not readable without unpickling code, or other weights.
        """
        state = {f"layers.{name}": tensor for name, tensor in read_weights(path, "backbone weights").items()}
        expected = self.state_dict()
        # Files older than torch 0.4.1 have no counters of batches, and nothing reads them.
        missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
        wrong = [n for n, t in expected.items() if n in state and state[n].shape != t.shape]
        if missing or wrong:
            name = (missing or wrong)[0].removeprefix("layers.")
            raise InputError(
                f"backbone weights: {path} is not torchvision's inception_v3 ({len(missing)} tensors missing, "
                f"{len(wrong)} of another shape, first {name}); give inception_v3_google-*.pth"
            )
        self.load_state_dict({name: state[name] for name in expected if name in state}, strict=False)


class SmallBackbone(Backbone):
    """At 64 x 64: three stride-2 convolutions and a residual block to 8 x 8 regions, one more for the pooled vector."""

    side = 64

    def __init__(self, width: int) -> None:
        super().__init__()
        self.region_channels, self.vector_channels = 4 * width, 8 * width
        self.to_regions = nn.Sequential(
            _down(3, width),  # 32 x 32
            _down(width, 2 * width),  # 16 x 16
            _down(2 * width, 4 * width),  # 8 x 8
            _Residual(4 * width),
        )
        self.to_vector = _down(4 * width, 8 * width)  # 4 x 4

    def outputs(self, activations: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See `Backbone`."""
        *_, regions, last = activations
        return regions, last.mean((2, 3))

    def activations(self, images: Tensor) -> list[Tensor]:
        """See `Backbone`; larger images are averaged down to 64 x 64."""
        return _in_turn([*self.to_regions, self.to_vector], resize_images(images, self.side))


def _in_turn(layers: Iterable[nn.Module], hidden: Tensor) -> list[Tensor]:
    """What each layer makes of the one before it."""
    activations = []
    for layer in layers:
        hidden = layer(hidden)
        activations.append(hidden)
    return activations


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels // 2, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.leaky_relu(hidden + self.branch(hidden), 0.2)


def _down(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.2),
    )


def read_weights(path: Path, what: str) -> dict[str, Tensor]:
    """The named tensors of a `.safetensors` file or of a state dict saved by torch; no pickled code is run.

    Raises:
        InputError: `what`, the file and what is wrong with it.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{what}: no file {path}; check the path") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{what}: cannot read {path} ({reason}); give .pth or .safetensors weights") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{what}: {path} is not a state dict of tensors; give .pth or .safetensors weights")
    return state
