"""Checkpoints of a real stage: copies, sums, and what is refused."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from objgan.batch import Batch
from objgan.checkpoint import load_weights, read_config, read_state, resume, save_checkpoint, snapshot, write_snapshot
from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.stages import build_stage
from objgan.tensors import read_shapes, read_tensors, write_tensors
from objgan.training import StepContext, TrainState, train_step


@pytest.fixture
def make_state(tiny_config: Config, domain: Domain) -> Callable[..., TrainState]:
    def make(seed: int = 0, domain: Domain = domain, **sizes: int) -> TrainState:
        torch.manual_seed(seed)
        config = tiny_config.model_copy(update={"shapes": tiny_config.shapes.model_copy(update=sizes)})
        return TrainState(build_stage("shapes", config, domain, {}))

    return make


@pytest.fixture
def trained(make_state: Callable[..., TrainState], make_batch: Callable[..., Batch]) -> TrainState:
    state = make_state()
    train_step(state, make_batch(), StepContext(seed=5))
    return state


def _everything(state: TrainState) -> dict[str, torch.Tensor]:
    copy = snapshot(state)
    return {f"{file}:{name}": t for file, tensors in copy.tensors.items() for name, t in tensors.items()}


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def _forge(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change state.json and seal it again, as someone would who knows how."""
    path = folder / "state.json"
    facts = json.loads(path.read_text())
    change(facts)
    facts.pop("seal", None)
    if facts["format"] >= 2:
        facts["seal"] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(facts))


