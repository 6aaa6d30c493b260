"""Shape losses by hand, and what must not count in them."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import vgg19_bn

from objgan.errors import InputError
from objgan.layout import Layout
from objgan.losses.shapes import VGGPerceptual, feature_matching, overlap_loss, pixel_loss, pooled_mask


def _layout(boxes: list[list[float]], count: int, masks: torch.Tensor) -> Layout:
    return Layout(torch.zeros(1, len(boxes), dtype=torch.long), torch.tensor([boxes]), torch.tensor([count]), masks)


def test_pixel_loss_by_hand() -> None:
    """Box of 2 x 1 pixels, logits 0 and 2, truth 1 and 0: (log 2 + log(1 + e^2)) / 2; whatever lies outside."""
    logits = torch.full((1, 1, 4, 4), 50.0)
    logits[0, 0, 1, 1:3] = torch.tensor([0.0, 2.0])
    masks = torch.zeros(1, 1, 4, 4)
    masks[0, 0, 1, 1] = 1
    loss = pixel_loss(logits, _layout([[0.25, 0.25, 0.5, 0.25]], 1, masks))
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2, rel=1e-6)


def test_pixel_loss_divides_the_truth_by_the_share_of_the_box() -> None:
    """A box over half a pixel, filled: the right logit is large, not 0."""
    masks = torch.zeros(1, 1, 2, 2)
    masks[0, 0, 0, 0] = 0.5
    layout = _layout([[0.0, 0.0, 0.25, 0.5]], 1, masks)
    assert pixel_loss(torch.full((1, 1, 2, 2), 20.0), layout).item() < 1e-6
    assert pixel_loss(torch.zeros(1, 1, 2, 2), layout).item() == pytest.approx(math.log(2), rel=1e-6)


def test_pixel_loss_weighs_objects_alike_and_padding_not_at_all() -> None:
    """A large object right at every pixel and a small one that says 0.5: (0 + log 2) / 2."""
    masks = torch.zeros(1, 3, 8, 8)
    masks[0, 0] = 1
    logits = torch.stack([torch.full((8, 8), 40.0), torch.zeros(8, 8), torch.full((8, 8), 9.0)])[None]
    layout = _layout([[0, 0, 1, 1], [0, 0, 0.125, 0.125], [0, 0, 1, 1]], 2, masks)
    assert pixel_loss(logits, layout).item() == pytest.approx(math.log(2) / 2, rel=1e-5)


def test_pixel_loss_without_objects_is_zero_with_a_graph() -> None:
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    loss = pixel_loss(logits, _layout([[0.0, 0, 0, 0]] * 2, 0, torch.zeros(1, 2, 4, 4)))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_overlap_loss_by_hand() -> None:
    """0.5 and 0.25 on a true and a false pixel: 1 - 0.5 / (0.5 + 0.5 + 0.25); a perfect object: 0; padding: nothing."""
    masks, truth = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    truth[0, 0, 0, 0] = 1
    masks[0, 0, 0, :2] = torch.tensor([0.5, 0.25])
    truth[0, 1, 2:] = masks[0, 1, 2:] = 1
    masks[0, 2] = 1
    loss = overlap_loss(masks, _layout([[0.0, 0, 1, 1]] * 3, 2, truth))
    assert loss.item() == pytest.approx((1 - 0.5 / 1.25) / 2, rel=1e-6)


def test_overlap_loss_without_objects_is_zero_with_a_graph() -> None:
    masks = torch.zeros(1, 2, 4, 4, requires_grad=True)
    loss = overlap_loss(masks, _layout([[0.0, 0, 0, 0]] * 2, 0, torch.zeros(1, 2, 4, 4)))
    loss.backward()
    assert loss.item() == 0
    assert not masks.grad.any()


def test_feature_matching_by_hand() -> None:
    """Layer means |1-3| = 2 and (|0-1| + |4-0|) / 2 = 2.5, of the first sample alone: (2 + 2.5) / 2."""
    fake = [torch.tensor([[1.0], [7.0]]), torch.tensor([[0.0, 4.0], [9.0, 9.0]])]
    real = [torch.tensor([[3.0], [7.0]], requires_grad=True), torch.tensor([[1.0, 0.0], [0.0, 0.0]])]
    assert feature_matching(fake, real, torch.tensor([1, 0])).item() == pytest.approx(2.25)
    assert feature_matching(fake, real).item() == pytest.approx((1.0 + (2.5 + 9) / 2) / 2)
    assert not feature_matching(fake, real).requires_grad


def test_feature_matching_of_nothing_is_zero() -> None:
    assert feature_matching([torch.zeros(0, 3, 4, 4)], [torch.zeros(0, 3, 4, 4)]).item() == 0


def test_pooled_mask_is_the_maximum_over_objects_that_exist() -> None:
    masks = torch.tensor([0.2, 0.7, 0.9])[None, :, None, None].expand(1, 3, 2, 2)
    layout = _layout([[0, 0, 1, 1]] * 3, 2, masks)
    assert pooled_mask(masks, layout).tolist() == [[[pytest.approx(0.7)] * 2] * 2]
    assert not pooled_mask(masks, replace(layout, count=torch.tensor([0]))).any()


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory) -> Path:
    """Random numbers under the names and in the shapes of torchvision's own network."""
    with torch.device("meta"):
        expected = vgg19_bn(weights=None).features.state_dict()
    torch.manual_seed(0)
    scale = {key: (2 / value[0].numel()) ** 0.5 if value.dim() == 4 else 1.0 for key, value in expected.items()}
    state = {
        key: torch.randn(value.shape) * scale[key] if value.dim() == 4 else torch.ones(value.shape).to(value.dtype)
        for key, value in expected.items()
    }
    path = tmp_path_factory.mktemp("vgg") / "vgg19_bn.safetensors"
    save_file({f"features.{key}": value for key, value in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def vgg(vgg_file) -> VGGPerceptual:
    return VGGPerceptual(vgg_file)


def test_vgg_distance(vgg) -> None:
    vgg.train()
    assert not any(module.training for module in vgg.modules())
    assert not any(p.requires_grad for p in vgg.parameters())
    true, fake = torch.zeros(2, 32, 32), torch.zeros(2, 32, 32)
    true[:, 8:24, 8:24] = 1
    fake[0] = true[0]
    fake.requires_grad_()
    loss = vgg(fake, true)
    loss.backward()
    assert loss.item() > 0
    assert fake.grad[1].any()
    assert vgg(true, true).item() == 0
    assert vgg(fake, true, torch.tensor([True, False])).item() == 0
    assert len(vgg._activations(true)) == 5


def test_vgg_input_is_normalised_for_imagenet(vgg) -> None:
    """The first convolution of a mask of ones sees (1 - mean) / std in each of three equal channels."""
    seen = []
    with vgg.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])):
        vgg._activations(torch.ones(1, 8, 8))
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor(expected))


def test_vgg_weights_of_another_network_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"shapes\.vgg_weights: no file .*missing"):
        VGGPerceptual(tmp_path / "missing.pth")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"shapes\.vgg_weights: .*other\.pth is not torchvision's vgg19_bn"):
        VGGPerceptual(tmp_path / "other.pth")
