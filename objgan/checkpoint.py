"""The checkpoint of a stage: a folder of JSON and safetensors, nothing pickled.

```
state.json          format, stage, step, versions, whatever the run adds, sha256 of each file below and of itself
config.json         the resolved settings; networks are rebuilt from these, never from today's defaults
domain/             vocabulary, classes, layout statistics
networks/NAME.safetensors, averages/NAME.safetensors, optimisers/PHASE.safetensors
```
`snapshot` copies a state, `write_snapshot` writes the copy, later or elsewhere; `save_checkpoint` does both. `resume`
goes on with a run, `load_weights` begins another with its networks, `load_inference` takes the networks that later
stages and finished models use.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import objgan
from objgan.config import Config, build_config, config_to_json
from objgan.domain import DOMAIN_FILES, Domain
from objgan.errors import InputError, shown
from objgan.files import check_sums, folder_aside, read_json, sha256, write_atomically
from objgan.json_input import OWN
from objgan.stages import build_network, stage_class
from objgan.tensors import misfit, read_shapes, read_tensors, write_tensors
from objgan.train_state import TrainState

FORMAT = 2
"""1: without the sum of state.json itself; still read."""
STATE = "state.json"
_FILES = re.compile(rf"config\.json|domain/({DOMAIN_FILES})|(networks|averages|optimisers)/\w{{1,100}}\.safetensors")
_MOST_STEPS = 10**12


@dataclass(frozen=True)
class Snapshot:
    """A copy of a state at one step, in CPU memory, that training no longer touches.

    tensors: by file, below the checkpoint's folder
    extra:   what else the run wants to find again in state.json (JSON)
    """

    stage: str
    step: int
    config: Config
    domain: Domain
    tensors: Mapping[str, Mapping[str, Tensor]]
    extra: Mapping[str, Any] = field(default_factory=dict)


def save_network(path: Path, network: nn.Module) -> None:
    """Write a network's parameters and buffers to one safetensors file."""
    write_tensors(path, network.state_dict())


def build_networks(config: Config, domain: Domain, files: Mapping[str, Path]) -> dict[str, nn.Module]:
    """Networks by name, on the CPU, with the weights of their files.

    Settings may come from somebody else: all networks are laid out without memory first (torch's meta device), and
    compared with the headers of their files. What is allocated then is what lies in the files.

    Raises:
        InputError: a file is missing or no safetensors file, or the settings ask for other shapes than it holds.
    """
    for name, path in files.items():
        with torch.device("meta"):
            _check_fit(path, build_network(name, config, domain).state_dict())
    networks = {name: build_network(name, config, domain) for name in files}
    for name, path in files.items():
        networks[name].load_state_dict(read_tensors(path))
    return networks


def snapshot(state: TrainState, extra: Mapping[str, Any] | None = None) -> Snapshot:
    """Copy everything that `resume` needs; training may go on when this returns.

    Raises:
        ValueError: `extra` uses a name that state.json needs.
    """
    tensors = {_network(name): _copy(network.state_dict()) for name, network in state.stage.networks.items()}
    tensors |= {_average(name): _copy(network.state_dict()) for name, network in state.ema.items()}
    tensors |= {_optimiser(name): _copy(_flatten_optimiser(it)) for name, it in state.optimisers.items()}
    if state.device.type == "cuda":
        # The copies into pinned memory are only under way until here.
        torch.cuda.synchronize(state.device)
    stage, extra = state.stage, dict(extra or {})
    if taken := sorted(extra.keys() & {"format", "objgan", "torch", "stage", "step", "sha256", "seal"}):
        raise ValueError(f"{STATE} has its own {', '.join(taken)}: choose another name")
    return Snapshot(stage.name, state.step, stage.config, stage.domain, tensors, extra)


def write_snapshot(folder: Path, copy: Snapshot, ready: Callable[[], None] | None = None) -> None:
    """Write a snapshot as a checkpoint; the folder appears whole, and is on the disk when this returns.

    `ready` is called just before it appears; if it raises, nothing appears.
    """
    with folder_aside(folder) as aside:
        sums = {name: write_tensors(aside / name, tensors) for name, tensors in copy.tensors.items()}
        write_atomically(aside / "config.json", config_to_json(copy.config))
        copy.domain.save(aside / "domain")
        rest = (path for path in aside.rglob("*") if path.is_file())
        names = {path.relative_to(aside).as_posix(): path for path in rest}
        sums |= {name: sha256(path) for name, path in names.items() if name not in sums}
        facts = {
            "format": FORMAT,
            "objgan": objgan.__version__,
            "torch": torch.__version__,
            "stage": copy.stage,
            "step": copy.step,
            **copy.extra,
            "sha256": dict(sorted(sums.items())),
        }
        write_atomically(aside / STATE, json.dumps(facts | {"seal": _seal(facts)}, indent=1) + "\n")
        if ready is not None:
            ready()


def save_checkpoint(folder: Path, state: TrainState, extra: Mapping[str, Any] | None = None) -> None:
    """Write everything that `resume` needs; the folder appears whole."""
    write_snapshot(folder, snapshot(state, extra))