def test_tensors_come_back_as_they_were_and_the_sum_is_the_files(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(1)
    tensors = {
        "float": torch.randn(3, 5, generator=draw).t(),
        "half": torch.randn(7, generator=draw).to(torch.bfloat16),
        "number": torch.tensor(3.5),
        "count": torch.tensor(12345678901),
        "mask": torch.tensor([True, False, True]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "none": torch.zeros(0, 4),
        "channels last": torch.randn(2, 3, 4, 4, generator=draw).to(memory_format=torch.channels_last),
    }
    total = write_tensors(tmp_path / "x.safetensors", tensors)
    assert total == hashlib.sha256((tmp_path / "x.safetensors").read_bytes()).hexdigest()
    for back in (read_tensors(tmp_path / "x.safetensors"), load_file(tmp_path / "x.safetensors")):
        assert _same(back, tensors)
        assert {k: v.dtype for k, v in back.items()} == {k: v.dtype for k, v in tensors.items()}
    assert read_shapes(tmp_path / "x.safetensors") == {k: tuple(v.shape) for k, v in tensors.items()}
    write_tensors(tmp_path / "empty.safetensors", {})
    assert read_tensors(tmp_path / "empty.safetensors") == {}


def test_training_goes_on_while_a_snapshot_keeps_its_step(
    trained: TrainState, make_batch: Callable[..., Batch], make_state: Callable[..., TrainState], tmp_path: Path
) -> None:
    copy, then = snapshot(trained, {"position": [1, 2], "seed": 5}), _everything(trained)
    train_step(trained, make_batch(), StepContext(seed=5))
    assert not _same(_everything(trained), then)
    write_snapshot(tmp_path / "c", copy)
    state = make_state(seed=9)
    facts = resume(tmp_path / "c", state)
    assert (facts["position"], facts["seed"], facts["step"], state.step) == ([1, 2], 5, 1, 1)
    assert _same(_everything(state), then)
    train_step(state, make_batch(), StepContext(seed=5))
    assert _same(_everything(state), _everything(trained)), "the next step is the same to the last bit"


def test_extra_facts_do_not_hide_our_own(trained: TrainState) -> None:
    with pytest.raises(ValueError, match="its own sha256, step"):
        snapshot(trained, {"step": 3, "sha256": {}})


def test_a_folder_appears_only_when_its_writer_may(trained: TrainState, tmp_path: Path) -> None:
    def refuse() -> None:
        raise RuntimeError("not yours")

    with pytest.raises(RuntimeError, match="not yours"):
        write_snapshot(tmp_path / "c", snapshot(trained), ready=refuse)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", range(0, 700, 97))
def test_any_flipped_bit_of_state_json_is_found(trained: TrainState, tmp_path: Path, number: int) -> None:
    save_checkpoint(tmp_path / "c", trained, {"measures": {"iou": 0.5}})
    path = tmp_path / "c" / "state.json"
    data = bytearray(path.read_bytes())
    data[number % len(data)] ^= 2
    path.write_bytes(data)
    with pytest.raises(InputError):
        read_state(tmp_path / "c")


def test_the_first_format_is_read_and_a_newer_one_is_not(
    trained: TrainState, make_state: Callable[..., TrainState], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "c", trained)
    _forge(tmp_path / "c", lambda facts: facts.update(format=1))
    state = make_state(seed=9)
    resume(tmp_path / "c", state)
    assert _same(_everything(state), _everything(trained))
    _forge(tmp_path / "c", lambda facts: facts.update(format=3))
    with pytest.raises(InputError, match="has format 3, newer than 2: update objgan"):
        read_state(tmp_path / "c")


def test_settings_of_another_version_are_named_with_advice(trained: TrainState, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", trained)
    path = tmp_path / "c" / "config.json"
    path.write_text(path.read_text().replace('"hidden": 32', '"hidden": 32, "word_bag": true'))
    with pytest.raises(InputError, match=r"config\.json.* boxes\.word_bag.*another version of objgan.*train again$"):
        read_config(tmp_path / "c")


def test_a_sum_of_a_file_elsewhere_is_refused(trained: TrainState, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    save_checkpoint(tmp_path / "c", trained)
    _forge(tmp_path / "c", lambda facts: facts["sha256"].update({"../elsewhere": hashlib.sha256(b"x").hexdigest()}))
    with pytest.raises(InputError, match="elsewhere', which is no file of a checkpoint"):
        read_state(tmp_path / "c")


@pytest.mark.parametrize("part", ["networks", "averages", "optimisers"])
def test_a_pickle_in_disguise_is_not_run(
    trained: TrainState, make_state: Callable[..., TrainState], tmp_path: Path, part: str
) -> None:
    """The payload would create a file; its sum and the seal are right."""
    save_checkpoint(tmp_path / "c", trained)
    file, trace = next((tmp_path / "c" / part).iterdir()), tmp_path / "trace"
    payload = f"cbuiltins\nexec\n(Vopen({str(trace)!r}, 'w').write('run')\ntR.".encode()
    file.write_bytes(payload)
    name = file.relative_to(tmp_path / "c").as_posix()
    _forge(tmp_path / "c", lambda facts: facts["sha256"].update({name: hashlib.sha256(payload).hexdigest()}))
    read_state(tmp_path / "c")
    state = make_state(seed=9)
    before = _everything(state)
    with pytest.raises(InputError, match="cannot read the tensors") as caught:
        resume(tmp_path / "c", state)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    assert _same(_everything(state), before)


def test_the_payload_is_a_payload(tmp_path: Path) -> None:
    """What the test above relies on: read as a pickle, it does create the file."""
    trace = tmp_path / "trace"
    (tmp_path / "x.pickle").write_bytes(f"cbuiltins\nexec\n(Vopen({str(trace)!r}, 'w').write('run')\ntR.".encode())
    command = f"import pickle; pickle.load(open({str(tmp_path / 'x.pickle')!r}, 'rb'))"
    subprocess.run([sys.executable, "-c", command], check=True)
    assert trace.exists()


@pytest.mark.parametrize("function", [resume, load_weights])
def test_other_sizes_are_refused_before_anything_is_touched(
    trained: TrainState, make_state: Callable[..., TrainState], tmp_path: Path, function: Callable[..., Any]
) -> None:
    """The generator fits, the discriminator does not."""
    save_checkpoint(tmp_path / "c", trained)
    state = make_state(seed=9, discriminator_width=16)
    before = _everything(state)
    with pytest.raises(
        InputError, match=r"discriminator.*does not fit its settings: size mismatch for \S+: \["
    ) as caught:
        function(tmp_path / "c", state)
    assert "\n" not in str(caught.value)
    assert _same(_everything(state), before)
    assert state.step == 0


def test_another_optimiser_is_refused(
    trained: TrainState, make_state: Callable[..., TrainState], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "c", trained)
    file = next((tmp_path / "c" / "optimisers").iterdir())
    total = write_tensors(file, {"999.exp_avg": torch.zeros(2)})
    name = file.relative_to(tmp_path / "c").as_posix()
    _forge(tmp_path / "c", lambda facts: facts["sha256"].update({name: total}))
    with pytest.raises(InputError, match="belongs to another optimiser"):
        resume(tmp_path / "c", make_state(seed=9))


@pytest.mark.parametrize("function", [resume, load_weights])
def test_another_stage_is_refused(
    trained: TrainState, tiny_config: Config, domain: Domain, tmp_path: Path, function: Callable[..., Any]
) -> None:
    save_checkpoint(tmp_path / "c", trained)
    with pytest.raises(InputError, match="is of stage shapes, not encoders"):
        function(tmp_path / "c", TrainState(build_stage("encoders", tiny_config, domain, {})))


def test_weights_begin_a_run_anew(
    trained: TrainState, make_state: Callable[..., TrainState], make_batch: Callable[..., Batch], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "c", trained)
    state = make_state(seed=9)
    load_weights(tmp_path / "c", state)
    ours, theirs = _everything(state), _everything(trained)
    assert state.step == 0
    assert not any(name.startswith("optimisers") for name in ours)
    assert _same(ours, {name: t for name, t in theirs.items() if not name.startswith("optimisers")})
    assert any(name.startswith("averages") for name in ours)
    train_step(state, make_batch(), StepContext(seed=5))
    with pytest.raises(ValueError, match="not into one at step 1"):
        load_weights(tmp_path / "c", state)


def test_weights_of_a_run_without_averages_are_the_averages(
    trained: TrainState, make_state: Callable[..., TrainState], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "c", trained)
    for file in (tmp_path / "c" / "averages").iterdir():
        file.unlink()
    keep = lambda sums: {name: total for name, total in sums.items() if not name.startswith("averages")}  # noqa: E731
    _forge(tmp_path / "c", lambda facts: facts.update(sha256=keep(facts["sha256"])))
    state = make_state(seed=9)
    load_weights(tmp_path / "c", state)
    for name, network in state.ema.items():
        assert _same(network.state_dict(), trained.stage.networks[name].state_dict())


def test_weights_for_other_classes_are_refused(
    trained: TrainState, make_state: Callable[..., TrainState], domain: Domain, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "c", trained)
    other = Domain(domain.vocabulary, (*domain.classes[:-1], "goat"), domain.statistics)
    with pytest.raises(InputError, match="other words or classes"):
        load_weights(tmp_path / "c", make_state(domain=other))
