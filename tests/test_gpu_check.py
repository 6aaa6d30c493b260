"""The program that checks GPUs, on a CPU: what it starts with, what it finds, where steps wait."""

import json
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from objgan.train_state import TrainState
from objgan.training import StepContext, train_step
from pipelines.recipes import resolve
from tests.benchmarks.paper_step import LAYERS
from tests.gpu_check.__main__ import main
from tests.gpu_check.agreement import Measured, distance, measured_step
from tests.gpu_check.checks import agreement, published
from tests.gpu_check.drawn import STAGES, Case, Pace
from tests.gpu_check.forms import REFERENCE, Tolerance
from tests.gpu_check.loading import Overlap
from tests.gpu_check.noise import HostNoise
from tests.gpu_check.timing import flop_per_step
from tests.gpu_check.waits import ALLOWED, IN_MAIN_MEMORY, NUMBER_OF_OBJECTS, Watch, waits

CPU = torch.device("cpu")
QUICK = ["--recipe", "tiny", "--quick", "--samples", "2"]
ALONE = """
import sys

NEEDED = {"torch", "torchvision", "numpy", "PIL", "safetensors", "pydantic"}
NEEDED |= {"torchgen", "functorch", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe"}
NEEDED |= {"fsspec", "filelock", "pydantic_core", "annotated_types", "typing_inspection"}


class Absent:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        spec = self.finder.find_spec(name, path, target)
        place = "" if spec is None else f"{spec.origin} {spec.submodule_search_locations}"
        return None if "site-packages" in place and name.split(".")[0] not in NEEDED else spec


sys.meta_path[:] = [Absent(finder) for finder in sys.meta_path]
from tests.gpu_check.__main__ import main

code = main(sys.argv[1:])
try:
    import ray
    raise SystemExit("ray was found: nothing was blocked")
except ImportError:
    pass
raise SystemExit(code)
"""


def _case(stage: str, *settings: str) -> Case:
    return Case("tiny", stage, resolve("tiny", None, settings), CPU, 2, Pace(1, 1, 2))


def _findings(path: Path) -> dict[str, dict[str, Any]]:
    return {f"{one['check']} {one['form']}".strip(): one for one in json.loads(path.read_text())["findings"]}


def test_it_runs_without_ray_mlflow_arrow_spacy_pycocotools_and_yaml(tmp_path: Path, repository: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-c", ALONE, *QUICK, "--stage", "encoders", "--out", str(out)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = _findings(out)
    assert "failed" not in done.stderr and "tiny   encoders  checkpoint" in done.stdout
    for check in ("losses, gradients float32 again", "checkpoint float32", "loader beside steps float32"):
        assert found[check]["verdict"] == "ok", check
    assert found["time bfloat16"]["figures"]["step_ms"] > 0
    assert {name for name, one in found.items() if one["verdict"] == "needs a GPU"} == {
        *("CPU and GPU", "TF32, auto", "waits by CUDA", "pinned copies", "peak memory")
    }


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        (["--recipe", "huge"], "--recipe"),
        (["--stage", "boxs"], "--stage"),
        (["--samples", "1"], "--samples: '1' is no whole number from 2 on"),
        (["--set", "images.wdth=3"], "did you mean images.width?"),
        pytest.param(
            ["--device", "cuda"], "no GPU", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
        ),
    ],
)
def test_wrong_options_are_refused(options: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2 and meant in capsys.readouterr().err


def _hurt(state: TrainState) -> None:
    """A stage that adds noise of its own, reads a number, and counts steps that no checkpoint knows."""
    plain, seeds = state.stage.forward, torch.Generator()
    seeds.seed()

    def forward(batch: Any) -> Any:
        outputs = plain(batch)
        assert float(outputs.vector.detach().sum()) != 0
        outputs.vector.mul_(1 + 0.1 * torch.rand(1, generator=seeds))
        return outputs

    state.stage.forward = forward  # type: ignore[method-assign]


def test_what_is_broken_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    assert main([*QUICK, "--stage", "encoders", "--out", str(out)], spoil=_hurt) == 1
    errors = capsys.readouterr().err
    for check in ("losses, gradients float32 again", "waits float32", "checkpoint float32"):
        assert f"  tiny encoders {check}\n" in errors
        assert _findings(out)[check]["verdict"] == "FAILED"
    assert "training.py forward (1): NOT ALLOWED" in _findings(out)["waits float32"]["detail"]
    assert "equal bits" in _findings(out)["losses, gradients float32 again"]["detail"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_waits_only_where_it_is_allowed_to(stage: str) -> None:
    case = _case(stage)
    state, parts = case.state(REFERENCE), case.few()
    with Watch(CPU) as watch:
        train_step(state, parts, StepContext(seed=0))
    assert watch.places.keys() <= ALLOWED.keys() | IN_MAIN_MEMORY.keys()
    objects = {place for place, reason in ALLOWED.items() if reason == NUMBER_OF_OBJECTS}
    assert watch.places.keys() & ALLOWED.keys() == (objects if stage == "images" else set())


def test_which_calls_wait() -> None:
    x, mask, index = torch.ones(3), torch.ones(3, dtype=torch.bool), torch.zeros(2, dtype=torch.int64)
    assert waits(Tensor.item, (x,), {}) and waits(torch.multinomial, (x, 1), {})
    assert waits(Tensor.__getitem__, (x, mask), {}) and waits(Tensor.__setitem__, (x, (mask,), x), {})
    assert not waits(Tensor.__getitem__, (x, index), {}) and not waits(Tensor.__getitem__, (x, (0, None)), {})
    assert waits(torch.tensor, ([1.0],), {"device": CPU}) and not waits(torch.tensor, ([1.0],), {})
    assert not waits(torch.where, (mask, x, x), {})


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("encoders", []),
        ("boxes", ["boxes.training.adversarial_weight=0.1", "boxes.dropout=0.2", "boxes.word_dropout=0.2"]),
        ("shapes", []),
        ("images", ["images.augment=true", "images.training.warmup=0"]),
        ("judge", []),
    ],
)
def test_noise_from_main_memory_is_the_noise_of_a_cpu(stage: str, settings: list[str]) -> None:
    case = _case(stage, *settings)
    plain = measured_step(case.state(REFERENCE), case.few(), StepContext(seed=0))
    state = case.state(REFERENCE)
    with _Draws() as draws, HostNoise():
        ours = measured_step(state, case.few(), StepContext(seed=0))
    assert distance(ours, plain).equal and len(plain.gradients) > 1
    assert draws.inside and not draws.outside


