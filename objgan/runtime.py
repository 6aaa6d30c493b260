"""How networks are run, whatever they are: memory format, compilation, number types and a GPU's switches."""

import os
import shlex
import shutil

import torch
from torch import nn

from objgan.errors import InputError
from objgan.networks.layers import DownBlock, ResidualBlock, UpBlock
from objgan.networks.layout_encoder import LayoutEncoder
from objgan.sections import ComputeConfig
from objgan.stages.base import Stage

_BLOCKS = (DownBlock, LayoutEncoder, ResidualBlock, UpBlock)
_PENALTY = "penalty"
_VERSIONS = 256


def prepare_networks(stage: Stage, compute: ComputeConfig, device: torch.device) -> None:
    """Bring a new stage's networks and helpers into the form that the settings ask for, in place.

    Called before the optimisers are made. Parameters keep their names and values, so checkpoints fit whatever was asked
    for. Sets process-wide switches, too (`set_switches`).

    Raises:
        InputError: it is to be compiled, and this machine has no compiler.
    """
    if compute.compile:
        check_compiler(device)
    set_switches(compute, device)
    if wants_channels_last(compute, device):
        for network in (stage.networks, stage.helpers):
            network.to(memory_format=torch.channels_last)
    if compute.compile:
        _compile(stage)


def autocast_dtype(compute: ComputeConfig, device: torch.device) -> torch.dtype:
    """What convolutions and linear layers compute in; bfloat16 means autocast. `auto`: on GPUs that have it."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    wanted = compute.precision == "bfloat16" or (compute.precision == "auto" and able)
    return torch.bfloat16 if wanted else torch.float32


def wants_channels_last(compute: ComputeConfig, device: torch.device) -> bool:
    """Whether 4-D tensors lie with their channels last. `auto`: on GPUs, whose tensor cores want it."""
    return compute.channels_last == "on" or (compute.channels_last == "auto" and device.type == "cuda")


def set_switches(compute: ComputeConfig, device: torch.device) -> None:
    """A GPU's process-wide switches; the CPU has none.

    deterministic: repeatable kernels, no search for the quickest ones. Operations that have no repeatable form warn.
    TF32 is off where float32 was asked for by name, and on elsewhere.
    """
    if device.type != "cuda":
        return
    # cuBLAS reads it when its first handle is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(compute.deterministic, warn_only=True)
    torch.backends.cudnn.deterministic = compute.deterministic
    torch.backends.cudnn.benchmark = not compute.deterministic
    precision = "ieee" if compute.precision == "float32" else "tf32"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]


def check_compiler(device: torch.device) -> None:
    """`torch.compile` compiles C++ for a CPU (Inductor), and C for a GPU (Triton), as late as in the first step.

    Raises:
        InputError: neither the compiler that the environment names nor a usual one is on this machine.
    """
    variable, usual = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++",))
    given = shlex.split(os.environ.get(variable, ""))[:1]
    if not any(map(shutil.which, given or usual)):
        raise InputError(
            f"compute.compile=true: no compiler ({' or '.join(given or usual)}) on a machine that trains: install g++, "
            f"build the image with --build-arg COMPILER=g++, or set compute.compile=false"
        )


def _compile(stage: Stage) -> None:
    """Blocks, not whole networks: discriminators are entered by several methods, and a block is compiled in seconds.

    Networks of the gradient penalty are left out: a compiled graph cannot be differentiated twice.
    """
    import torch._dynamo  # a second of import

    # Each block is a version of one function; the default of 8 would leave most of them as they were.
    torch._dynamo.config.recompile_limit = _VERSIONS
    twice = {name for phase in stage.phases if phase.name == _PENALTY for name in phase.networks}
    networks: list[nn.Module] = [network for name, network in stage.networks.items() if name not in twice]
    for network in (*networks, *stage.helpers.values()):
        for module in network.modules():
            if isinstance(module, _BLOCKS):
                module.compile(dynamic=False)
