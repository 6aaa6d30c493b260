"""How networks are run: number types, memory format, switches of a GPU, compilation."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.networks.backbones import SmallBackbone
from objgan.networks.encoders import ImageEncoder, TextEncoder
from objgan.networks.layers import DownBlock
from objgan.runtime import autocast_dtype, check_compiler, prepare_networks, set_switches, wants_channels_last
from objgan.sections import ComputeConfig
from objgan.stages.images import ImagesStage
from objgan.training import StepContext, TrainState, train_step

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def stage(tiny_config: Config, domain: Domain) -> ImagesStage:
    torch.manual_seed(0)
    helpers: dict[str, nn.Module] = {
        "text_encoder": TextEncoder(len(domain.vocabulary), 16, 32, 0.5),
        "image_encoder": ImageEncoder(32, SmallBackbone(8)),
    }
    return ImagesStage(tiny_config, domain, helpers)


@pytest.fixture
def switches() -> Iterator[None]:
    """The process's own ones afterwards."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [backend.fp32_precision for backend in backends]
    workspace = os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = False
    for backend, precision in zip(backends, before, strict=True):
        backend.fp32_precision = precision
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if workspace is not None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = workspace


def test_the_cpu_computes_in_float32_unless_bfloat16_is_asked_for() -> None:
    assert autocast_dtype(ComputeConfig(), CPU) == torch.float32
    assert autocast_dtype(ComputeConfig(precision="bfloat16"), CPU) == torch.bfloat16


def test_channels_last_is_for_gpus_unless_it_is_asked_for() -> None:
    assert [wants_channels_last(ComputeConfig(), device) for device in (CPU, GPU)] == [False, True]
    assert wants_channels_last(ComputeConfig(channels_last="on"), CPU)
    assert not wants_channels_last(ComputeConfig(channels_last="off"), GPU)


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_gpu_is_repeatable_or_searches_for_quick_kernels(switches: None, deterministic: bool) -> None:
    set_switches(ComputeConfig(deterministic=deterministic), GPU)
    assert torch.are_deterministic_algorithms_enabled() == torch.backends.cudnn.deterministic == deterministic
    assert torch.backends.cudnn.benchmark != deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_tf32_is_off_where_float32_was_asked_for(switches: None) -> None:
    for precision, kind in (("auto", "tf32"), ("float32", "ieee")):
        set_switches(ComputeConfig(precision=precision), GPU)  # type: ignore[arg-type]
        assert torch.backends.cuda.matmul.fp32_precision == torch.backends.cudnn.conv.fp32_precision == kind


def test_the_cpu_has_no_switches(switches: None) -> None:
    set_switches(ComputeConfig(), CPU)
    assert not torch.are_deterministic_algorithms_enabled() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_channels_last_changes_the_format_and_not_the_step(stage, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(4, [4, 4, 4, 4])
    names, weights = list(stage.state_dict()), [p.clone() for p in stage.networks.parameters()]
    prepare_networks(stage, ComputeConfig(channels_last="on"), CPU)
    assert list(stage.state_dict()) == names
    assert all(torch.equal(a, b) for a, b in zip(weights, stage.networks.parameters(), strict=True))
    convolutions = [module for module in stage.networks.modules() if isinstance(module, nn.Conv2d)]
    assert all(one.weight.is_contiguous(memory_format=torch.channels_last) for one in convolutions)
    train_step(TrainState(stage), batch, StepContext(seed=0))
    assert all(torch.isfinite(p).all() for p in stage.networks.parameters())


@pytest.mark.parametrize(("device", "variable", "usual"), [(CPU, "CXX", "g++"), (GPU, "CC", "clang")])
def test_without_a_compiler_compilation_is_refused_before_the_first_step(
    stage: ImagesStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: torch.device, variable: str, usual: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(InputError, match=r"compute.compile=true: no compiler .* --build-arg COMPILER=g\+\+"):
        prepare_networks(stage, ComputeConfig(compile=True), device)
    for name, given in ((usual, ""), ("mine", "mine -O1"), ("other", str(tmp_path / "other"))):
        (tmp_path / name).touch(0o755)
        monkeypatch.setenv(variable, given)
        check_compiler(device)
    # The compiler that the environment names is the one that is used.
    monkeypatch.setenv(variable, "absent")
    with pytest.raises(InputError, match="absent"):
        check_compiler(device)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_compiled_block_computes_the_same_under_the_same_names(stage: ImagesStage) -> None:
    names = list(stage.state_dict())
    block = next(module for module in stage.networks["layout_32"].modules() if isinstance(module, DownBlock))
    x = torch.randn(2, block.conv.in_channels, 16, 16)
    plain = block(x)
    prepare_networks(stage, ComputeConfig(compile=True), CPU)
    assert list(stage.state_dict()) == names
    torch.testing.assert_close(block(x), plain, atol=1e-5, rtol=1e-5)
    average = TrainState(stage).ema["image_generator"]
    assert list(average.state_dict()) == list(stage.networks["image_generator"].state_dict())