class _Draws(TorchDispatchMode):
    """Counts operations that draw, within `HostNoise` and past it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inside = self.outside = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            if any(frame.filename.endswith("gpu_check/noise.py") for frame in traceback.extract_stack()):
                self.inside += 1
            else:
                self.outside += 1
        return func(*args, **(kwargs or {}))


def test_distances_by_hand() -> None:
    theirs = Measured({"a": 2.0, "b": 0.01}, {"a of x": torch.tensor([3.0, 4.0]), "b of x": torch.zeros(2)})
    ours = Measured({"a": 2.1, "b": 0.03}, {"a of x": torch.tensor([3.0, 4.5]), "b of x": torch.zeros(2)})
    found = distance(ours, theirs)
    assert (found.loss_of, found.gradient_of, found.equal) == ("b", "a of x", False)
    assert found.loss == pytest.approx(0.2) and found.gradient == pytest.approx(0.1)
    assert found.within(Tolerance(0.21, 0.11)) and not found.within(Tolerance(0.19, 0.11))
    assert not found.within(Tolerance(0.21, 0.09)) and not found.within(None)
    assert distance(theirs, theirs).within(None)
    lost = Measured({"a": float("nan"), "b": 0.03}, ours.gradients)
    assert distance(lost, theirs).loss_of == "a" and not distance(lost, theirs).within(Tolerance(9.0, 9.0))
    with pytest.raises(ValueError, match="different terms"):
        distance(Measured({"a": 2.0}, {}), theirs)


def test_a_measured_step_moves_no_weight() -> None:
    case = _case("shapes")
    state = case.state(REFERENCE)
    before = [parameter.clone() for parameter in state.stage.networks.parameters()]
    found = measured_step(state, case.few(), StepContext(seed=0))
    assert all(torch.equal(a, b) for a, b in zip(before, state.stage.networks.parameters(), strict=True))
    assert found.gradients["generator/overlap of shape_generator"].norm() > 0
    assert "generator/gradient_norm" in found.losses and "discriminators/instance_accuracy" not in found.losses


def test_compiled_forms_are_left_out_where_training_would_refuse_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clang++").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    (compiled,) = (finding for finding in agreement(_case("encoders"), True) if finding.form == "compiled")
    assert compiled.verdict == "left out" and "no compiler (g++)" in compiled.detail


def test_reading_counts_as_hidden_where_steps_are_long_enough() -> None:
    assert Overlap(step=1.0, read=0.5, wait=0.5, owed=0.0).hidden == 0
    assert Overlap(step=1.0, read=0.5, wait=0.05, owed=0.0).hidden == pytest.approx(0.9)
    assert Overlap(step=0.4, read=0.5, wait=0.1, owed=0.1).hidden == 1


def test_operations_are_the_mean_over_steps_with_and_without_the_penalty() -> None:
    case = _case("images", "images.training.warmup=0", "images.training.gradient_penalty=2")
    state, parts, context = case.state(REFERENCE), case.few(), StepContext(seed=0)
    every = case.config.images.training.gradient_penalty_every
    plain = flop_per_step(state, parts, context, every - 1)
    mean = flop_per_step(state, parts, context, every)
    assert plain < mean < 1.1 * plain


def test_the_published_step_is_timed_beside_ours() -> None:
    (left_out,) = published(_case("images"))
    assert left_out.verdict == "left out"
    (found,) = published(_case("images", *LAYERS))
    figures = {name: value or 0.0 for name, value in found.figures.items()}
    assert found.verdict == "measured" and all(figures.values())
    assert 0.1 < figures["flop"] / figures["published_flop"] < 0.9
    assert not list(published(_case("shapes")))


def test_operations_are_those_that_torch_counts() -> None:
    case = _case("shapes")
    state, parts, context = case.state(REFERENCE), case.few(), StepContext(seed=0)
    with FlopCounterMode(display=False) as counter:
        train_step(state, parts, context)
    assert flop_per_step(state, parts, context, 1) == counter.get_total_flops() > 0
