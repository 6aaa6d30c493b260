"""Text and image encoders: padding, batch size, frozen weights, Inception's input range."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision.models
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from objgan.batch import Batch
from objgan.errors import InputError
from objgan.networks.backbones import Inception, SmallBackbone
from objgan.networks.encoders import ImageEncoder, TextEncoder, start_from_vectors
from objgan.vocabulary import project_vectors
from tests.tools.batches import word_mask


@pytest.fixture
def text_encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(vocabulary=20, embedding=8, channels=12, dropout=0.5).eval()


@pytest.fixture(scope="module")
def published() -> nn.Module:
    """Torchvision's own model, random weights, as it is used with ImageNet weights."""
    torch.manual_seed(0)
    model = torchvision.models.inception_v3(weights=None, transform_input=True, init_weights=False)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def weights(published: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(published.state_dict(), path)
    return path


def test_padding_words_change_nothing(text_encoder: TextEncoder, make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(3)
    garbage = torch.where(word_mask(batch), batch.words, 9)
    longer = torch.cat([garbage, torch.full((3, 5), 7)], 1)
    plain, padded = text_encoder(batch.words, batch.word_count), text_encoder(longer, batch.word_count)
    torch.testing.assert_close(padded.words[:, :, :8], plain.words)
    torch.testing.assert_close(padded.sentence, plain.sentence)
    assert (padded.words.transpose(1, 2)[~padded.mask] == 0).all()
    assert padded.mask.sum(1).tolist() == batch.word_count.tolist()


def test_a_caption_does_not_depend_on_its_batch(text_encoder: TextEncoder, make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(4)
    many = text_encoder(batch.words, batch.word_count)
    for i in range(4):
        one = text_encoder(batch.words[i : i + 1], batch.word_count[i : i + 1])
        assert one.sentence.shape == (1, 12) and one.words.shape == (1, 12, 8)
        torch.testing.assert_close(one.words, many[i : i + 1].words)
        torch.testing.assert_close(one.sentence, many[i : i + 1].sentence)


def test_sentence_is_the_last_state_of_both_directions(text_encoder: TextEncoder) -> None:
    text = text_encoder(torch.tensor([[2, 3, 4, 0]]), torch.tensor([3]))
    torch.testing.assert_close(text.sentence[0, :6], text.words[0, :6, 2])
    torch.testing.assert_close(text.sentence[0, 6:], text.words[0, 6:, 0])


def test_unknown_words_start_neutral(text_encoder: TextEncoder) -> None:
    assert (text_encoder.embedding.weight[:2] == 0).all()


def test_small_image_encoder_takes_any_side_and_reaches_every_parameter() -> None:
    encoder = ImageEncoder(12, SmallBackbone(8))
    for side in (32, 64, 128):
        regions, vector = encoder(torch.rand(2, 3, side, side) * 2 - 1)
        assert regions.shape == (2, 12, 64) and vector.shape == (2, 12)
    (regions.square().sum() + vector.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_small_image_encoder_in_eval_mode_does_not_depend_on_its_batch() -> None:
    encoder = ImageEncoder(12, SmallBackbone(8)).eval()
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    regions, vector = encoder(images)
    torch.testing.assert_close(encoder(images[1:2])[0][0], regions[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder(images[1:2])[1][0], vector[1], atol=1e-5, rtol=1e-4)


def test_inception_sees_what_torchvision_would_show_it(published: nn.Module, weights: Path) -> None:
    backbone = Inception(frozen=True)
    backbone.load_weights(weights)
    images = torch.rand(1, 3, 299, 299)
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    kept = {}
    for name in ("Mixed_6e", "avgpool"):
        getattr(published, name).register_forward_hook(lambda m, i, out, name=name: kept.__setitem__(name, out))
    with torch.no_grad():
        published((images - mean) / std)
        regions, pooled = backbone(images * 2 - 1)
    assert regions.shape == (1, 768, 17, 17) and pooled.shape == (1, 2048)
    torch.testing.assert_close(regions, kept["Mixed_6e"], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(pooled, kept["avgpool"].flatten(1), atol=1e-4, rtol=1e-3)


def test_frozen_inception_cannot_be_moved() -> None:
    encoder = ImageEncoder(8, Inception(frozen=True)).train().requires_grad_(True)
    learning = {name.split(".")[0] for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert learning == {"regions", "vector"}
    assert not any(module.training for module in encoder.backbone.modules())
    before = {name: tensor.clone() for name, tensor in encoder.backbone.state_dict().items()}
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    regions, vector = encoder(images)
    (regions.sum() + vector.sum()).backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in encoder.backbone.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.backbone.state_dict().items())


def test_inception_without_weights_learns() -> None:
    encoder = ImageEncoder(8, Inception(frozen=False)).train()
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder.backbone.training and len(list(encoder.backbone.parameters())) > 100


def test_weights_of_both_formats_and_wrong_ones(published: nn.Module, weights: Path, tmp_path: Path) -> None:
    backbone = Inception(frozen=True)
    converted = tmp_path / "inception.safetensors"
    safetensors.torch.save_file(published.state_dict(), converted)
    backbone.load_weights(converted)
    torch.testing.assert_close(
        backbone.state_dict()["layers.Mixed_7c.branch_pool.conv.weight"],
        published.state_dict()["Mixed_7c.branch_pool.conv.weight"],
    )
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    for name, message in (
        ("other.pth", "not torchvision's inception_v3"),
        ("broken.pth", "cannot read"),
        ("broken.safetensors", "cannot read"),
        ("absent.pth", "no file"),
        ("absent.safetensors", "no file"),
    ):
        with pytest.raises(InputError, match=message) as error:
            backbone.load_weights(tmp_path / name)
        assert "\n" not in str(error.value)


def test_embeddings_start_from_narrower_or_wider_vectors(text_encoder: TextEncoder) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    vectors[[0, 1, 7]] = 0
    before = text_encoder.embedding.weight.detach().clone()
    start_from_vectors(text_encoder.embedding, vectors)
    after = text_encoder.embedding.weight.detach()
    assert torch.equal(after[[0, 1, 7]], before[[0, 1, 7]]), "padding, unknown words, and words without a vector"
    assert torch.equal(after[:, 5:], before[:, 5:]), "further channels keep their random start"
    known = [index for index in range(2, 20) if index != 7]
    assert after[known, :5].square().mean().item() == pytest.approx(1.0, abs=1e-4)
    torch.testing.assert_close(after[2, :5] / after[2, 0], torch.from_numpy(vectors[2] / vectors[2, 0]))
    wide = np.random.default_rng(1).normal(size=(20, 12)).astype(np.float32)
    start_from_vectors(text_encoder.embedding, wide)
    projected = torch.from_numpy(project_vectors(wide, 8))[2:]
    torch.testing.assert_close(text_encoder.embedding.weight.detach()[2:], projected / projected.square().mean().sqrt())


def test_captions_are_sorted_here_with_the_bits_of_torchs_own_sorting(
    text_encoder: TextEncoder, make_batch: Callable[..., Batch]
) -> None:
    """Torch's waits for a GPU."""
    batch = make_batch(6)
    text_encoder.eval()
    embedded = text_encoder.embedding(batch.words)
    packed = pack_padded_sequence(embedded, batch.word_count, batch_first=True, enforce_sorted=False)
    outputs, (last, _) = text_encoder.lstm(packed)
    words, _ = pad_packed_sequence(outputs, batch_first=True, total_length=batch.words.shape[1])
    ours = text_encoder(batch.words, batch.word_count)
    assert torch.equal(ours.words, words.transpose(1, 2))
    assert torch.equal(ours.sentence, torch.cat([last[0], last[1]], 1))
    parameters = list(text_encoder.lstm.parameters())
    slopes = torch.autograd.grad(ours.words.square().sum() + ours.sentence.sum(), parameters)
    expected = torch.autograd.grad(words.square().sum() + last.sum(), parameters)
    assert all(torch.equal(one, other) for one, other in zip(slopes, expected, strict=True))
