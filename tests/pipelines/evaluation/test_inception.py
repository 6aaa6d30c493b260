"""Features of Inception from a file of random weights in the published file's format."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from objgan.errors import InputError
from pipelines.evaluation.inception import NO_WEIGHTS, WEIGHTS_FILE, Inception


@pytest.fixture(scope="module")
def theirs() -> Iterator[FeatureExtractorInceptionV3]:
    """torch-fidelity's extractor with random weights: it has no way to be built without a file."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = FeatureExtractorInceptionV3(
            "random", ["2048", "logits_unbiased"], feature_extractor_weights_path=empty
        )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network.eval()


@pytest.fixture(scope="module")
def path(theirs: FeatureExtractorInceptionV3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / WEIGHTS_FILE
    torch.save(theirs.state_dict(), file)
    return file


def images(number: int, seed: int) -> Tensor:
    return torch.randint(256, (number, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_features_equal_torch_fidelitys_however_they_are_batched(
    theirs: FeatureExtractorInceptionV3, path: Path
) -> None:
    inception, some = Inception(path), images(3, 1)
    with torch.inference_mode():
        pooled, logits = theirs(some)
    parts = [inception.features(some[:1]), inception.features(some[1:])]
    ours, our_logits = (torch.cat(rows).numpy() for rows in zip(*parts, strict=True))
    assert ours.shape == (3, 2048) and our_logits.shape == (3, 1008)
    np.testing.assert_allclose(ours, pooled.numpy(), rtol=1e-3, atol=1e-4 * float(pooled.abs().max()))
    np.testing.assert_allclose(our_logits, logits.numpy(), rtol=1e-3, atol=1e-4 * float(logits.abs().max()))
    assert np.abs(ours[0] - ours[1]).max() > 0
    assert not inception.published


def test_safetensors_are_read_too(theirs: FeatureExtractorInceptionV3, tmp_path: Path) -> None:
    file = tmp_path / "inception.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}, file)
    inception = Inception(file)
    assert torch.equal(inception.network.state_dict()["fc.weight"], theirs.fc.weight)


def test_the_reason_for_skipping_names_the_file_and_the_option() -> None:
    assert WEIGHTS_FILE in NO_WEIGHTS and "--inception" in NO_WEIGHTS


def test_missing_and_wrong_files_are_rejected(theirs: FeatureExtractorInceptionV3, path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        Inception(tmp_path / "none.pth")
    other = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("fc")}
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"Inception .*other\.pth: .*fc") as error:
        Inception(tmp_path / "other.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, 3, dtype=torch.uint8)])
def test_images_of_another_type_or_shape_are_rejected(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="uint8 images"):
        Inception.features(object(), bad)  # type: ignore[arg-type]
