"""The loop's own rules, on a stage of two linear networks that can be computed by hand."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from objgan.batch import Batch
from objgan.checkpoint import read_state, resume, save_checkpoint
from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.stages.base import Adam, Phase, Stage
from objgan.train_state import TrainState
from objgan.training import SKIPPED, StepContext, cooldown_factor, not_finite, step_seed, train_step


class _Toy(Stage):
    """A generator of one number, a discriminator of one number, a frozen one inside the generator."""

    name: ClassVar[str] = "shapes"
    columns: ClassVar[frozenset[str]] = frozenset()
    inference: ClassVar[tuple[str, ...]] = ("shape_generator",)
    objective = ("measure", "max")

    def __init__(self, config: Config, domain: Domain) -> None:
        super().__init__(config, domain, {})
        generator = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Linear(1, 1))
        generator[3].requires_grad_(False)
        self.networks.update({"shape_generator": generator, "discriminator": nn.Linear(1, 1)})
        self.broken = False
        self.seen: dict[str, set[str]] = {}
        self.phases = (
            Phase("judge", ("discriminator",), Adam(0.1), self._judge, {"real": 1.0}),
            Phase(
                "make", ("shape_generator",), Adam(0.1, schedule=lambda epoch: 0.5**epoch), self._make, {"fool": 1.0}
            ),
        )

    def forward(self, batch: Batch) -> Tensor:
        out: Tensor = self.networks["shape_generator"](torch.randn(len(batch), 1))
        return out

    def _judge(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        self._note("judge")
        return {"real": self.networks["discriminator"](fake.detach()).mean(), "unweighted": fake.mean()}

    def _make(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        self._note("make")
        loss = self.networks["discriminator"](fake).mean()
        return {"fool": loss * float("nan") if self.broken else loss}

    def _note(self, phase: str) -> None:
        self.seen[phase] = {name for name, p in self.networks.named_parameters() if p.requires_grad}

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    def pictures(self, batch: Batch) -> dict[str, Image.Image]:
        return {}


@pytest.fixture
def toy(tiny_config: Config, domain: Domain) -> TrainState:
    torch.manual_seed(0)
    config = tiny_config.model_copy(
        update={
            "shapes": tiny_config.shapes.model_copy(
                update={
                    "training": tiny_config.shapes.training.model_copy(update={"ema_decay": 0.9, "ema_warmup": False})
                }
            )
        }
    )
    return TrainState(_Toy(config, domain))


def _steps(state: TrainState, batch: Batch, count: int) -> list[dict[str, Tensor]]:
    return [train_step(state, batch, StepContext(seed=5, steps_per_epoch=10)).tensors() for _ in range(count)]


def _weights(state: TrainState) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in state.stage.networks.state_dict().items()}


def test_gradients_are_on_for_a_phases_own_networks_alone(toy: TrainState, make_batch: Callable[..., Batch]) -> None:
    _steps(toy, make_batch(), 1)
    stage: Any = toy.stage
    assert stage.seen["judge"] == {"discriminator.weight", "discriminator.bias"}
    assert all(name.startswith("shape_generator") for name in stage.seen["make"])
    assert not any(name.startswith("shape_generator.3") for name in stage.seen["make"]), "what was frozen stays frozen"


def test_every_network_moves_but_what_is_frozen(toy: TrainState, make_batch: Callable[..., Batch]) -> None:
    before = _weights(toy)
    metrics = _steps(toy, make_batch(), 1)[0]
    moved = {name for name, value in _weights(toy).items() if not torch.equal(value, before[name])}
    assert "discriminator.weight" in moved
    assert "shape_generator.0.weight" in moved
    assert not moved & {"shape_generator.3.weight", "shape_generator.3.bias"}
    assert set(metrics) == {"judge/real", "judge/unweighted", "judge/gradient_norm", "make/fool", "make/gradient_norm"}


def test_the_average_is_the_recurrence_and_has_statistics_of_its_own(
    toy: TrainState, make_batch: Callable[..., Batch]
) -> None:
    expected = {k: v.clone() for k, v in toy.ema["shape_generator"].state_dict().items()}
    for _ in range(3):
        _steps(toy, make_batch(), 1)
        trained = toy.stage.networks["shape_generator"].state_dict()
        for key in ("0.weight", "1.running_mean"):
            expected[key] = 0.9 * expected[key] + 0.1 * trained[key]
    average = toy.ema["shape_generator"].state_dict()
    for key in ("0.weight", "1.running_mean"):
        torch.testing.assert_close(average[key], expected[key])
    assert average["1.num_batches_tracked"] == 3


def test_evaluation_swaps_the_average_in_and_back(toy: TrainState, make_batch: Callable[..., Batch]) -> None:
    _steps(toy, make_batch(), 1)
    trained = toy.stage.networks["shape_generator"]
    with toy.evaluation() as stage:
        assert stage.networks["shape_generator"] is toy.ema["shape_generator"]
        assert not stage.networks["shape_generator"].training
    assert toy.stage.networks["shape_generator"] is trained
    with pytest.raises(RuntimeError), toy.evaluation():
        raise RuntimeError
    assert toy.stage.networks["shape_generator"] is trained
    assert trained.training


def test_the_schedule_follows_the_epoch(toy: TrainState, make_batch: Callable[..., Batch]) -> None:
    _steps(toy, make_batch(), 11)
    assert toy.optimisers["make"].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5)
    assert toy.optimisers["judge"].param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 1.0), (59, 1.0), (60, 1.0), (70, 0.75), (80, 0.5), (99, 0.025), (150, 0.0)]
)
def test_rates_fall_to_zero_over_the_last_share_of_the_steps(step: int, factor: float) -> None:
    assert cooldown_factor(step, 100, 0.4) == pytest.approx(factor)
    assert cooldown_factor(step, 100, 0.0) == cooldown_factor(step, 0, 0.4) == 1.0


def test_the_cooldown_reaches_the_optimiser(
    tiny_config: Config, domain: Domain, make_batch: Callable[..., Batch]
) -> None:
    config = tiny_config
    shapes = config.shapes.model_copy(update={"training": config.shapes.training.model_copy(update={"cooldown": 1.0})})
    state = TrainState(_Toy(config.model_copy(update={"shapes": shapes}), domain))
    train_step(state, make_batch(), StepContext(seed=0, total_steps=4))
    train_step(state, make_batch(), StepContext(seed=0, total_steps=4))
    assert state.optimisers["judge"].param_groups[0]["lr"] == pytest.approx(0.1 * 0.75)


def test_a_step_whose_loss_is_not_finite_changes_nothing_but_the_count(
    toy: TrainState, make_batch: Callable[..., Batch]
) -> None:
    """Neither weights nor running statistics nor moments of the phase and of those after it; the run goes on."""
    _steps(toy, make_batch(), 2)
    toy.stage.broken = True  # type: ignore[assignment]
    before, moments = _weights(toy), copy.deepcopy(toy.optimisers["make"].state_dict()["state"])
    record = train_step(toy, make_batch(), StepContext(seed=5))
    assert record.numbers()[SKIPPED] == 1
    assert record.step == 2
    assert not_finite(record.numbers()) == "make/fool"
    after = _weights(toy)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"discriminator.weight", "discriminator.bias"}, "the phase before it had learned already"
    for index, values in toy.optimisers["make"].state_dict()["state"].items():
        assert all(torch.equal(value, moments[index][key]) for key, value in values.items())
    toy.stage.broken = False  # type: ignore[assignment]
    numbers = train_step(toy, make_batch(), StepContext(seed=5)).numbers()
    assert numbers[SKIPPED] == 0
    assert not_finite(numbers) is None
    assert not torch.equal(after["shape_generator.0.weight"], _weights(toy)["shape_generator.0.weight"])


def test_no_phase_learns_after_one_that_went_wrong(toy: TrainState, make_batch: Callable[..., Batch]) -> None:
    _steps(toy, make_batch(), 1)
    with torch.no_grad():
        toy.stage.networks["discriminator"].bias.fill_(float("inf"))
    before = _weights(toy)
    assert train_step(toy, make_batch(), StepContext(seed=5)).numbers()[SKIPPED] == 1
    assert all(torch.equal(value, before[name]) for name, value in _weights(toy).items())


def test_noise_is_a_function_of_seed_step_and_rank() -> None:
    seeds = {step_seed(seed, step, rank) for seed in range(4) for step in range(50) for rank in range(-3, 4)}
    assert len(seeds) == 4 * 50 * 7
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_resumed_run_ends_bit_identical(
    toy: TrainState, tiny_config: Config, domain: Domain, make_batch: Callable[..., Batch], tmp_path: Path
) -> None:
    _steps(toy, make_batch(), 3)
    save_checkpoint(tmp_path / "c", toy)
    _steps(toy, make_batch(), 4)
    torch.manual_seed(99)
    other = TrainState(_Toy(toy.stage.config, domain))
    resume(tmp_path / "c", other)
    assert other.step == 3
    _steps(other, make_batch(), 4)
    for name, value in _weights(toy).items():
        assert torch.equal(value, _weights(other)[name]), name
    for name, value in toy.ema.state_dict().items():
        assert torch.equal(value, other.ema.state_dict()[name]), name


def test_a_checkpoint_holds_no_pickle(toy: TrainState, make_batch: Callable[..., Batch], tmp_path: Path) -> None:
    _steps(toy, make_batch(), 1)
    save_checkpoint(tmp_path / "c", toy)
    assert {p.suffix for p in (tmp_path / "c").rglob("*") if p.is_file()} == {".json", ".safetensors"}


@pytest.mark.parametrize("fault", ["truncated", "flipped", "missing", "newer", "stage", "not JSON", "pickle"])
def test_a_broken_checkpoint_is_refused_in_one_line(
    toy: TrainState, make_batch: Callable[..., Batch], tmp_path: Path, fault: str
) -> None:
    _steps(toy, make_batch(), 1)
    folder = tmp_path / "c"
    save_checkpoint(folder, toy)
    file, state = folder / "networks" / "shape_generator.safetensors", folder / "state.json"
    data = file.read_bytes()
    if fault == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif fault == "flipped":
        file.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    elif fault == "missing":
        file.unlink()
    elif fault == "pickle":
        torch.save({"x": 1}, file)
    elif fault == "not JSON":
        state.write_text(state.read_text()[:40])
    else:
        old, new = ('"format": 2', '"format": 9') if fault == "newer" else ('"stage": "shapes"', '"stage": "boxes"')
        state.write_text(state.read_text().replace(old, new))
    before = _weights(toy)
    with pytest.raises(InputError) as caught:
        resume(folder, toy)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in _weights(toy).items())


def test_a_checkpoint_of_other_sizes_is_refused(toy: TrainState, domain: Domain, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", toy)
    other = TrainState(_Toy(toy.stage.config, domain))
    other.stage.networks["shape_generator"][0] = nn.Linear(2, 4)  # type: ignore[index]
    with pytest.raises(InputError, match="does not fit its settings: size mismatch"):
        resume(tmp_path / "c", other)


def test_a_full_disk_leaves_no_half_checkpoint(
    toy: TrainState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last file of the folder fails to be written: nothing is visible, and an older one is untouched."""
    save_checkpoint(tmp_path / "c", toy)
    old = read_state(tmp_path / "c")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("objgan.checkpoint._flatten_optimiser", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path / "c", toy)
    assert read_state(tmp_path / "c") == old
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_contexts_are_inert() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        StepContext(1).seed = 2  # type: ignore[misc]
