"""Other people's weights: read from a file that can run nothing, and checked against the network they are for."""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from objgan.errors import InputError


def read_weights(path: Path, what: str) -> dict[str, Tensor]:
    """The tensors by name in a `.safetensors` file, or in what `torch.save` wrote; `what` names them in the error.

    Raises:
        InputError: missing, broken, or with anything in it but tensors by name.
    """
    if not path.is_file():
        raise InputError(f"{what}: no file {path}; check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{what}: {path} is broken or holds more than weights; give the published file") from None
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, SafetensorError) as error:
        first = str(error).splitlines()[:1] or [type(error).__name__]
        raise InputError(f"{what}: {path} is broken or no file of weights ({first[0]}); fetch it again") from None
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise InputError(f"{what}: {path} holds no state dict (names and tensors); give the published file")
    return content


def fill(network: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load `weights` into `network`, in place; `source` begins the error.

    Raises:
        InputError: tensors are missing, too many or of another shape: the first of them is named.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise misfit(error, source) from None


def misfit(error: RuntimeError, source: str) -> InputError:
    """What `load_state_dict` raised, as one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    detail = (lines[1:2] or lines or ["unknown tensors"])[0]
    short = detail if len(detail) <= 160 else detail[:160] + " ..."
    return InputError(f"{source}: these are weights of another network ({short}); give the published file")
