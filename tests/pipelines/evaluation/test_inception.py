"""FID, KID and inception score from a file of Inception weights: random ones, in the published file's format."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from objgan.errors import InputError
from pipelines.evaluation.inception import WEIGHTS_FILE, Features, Inception, fidelity, load_inception


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
    found = Features.join([inception.features(some[:1]), inception.features(some[1:])])
    assert found.pooled.shape == (3, 2048) and found.logits.shape == (3, 1008)
    np.testing.assert_allclose(found.pooled, pooled.numpy(), rtol=1e-3, atol=1e-4 * float(pooled.abs().max()))
    np.testing.assert_allclose(found.logits, logits.numpy(), rtol=1e-3, atol=1e-4 * float(logits.abs().max()))
    assert np.abs(found.pooled[0] - found.pooled[1]).max() > 0
    assert not inception.published


def test_safetensors_are_read_too(theirs: FeatureExtractorInceptionV3, tmp_path: Path) -> None:
    file = tmp_path / "inception.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}, file)
    inception = load_inception(file)
    assert isinstance(inception, Inception)
    assert torch.equal(inception.network.state_dict()["fc.weight"], theirs.fc.weight)


def test_no_path_gives_the_reason() -> None:
    reason = load_inception(None)
    assert isinstance(reason, str) and WEIGHTS_FILE in reason and "--inception" in reason


def test_refusals(theirs: FeatureExtractorInceptionV3, path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        load_inception(tmp_path / "none.pth")
    other = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("fc")}
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"Inception .*other\.pth: .*fc") as error:
        load_inception(tmp_path / "other.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, 3, dtype=torch.uint8)])
def test_images_of_another_kind_are_refused(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="uint8 images"):
        Inception.features(object(), bad)  # type: ignore[arg-type]


def test_figures_are_torch_fidelitys() -> None:
    rng = np.random.default_rng(0)
    generated = Features(rng.random((60, 40), np.float32), 3 * rng.standard_normal((60, 20)).astype(np.float32))
    real = Features(rng.random((50, 40), np.float32), np.zeros((50, 20), np.float32))
    found = fidelity(generated, real)
    score = isc_features_to_metric(torch.from_numpy(generated.logits))["inception_score_mean"]
    kid = kid_features_to_metric(
        torch.from_numpy(generated.pooled).double(), torch.from_numpy(real.pooled).double(), kid_subset_size=50
    )
    assert found["inception_score"] == pytest.approx(score)
    assert found["kid"] == pytest.approx(kid["kernel_inception_distance_mean"])
    assert fidelity(real, real)["fid"] == pytest.approx(0, abs=1e-8)
    assert found["fid"] > 0
