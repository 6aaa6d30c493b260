"""The checkpoint of a stage: a folder of JSON and safetensors, nothing pickled.

```
state.json          format, stage, step, versions, sha256 of each file below
config.json         the resolved settings; networks are rebuilt from these, never from today's defaults
domain/             vocabulary, classes, layout statistics
networks/NAME.safetensors, averages/NAME.safetensors, optimisers/PHASE.safetensors
```
`resume` goes on with a run; `load_inference` takes the networks that later stages and finished models use.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import objgan
from objgan.config import Config, build_config, config_to_json
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.files import folder_aside, read_json, sha256, write_atomically
from objgan.stages import build_network, stage_class
from objgan.train_state import TrainState

FORMAT = 1


def save_network(path: Path, network: nn.Module) -> None:
    """Write a network's parameters and buffers to one safetensors file."""
    _save_tensors(path, network.state_dict())


def load_network(path: Path, network: nn.Module) -> None:
    """Read what `save_network` wrote into `network`, in place.

    Raises:
        InputError: missing, cut short, or of another shape.
    """
    tensors = _load_tensors(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise InputError(f"{path} does not fit its settings: {first[0].strip()}") from None


def save_checkpoint(folder: Path, state: TrainState, extra: dict[str, Any] | None = None) -> None:
    """Write everything that `resume` needs; the folder appears whole."""
    stage = state.stage
    with folder_aside(folder) as aside:
        write_atomically(aside / "config.json", config_to_json(stage.config))
        stage.domain.save(aside / "domain")
        for name, network in stage.networks.items():
            save_network(aside / "networks" / f"{name}.safetensors", network)
        for name, network in state.ema.items():
            save_network(aside / "averages" / f"{name}.safetensors", network)
        for name, optimiser in state.optimisers.items():
            _save_tensors(aside / "optimisers" / f"{name}.safetensors", _flatten_optimiser(optimiser))
        files = sorted(p for p in aside.rglob("*") if p.is_file())
        facts = {
            "format": FORMAT,
            "objgan": objgan.__version__,
            "torch": torch.__version__,
            "stage": stage.name,
            "step": state.step,
            "sha256": {str(p.relative_to(aside)): sha256(p) for p in files},
        }
        write_atomically(aside / "state.json", json.dumps(facts | (extra or {}), indent=1) + "\n")


def read_state(folder: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint, its files checked against their sums.

    Raises:
        InputError: no checkpoint, of a newer format, or with a missing or changed file.
    """
    facts: dict[str, Any] = read_json(folder / "state.json", "checkpoint")
    if not isinstance(facts, dict) or "stage" not in facts or "sha256" not in facts:
        raise InputError(f"checkpoint: {folder / 'state.json'} is not a checkpoint's state.json")
    if facts.get("format", 0) > FORMAT:
        raise InputError(f"checkpoint: {folder} has format {facts['format']}, newer than {FORMAT}: update objgan")
    for name, expected in facts["sha256"].items():
        path = folder / name
        if not path.is_file() or sha256(path) != expected:
            raise InputError(
                f"checkpoint: {path} is missing or was changed after it was written: take another checkpoint"
            )
    return facts


def read_config(folder: Path) -> Config:
    """The settings that a checkpoint or model was made with."""
    return build_config(read_json(folder / "config.json", "settings of the checkpoint"))


def resume(folder: Path, state: TrainState) -> None:
    """Go on with a run: networks, averages, optimisers and step, in place.

    Raises:
        InputError: the checkpoint is broken, or of another stage or other sizes.
    """
    facts = read_state(folder)
    if facts["stage"] != state.stage.name:
        raise InputError(f"checkpoint: {folder} is of stage {facts['stage']}, not {state.stage.name}")
    for name, network in state.stage.networks.items():
        load_network(folder / "networks" / f"{name}.safetensors", network)
    for name, network in state.ema.items():
        load_network(folder / "averages" / f"{name}.safetensors", network)
    for name, optimiser in state.optimisers.items():
        _restore_optimiser(optimiser, _load_tensors(folder / "optimisers" / f"{name}.safetensors"))
    state.step = facts["step"]


def load_inference(folder: Path) -> dict[str, nn.Module]:
    """The networks of a checkpoint that later stages and finished models use, averaged where averages were kept.

    Raises:
        InputError: the checkpoint is broken.
    """
    stage = stage_class(read_state(folder)["stage"])
    config, domain = read_config(folder), Domain.load(folder / "domain")
    networks = {}
    for name in stage.inference:
        networks[name] = build_network(name, config, domain)
        average = folder / "averages" / f"{name}.safetensors"
        load_network(average if average.exists() else folder / "networks" / f"{name}.safetensors", networks[name])
        networks[name].requires_grad_(False).eval()
    return networks


def _flatten_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`index.name` -> tensor. Learning rates and betas are settings, set anew at each step."""
    state = optimiser.state_dict()["state"]
    return {f"{index}.{key}": value for index, values in state.items() for key, value in values.items()}


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the tensors in {path} ({error}): take another checkpoint") from None
