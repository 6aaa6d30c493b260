"""Files of weights: what is read, and what is refused with one line."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from objgan.errors import InputError
from objgan.metrics.weights import fill, read_weights


class Runs:
    """Unpickling it runs code."""

    def __reduce__(self) -> tuple:
        return print, ("ran",)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_both_formats(tmp_path: Path, name: str) -> None:
    network, other = nn.Linear(3, 2), nn.Linear(3, 2)
    save = save_file if name.endswith(".safetensors") else torch.save
    save(network.state_dict(), tmp_path / name)
    fill(other, read_weights(tmp_path / name, "weights"), "weights")
    assert torch.equal(network.weight, other.weight)


def test_refusals_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = {
        "broken.pth": b"no weights at all",
        "cut.safetensors": b"\x10\x00",
        "empty.pth": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"weight": Runs()}, tmp_path / "runs.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "nested.pth")
    reason = {
        "broken.pth": "is broken",
        "cut.safetensors": "broken",
        "empty.pth": "broken",
        "runs.pth": "more than weights",
    }
    reason |= {"list.pth": "no state dict", "nested.pth": "no state dict", "missing.pth": "no file"}
    for name, words in reason.items():
        with pytest.raises(InputError, match=words) as error:
            read_weights(tmp_path / name, "weights of X")
        assert str(error.value).startswith("weights of X: ") and "\n" not in str(error.value)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"weight": torch.zeros(2, 3)}, "bias"),
        ({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, "size mismatch"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(1)}, "more"),
    ],
)
def test_weights_of_another_network(weights: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        fill(nn.Linear(3, 2), weights, "weights of X")
    assert "\n" not in str(error.value)