def read_state(folder: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint, its files and itself checked against their sums.

    Raises:
        InputError: no checkpoint, of a newer format, or with a missing or changed file.
    """
    path = folder / STATE
    facts = read_json(path, "checkpoint", OWN)
    if not isinstance(facts, dict) or not isinstance(facts.get("stage"), str) or "sha256" not in facts:
        raise InputError(f"checkpoint: {path} is not a checkpoint's state.json")
    there = facts.get("format", 0)
    if type(there) is not int or there > FORMAT:
        raise InputError(f"checkpoint: {folder} has format {shown(there)}, newer than {FORMAT}: update objgan")
    if there >= 2 and facts.get("seal") != _seal(facts):
        raise InputError(f"checkpoint: {path} was changed after it was written: take another checkpoint")
    check_sums(folder, facts["sha256"], _FILES, "checkpoint")
    return facts


def read_config(folder: Path) -> Config:
    """The settings that a checkpoint or model was made with.

    Raises:
        InputError: they are none of this version, or out of bounds.
    """
    path = folder / "config.json"
    values = read_json(path, "settings")
    try:
        return build_config(values)
    except InputError as error:
        advice = "if another version of objgan wrote this file, use that version, or train again"
        raise InputError(f"{path}: {error}; {advice}") from None


def resume(folder: Path, state: TrainState) -> dict[str, Any]:
    """Go on with a run: networks, averages, optimisers and step, in place; what state.json holds beside.

    Nothing is touched before all of it was found to fit.

    Raises:
        InputError: the checkpoint is broken, or of another stage or other sizes.
    """
    facts = _state_of_stage(folder, state.stage.name)
    if type(facts.get("step")) is not int or not 0 <= facts["step"] <= _MOST_STEPS:
        raise InputError(f"checkpoint: {folder / STATE} does not say its step: take another checkpoint")
    networks = {_network(name): network for name, network in state.stage.networks.items()}
    networks |= {_average(name): network for name, network in state.ema.items()}
    for name, network in networks.items():
        _check_fit(folder / name, network.state_dict())
    for name, optimiser in state.optimisers.items():
        _check_optimiser(folder / _optimiser(name), optimiser)
    for name, network in networks.items():
        network.load_state_dict(read_tensors(folder / name))
    for name, optimiser in state.optimisers.items():
        _restore_optimiser(optimiser, read_tensors(folder / _optimiser(name)))
    state.step = facts["step"]
    return facts


def load_weights(folder: Path, state: TrainState) -> dict[str, Any]:
    """Begin a run with the networks of a checkpoint: step 0 and new optimisers; what its state.json holds.

    Averages come from the checkpoint's, or from its networks where it has none. Nothing is touched before all of it
    was found to fit.

    Raises:
        InputError: the checkpoint is broken, of another stage, of other sizes, or of other words or classes.
        ValueError: the state is not fresh.
    """
    if state.step:
        raise ValueError(f"weights go into a fresh state, not into one at step {state.step}")
    facts = _state_of_stage(folder, state.stage.name)
    theirs, ours = Domain.load(folder / "domain"), state.stage.domain
    if theirs.vocabulary.words != ours.vocabulary.words or theirs.classes != ours.classes:
        raise InputError(f"checkpoint: {folder} was trained on other words or classes: prepare the data alike")
    sources = {folder / _network(name): network for name, network in state.stage.networks.items()}
    averages = {folder / _average(name): network for name, network in state.ema.items()}
    averages = {p if p.exists() else folder / _network(p.stem): network for p, network in averages.items()}
    for path, network in (*sources.items(), *averages.items()):
        _check_fit(path, network.state_dict())
    for path, network in (*sources.items(), *averages.items()):
        network.load_state_dict(read_tensors(path))
    return facts


def load_inference(folder: Path) -> dict[str, nn.Module]:
    """The networks of a checkpoint that later stages and finished models use, averaged where averages were kept.

    Raises:
        InputError: the checkpoint is broken.
    """
    stage = stage_class(read_state(folder)["stage"])
    config, domain = read_config(folder), Domain.load(folder / "domain")
    averages = {name: folder / _average(name) for name in stage.inference}
    files = {name: path if path.exists() else folder / _network(name) for name, path in averages.items()}
    networks = build_networks(config, domain, files)
    return {name: network.requires_grad_(False).eval() for name, network in networks.items()}


def _network(name: str) -> str:
    return f"networks/{name}.safetensors"


def _average(name: str) -> str:
    return f"averages/{name}.safetensors"


def _optimiser(phase: str) -> str:
    return f"optimisers/{phase}.safetensors"


def _seal(facts: Mapping[str, Any]) -> str:
    """A sum of all facts but itself, as they are after a round trip through JSON."""
    plain = json.loads(json.dumps({name: value for name, value in facts.items() if name != "seal"}))
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@torch.no_grad()
def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    copies = {}
    for name, tensor in tensors.items():
        on_gpu = tensor.device.type == "cuda"
        copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
        copies[name].copy_(tensor, non_blocking=on_gpu)
    return copies


def _state_of_stage(folder: Path, stage: str) -> dict[str, Any]:
    facts = read_state(folder)
    if facts["stage"] != stage:
        raise InputError(f"checkpoint: {folder} is of stage {facts['stage']}, not {stage}")
    return facts


def _check_fit(path: Path, wanted: Mapping[str, Tensor]) -> None:
    if fault := misfit(read_shapes(path), wanted):
        raise InputError(f"{path} does not fit its settings: {fault}")


def _flatten_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`index.name` -> tensor. Learning rates and betas are settings, set anew at each step."""
    state = optimiser.state_dict()["state"]
    return {f"{index}.{key}": value for index, values in state.items() for key, value in values.items()}


def _check_optimiser(path: Path, optimiser: torch.optim.Optimizer) -> None:
    """See that each tensor is a number, or as large as the parameter that its index names."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for name, shape in read_shapes(path).items():
        index, _, key = name.partition(".")
        known = index.isdecimal() and int(index) < len(parameters) and key
        if not known or shape not in ((), tuple(parameters[int(index)].shape)):
            fault = f"{shown(name)} {list(shape)} belongs to another optimiser"
            raise InputError(f"{path} does not fit its settings: {fault}")


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
